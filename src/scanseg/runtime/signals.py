"""Stopping a training from outside without losing what it has learnt."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from scanseg.errors import InterruptionError

_SAME_REQUEST_SECONDS = 2.0
"""Time within which a second signal is taken for the first one, sent twice."""


@contextmanager
def watch_signals() -> Iterator[Callable[[], int | None]]:
    """Note SIGINT and SIGTERM instead of dying of them; a second one, somewhat later, acts as always.

    One that follows at once is the same request: a cluster signals every process of a job, and torchrun, or a study,
    passes on what it got itself.

    Outside the main thread, where handlers cannot be set, nothing is noted.

    Yields:
        A function that gives the number of the signal that came, or None.
    """
    received: list[int] = []
    times: list[float] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: FrameType | None) -> None:
        times.append(time.monotonic())
        if not received:
            received.append(number)
        elif times[-1] - times[0] > _SAME_REQUEST_SECONDS:
            for each, handler in before.items():
                signal.signal(each, handler)
            signal.raise_signal(number)

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
