"""Stopping a training from outside without losing what it has learnt."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from scanseg.errors import ScansegError


class InterruptionError(ScansegError):
    """A training was stopped by a signal after it had saved its state."""

    def __init__(self, message: str, *, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number
        """The signal; the command line exits with 128 plus this."""


@contextmanager
def watch_signals() -> Iterator[Callable[[], int | None]]:
    """Note SIGINT and SIGTERM instead of dying of them; a second one acts as always.

    Outside the main thread, where handlers cannot be set, nothing is noted.

    Yields:
        A function that gives the number of the signal that came, or None.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, note)
    try:
        yield lambda: received[0] if received else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def raise_if_stopped(stopped: Callable[[], int | None], message: str) -> None:
    """Ask whether a signal came.

    Args:
        stopped: Gives the number of a signal, or None.
        message: What has been saved, and how to go on.

    Raises:
        InterruptionError: One came.
    """
    if (number := stopped()) is not None:
        raise InterruptionError(message, signal_number=number)
