"""The errors that a user can mend; everything else that is raised is a bug of ours."""

from collections.abc import Sequence
from pathlib import Path

from scanseg.messages import first_lines


class ScansegError(Exception):
    """A failure that its message explains in full; the command line prints no traceback (exit 1)."""


class InputError(ScansegError):
    """Something that came from outside (a file, a document, an argument) cannot be used as it is."""


class FaultsError(InputError):
    """All that is wrong with something that came from outside; of many faults the message tells the first.

    Args:
        message: What is said.
        faults: All faults; each says what is wrong, with values, and what to do.
    """

    def __init__(self, message: str, faults: Sequence[str]) -> None:
        super().__init__(message, tuple(faults))
        self.faults = tuple(faults)

    def __str__(self) -> str:
        """Return the message."""
        return str(self.args[0])


class UsageError(ScansegError):
    """The command or function was called in a way that cannot be carried out (exit 2)."""


class OtherProcessError(ScansegError):
    """Another of the processes that work together failed, and says why itself."""


class InterruptionError(ScansegError):
    """A training was stopped by a signal after it had saved its state."""

    def __init__(self, message: str, *, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number
        """The signal; the command line exits with 128 plus this."""


def refuse_faults(where: Path | str, faults: Sequence[str]) -> None:
    """Raise one error for all faults, if there are any.

    Args:
        where: File, folder or data set in which they are.
        faults: Each says what is wrong, with values, and what to do.

    Raises:
        FaultsError: There are faults; one is said in one line, several in a line each, of many the first twenty.
    """
    if len(faults) == 1:
        raise FaultsError(f"{where}: {faults[0]}", faults)
    if faults:
        lines = [f"{where}: {len(faults)} faults", *first_lines(faults)]
        raise FaultsError("\n  ".join(lines), faults)


def reason_of(error: Exception) -> str:
    """Return what an error says, for a message that has named the file already.

    Args:
        error: Of the system, of a library or of Python.
    """
    return (isinstance(error, OSError) and error.strerror) or str(error)
