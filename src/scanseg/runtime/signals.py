"""Stop requests by signals, which let a training save its state first."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from scanseg.errors import InterruptionError

_SAME_REQUEST_SECONDS = 2.0
"""Time in seconds within which a second signal counts as the same request."""


@contextmanager
def watch_signals() -> Iterator[Callable[[], int | None]]:
    """Record SIGINT and SIGTERM instead of exiting.

    A second signal, more than 2 s after the first, restores the earlier handlers and acts as usual. Within 2 s it is
    the same request: a cluster signals every process of a job, and torchrun or a comparison passes its signal on.

    The earlier handlers return at the end of the block. Outside the main thread, where Python sets no handlers, no
    signal is recorded.

    Yields:
        Function that returns the number of the first signal, or `None` before one. It is a `RunContext.should_stop`.

    Examples:
        >>> with watch_signals() as should_stop:
        ...     signal.raise_signal(signal.SIGTERM)
        ...     int(should_stop())
        15
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


def raise_if_stopped(should_stop: Callable[[], int | None], message: str) -> None:
    """Raise an error if a stop is requested.

    Args:
        should_stop: Returns the number of the received signal, or `None`.
        message: Names the saved state and the way to continue.

    Raises:
        InterruptionError: A stop is requested.
    """
    if (number := should_stop()) is not None:
        raise InterruptionError(message, signal_number=number)
