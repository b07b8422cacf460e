"""Ctrl-C and SIGTERM as an exception, so that what is half done is cleared away."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupt(KeyboardInterrupt):
    """A signal asked the process to end."""

    def __init__(self, signal_number: int, message: str = "interrupted") -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number
        """What the process should end with, as a shell has it."""


@contextmanager
def raise_on_signals() -> Iterator[None]:
    """Raise `Interrupt` in the block when SIGINT or SIGTERM comes; outside the main thread, do nothing.

    A library that is being imported then may make an error of its own of it (an extension: ImportError); that is an
    interrupt too.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _raise) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except ImportError as error:
        interrupt = _cause(error)
        if interrupt is None:
            raise
        raise interrupt from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise(number: int, frame: FrameType | None) -> None:
    raise Interrupt(number)


def _cause(error: BaseException) -> Interrupt | None:
    """Find the interrupt that an error came from."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, Interrupt):
        cause = cause.__cause__ or cause.__context__
    return cause
