"""Capture of CUDA graphs that cleans up after a failure."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal
from weakref import WeakSet

import torch

_FAILED: list[torch.cuda.CUDAGraph] = []
"""Graphs of failed captures. PyTorch's allocator of pinned memory still refers to them, so they must stay alive."""


_COMMUNICATING: WeakSet[torch.cuda.CUDAGraph] = WeakSet()
"""Graphs that send messages to other processes."""


@contextmanager
def capture(
    graph: torch.cuda.CUDAGraph,
    *,
    beside: torch.cuda.CUDAGraph | None = None,
    other_threads: Literal["refused", "left alone"] = "refused",
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
