"""Capturing CUDA graphs so that a capture that fails leaves nothing behind."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal

import torch

_FAILED: list[torch.cuda.CUDAGraph] = []
"""PyTorch's allocator of pinned memory goes on to ask a graph whose capture was broken: it must not be deleted."""


@contextmanager
def capture(
    graph: torch.cuda.CUDAGraph,
    *,
    beside: torch.cuda.CUDAGraph | None = None,
    other_threads: Literal["refused", "left alone"] = "refused",
) -> Iterator[None]:
    """Capture what is launched inside as a CUDA graph, on the current device.

    Where that fails, PyTorch itself stays in the midst of a capture: until the process ends it refuses to draw random
    numbers on the device, keeps freed memory and leaves the stream of the capture the current one. This puts all three
    right before the error goes on. What stays is that no other graph can be captured beside the same one.

    Args:
        graph: A new graph.
        beside: A captured graph whose memory may be used, since it is never replayed at the same time.
        other_threads: Whether launches of other threads that a capture does not allow make it fail.

    Raises:
        RuntimeError: What is launched cannot be captured.
    """
    device = torch.cuda.current_device()
    pool = torch.cuda.graph_pool_handle() if beside is None else beside.pool()
    mode = "global" if other_threads == "refused" else "thread_local"
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


def _stop_recording(graph: torch.cuda.CUDAGraph, device: int, pool: tuple[int, int]) -> None:
    """Let the allocator of the device's memory know that a capture is over, if PyTorch has not done so itself."""
    try:
        torch._C._cuda_endAllocateToPool(device, pool)
    except RuntimeError:
        return  # The capture ended as it should, in an error of Python say: the graph gives its memory back itself.
    torch._C._cuda_releasePool(device, pool)
    _FAILED.append(graph)


def _end_drawing(mode: str) -> None:
    """Let the random generator of the current device know that no capture goes on, by one that ends well."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.stream(torch.cuda.current_stream()), torch.cuda.graph(graph, capture_error_mode=mode):
        torch.zeros(1, device="cuda")
