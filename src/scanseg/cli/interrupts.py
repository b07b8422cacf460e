"""Ctrl-C and SIGTERM as an exception.

Unfinished work is cleaned up as after any other exception.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupt(KeyboardInterrupt):
    """A signal requested the end of the process."""

    def __init__(self, signal_number: int, message: str = "interrupted") -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number
        """Exit code of the process by the convention of shells."""


@contextmanager
def raise_on_signals() -> Iterator[None]:
    """Raise `Interrupt` on SIGINT or SIGTERM in the block.

    Outside the main thread, nothing is changed. An extension that is being imported may turn the interrupt into an
    ImportError. It is turned back into `Interrupt`.
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
    """Return the interrupt that caused an error, or `None`."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, Interrupt):
        cause = cause.__cause__ or cause.__context__
    return cause
