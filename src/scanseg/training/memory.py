"""Running out of a device's memory, or the host's, explained."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from scanseg.errors import ScansegError
from scanseg.models.device import lacks_memory


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
