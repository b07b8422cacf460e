"""Running out of a device's memory, or the host's, explained."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from scanseg.errors import ScansegError

_CPU_ALLOCATOR = "DefaultCPUAllocator: "
"""In what torch says where the host's memory does not suffice; it has no error of its own for that."""
_GPU_LIBRARIES = ("CUDA error: out of memory", "_STATUS_ALLOC_FAILED", "MPS backend out of memory")
"""In what the libraries of a GPU say, which are not asked by way of torch's allocator."""


class CaptureMemoryError(Exception):
    """The device's memory held the computation, but not its CUDA graph beside it."""


@contextmanager
def explained_memory(what: str, *, advice: str, device: torch.device) -> Iterator[None]:
    """Say what did not fit into memory, and what to do.

    Args:
        what: What the memory is to hold.
        advice: What needs less memory.
        device: Whose memory it is.

    Raises:
        ScansegError: The memory did not suffice in the block.
    """
    try:
        yield
    except (CaptureMemoryError, MemoryError, RuntimeError) as error:
        if not (isinstance(error, CaptureMemoryError) or lacks_memory(error)):
            raise
        if isinstance(error, CaptureMemoryError):
            what, advice = f"the CUDA graph of {what}", f"--set training.cuda_graph=false, or {advice}"
        raise ScansegError(
            f"the memory of {device} does not suffice for {what}; train anew, in another model folder, "
            f"with {advice}"
        ) from error


def is_memory_error(error: BaseException) -> bool:
    """Whether an error is, or came up while handling, that a GPU's memory does not suffice."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, torch.OutOfMemoryError):
        cause = cause.__cause__ or cause.__context__
    return cause is not None


def lacks_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of a device, or the host's, does not suffice."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and (_CPU_ALLOCATOR in str(error) or _lacks_gpu_memory(error))
    )


def _lacks_gpu_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _GPU_LIBRARIES)


@contextmanager
def memory_for(what: str, *, device: torch.device) -> Iterator[None]:
    """Say what to do where something that must lie on a device as a whole, such as a network, finds no place there.

    Args:
        what: What the memory is to hold.
        device: Where it is to lie.

    Raises:
        ScansegError: The memory of the device, or the host's, did not suffice in the block.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not lacks_memory(error):
            raise
        where = str(device) if _lacks_gpu_memory(error) else "the host"
        raise ScansegError(
            f"the memory of {where} does not suffice for {what}; end what else uses it, or choose another device "
            f"(--device)"
        ) from error
