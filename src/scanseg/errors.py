"""Errors caused by user input. Any other exception is a bug."""

from collections.abc import Sequence
from pathlib import Path

from scanseg.messages import first_lines, merge_cases


class ScansegError(Exception):
    """Failure that its message explains. Commands exit with 1, without traceback."""


class InputError(ScansegError):
    """A file, document or argument cannot be used as it is."""


class FaultsError(InputError):
    """All faults of an input.

    The message holds at most the first twenty.

    Args:
        message: The message.
        faults: All faults. Each has the values and the way to fix it.
    """

    def __init__(self, message: str, faults: Sequence[str]) -> None:
        super().__init__(message, tuple(faults))
        self.faults = tuple(faults)
        """All faults."""

    def __str__(self) -> str:
        """Return the message."""
        return str(self.args[0])


class UsageError(ScansegError):
    """Invalid arguments of a command or function. Commands exit with 2."""


class OtherProcessError(ScansegError):
    """Another distributed process failed and reports the reason."""


class InterruptionError(ScansegError):
    """A signal stopped the call after its state was saved.

    Args:
        message: The message.
        signal_number: The signal.
    """

    def __init__(self, message: str, *, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number
        """The signal. Commands exit with 128 plus this number."""


def refuse_faults(where: Path | str, faults: Sequence[str]) -> None:
    """Raise one error for all faults, if any.

    Args:
        where: File, folder or data set with the faults.
        faults: Faults. Each has the values and the way to fix it.

    Raises:
        FaultsError: At least one fault. One fault is one line. Several have a line each, at most the first twenty.
            Equal faults of three or more cases share a line.
    """
    merged = merge_cases(faults)
    if len(merged) == 1:
        raise FaultsError(f"{where}: {merged[0]}", faults)
    if faults:
        lines = [f"{where}: {len(faults)} faults", *first_lines(merged)]
        raise FaultsError("\n  ".join(lines), faults)


def reason_of(error: Exception) -> str:
    """Return the text of an error without its file name.

    Args:
        error: Error of the system, a library or Python.
    """
    return (isinstance(error, OSError) and error.strerror) or str(error)
