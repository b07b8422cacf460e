"""Explained errors for too little memory of a device or the host."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from scanseg.errors import ScansegError

_CPU_ALLOCATOR = "DefaultCPUAllocator: "
"""Part of PyTorch's message for too little host memory, which has no error class of its own."""
_GPU_LIBRARIES = ("CUDA error: out of memory", "_STATUS_ALLOC_FAILED", "MPS backend out of memory")
"""Parts of the messages of GPU libraries that allocate without PyTorch's allocator."""


class CaptureMemoryError(Exception):
    """The computation fits into memory, but its CUDA graph does not."""


@contextmanager
def explained_memory(content: str, *, advice: str, device: torch.device) -> Iterator[None]:
    """Explain too little memory for a training, with advice.

    Args:
        content: Object that the memory should hold, such as `all cases`.
        advice: Settings that need less memory.
        device: Device of the memory.

    Raises:
        ScansegError: The block ran out of memory.
    """
    try:
        yield
    except (CaptureMemoryError, MemoryError, RuntimeError) as error:
        if not (isinstance(error, CaptureMemoryError) or lacks_memory(error)):
            raise
        if isinstance(error, CaptureMemoryError):
            content, advice = f"the CUDA graph of {content}", f"--set training.cuda_graph=false, or {advice}"
        raise ScansegError(
            f"not enough memory on {device} for {content}. Start a new training, in another model folder, with "
            f"{advice}."
        ) from error


def is_memory_error(error: BaseException) -> bool:
    """Return whether too little GPU memory caused an error.

    Args:
        error: Searched with its causes and contexts.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, torch.OutOfMemoryError):
        cause = cause.__cause__ or cause.__context__
    return cause is not None


def lacks_memory(error: BaseException) -> bool:
    """Return whether an error reports too little memory of device or host.

    Args:
        error: Error without its causes.
    """
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and (_CPU_ALLOCATOR in str(error) or _lacks_gpu_memory(error))
    )


def _lacks_gpu_memory(error: BaseException) -> bool:
    """Return whether an error reports too little GPU memory."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _GPU_LIBRARIES)


@contextmanager
def memory_for(content: str, *, device: torch.device) -> Iterator[None]:
    """Explain too little memory for an object that cannot be split.

    Args:
        content: Object that the memory should hold, such as `the network`.
        device: Device of the memory.

    Raises:
        ScansegError: The block ran out of memory on the device or the host.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not lacks_memory(error):
            raise
        where = str(device) if _lacks_gpu_memory(error) else "the host"
        raise ScansegError(
            f"not enough memory on {where} for {content}. Close other programs that use it, or choose another device "
            f"(--device)."
        ) from error
