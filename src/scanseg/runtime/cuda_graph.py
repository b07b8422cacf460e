"""Capture and replay of CUDA graphs."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Generic, Literal, TypeVar
from weakref import WeakSet

import torch
from torch import Tensor

_LOGGER = logging.getLogger(__name__)

Result = TypeVar("Result")
OtherThreads = Literal["refused", "left alone"]

WARM_UPS = 3
"""Runs before a capture, in which libraries choose kernels and allocate workspaces."""

_FAILED: list[torch.cuda.CUDAGraph] = []
"""Graphs of failed captures. PyTorch's allocator of pinned memory still refers to them, so they must stay alive."""


_COMMUNICATING: WeakSet[torch.cuda.CUDAGraph] = WeakSet()
"""Graphs that send messages to other processes."""


@contextmanager
def capture(
    graph: torch.cuda.CUDAGraph,
    *,
    beside: torch.cuda.CUDAGraph | None = None,
    other_threads: OtherThreads = "refused",
    communicates: bool = False,
) -> Iterator[None]:
    """Capture the kernels launched in the block as a CUDA graph.

    The current device is used. After a failed capture PyTorch itself stays in capture mode until the process ends: it
    refuses to draw random numbers on the device, keeps freed memory, and leaves the capture stream current. This
    function restores all three before the error propagates. One limit remains: no other graph can be captured beside
    the same graph.

    Args:
        graph: A new graph.
        beside: A captured graph whose memory may be shared. It must never be replayed at the same time.
        other_threads: `refused`: the capture fails if another thread makes a call that captures forbid.
        communicates: The block sends messages to other processes, whose threads are then left alone too. The graph
            cannot be replayed after the group of processes has ended.

    Raises:
        RuntimeError: The block contains a call that cannot be captured.
    """
    device = torch.cuda.current_device()
    pool = torch.cuda.graph_pool_handle() if beside is None else beside.pool()
    mode = "global" if other_threads == "refused" and not communicates else "thread_local"
    if communicates:
        _COMMUNICATING.add(graph)
    try:
        with (
            torch.cuda.stream(torch.cuda.current_stream()),
            torch.cuda.graph(graph, pool=pool, capture_error_mode=mode),
        ):
            yield
    except BaseException:
        _stop_recording(graph, device, pool)
        with suppress(RuntimeError):
            _end_drawing(mode)
        raise


def release_communicating_graphs() -> None:
    """Free the graphs that send messages.

    NCCL ends a group of processes only when no graph refers to it, and waits forever otherwise.
    """
    for graph in list(_COMMUNICATING):
        graph.reset()
        _COMMUNICATING.discard(graph)


class GraphedCall(Generic[Result]):
    """A function of tensors whose kernels are replayed as one CUDA graph.

    Args:
        run: The function. It must not read a value back to the host. It has run before (`run_before_capture`).
        inputs: Tensors on one GPU, with the shapes and dtypes of all later calls. They are copied.
        beside: See `capture`.
        other_threads: See `capture`.
        communicates: See `capture`.

    Raises:
        RuntimeError: The function cannot be captured.
    """

    def __init__(
        self,
        run: Callable[..., Result],
        inputs: Sequence[Tensor],
        *,
        beside: torch.cuda.CUDAGraph | None = None,
        other_threads: OtherThreads = "refused",
        communicates: bool = False,
    ) -> None:
        self.graph = torch.cuda.CUDAGraph()
        self.inputs = tuple(tensor.detach().clone() for tensor in inputs)
        with (
            torch.cuda.device(self.inputs[0].device),
            autocast_without_cache(),
            capture(self.graph, beside=beside, other_threads=other_threads, communicates=communicates),
        ):
            self.result = run(*self.inputs)

    def __call__(self, *inputs: Tensor | None) -> Result:
        """Replay the kernels for other inputs.

        Args:
            *inputs: Tensors of the captured shapes. `None`: zeros.

        Returns:
            The tensors of the graph, which the next call overwrites.
        """
        for own, given in zip(self.inputs, inputs, strict=True):
            if given is None:
                own.zero_()
            else:
                own.copy_(given)
        self.graph.replay()
        return self.result


def run_before_capture(run: Callable[[], object]) -> None:
    """Run a function on another stream before its capture.

    Args:
        run: The function to capture.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UPS):
            run()
    torch.cuda.current_stream().wait_stream(side)


def autocast_without_cache() -> AbstractContextManager[object]:
    """Return the current autocast of CUDA without its cache.

    Weights that autocast has converted outside of a graph would be freed before the replay.
    """
    dtype = torch.get_autocast_dtype("cuda")
    return torch.autocast("cuda", dtype=dtype, enabled=torch.is_autocast_enabled("cuda"), cache_enabled=False)


def report_direct_passes(error: RuntimeError) -> None:
    """Log the reason why passes of a network run directly.

    Args:
        error: Error of the capture.
    """
    reason = str(error).strip().partition("\n")[0]
    _LOGGER.warning("passes of the network run directly, not as a CUDA graph: %s", reason)


def _stop_recording(graph: torch.cuda.CUDAGraph, device: int, pool: tuple[int, int]) -> None:
    """End the allocator's capture mode unless PyTorch has ended it already."""
    try:
        torch._C._cuda_endAllocateToPool(device, pool)
    except RuntimeError:
        return  # The capture ended properly, for example in a Python error. The graph releases its memory itself.
    torch._C._cuda_releasePool(device, pool)
    _FAILED.append(graph)


def _end_drawing(mode: str) -> None:
    """End the random generator's capture mode by one successful capture."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.stream(torch.cuda.current_stream()), torch.cuda.graph(graph, capture_error_mode=mode):
        torch.zeros(1, device="cuda")
