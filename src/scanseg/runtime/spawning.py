"""Start of worker processes: no user script, one thread, no Ctrl-C."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import parent_process, resource_tracker
from types import FrameType, ModuleType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_THREAD_COUNTS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


@contextmanager
def spawning() -> Iterator[None]:
    """Prepare this process so that processes started in the block are workers.

    Workers call `serve_parent` when they run. Ctrl-C reaches every process of a terminal, and SIGTERM from a cluster
    reaches every process of a job. Only the process that the user started handles them: it saves its state and then
    ends the workers.
    """
    with _one_thread_each(), _without_script(), _delayed_signals():
        yield


@contextmanager
def spawning_jobs() -> Iterator[None]:
    """Prepare for starting processes that handle signals themselves.

    They do so after they call `release_signals`. Until then their signals wait: a job is stopped after it has set its
    handlers, not while it imports.
    """
    with _without_script(), _delayed_signals():
        yield


def release_signals() -> None:
    """Deliver the signals that waited while this process started."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def serve_parent() -> None:
    """Ignore SIGINT and SIGTERM, and end when the parent process ends."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()


def end_with_parent() -> None:
    """End this process with its parent process."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    """Wait for the end of the parent process, then exit."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _delayed_signals() -> Iterator[None]:
    """Delay signals until the block ends, and start processes with signals blocked.

    Otherwise Ctrl-C would end a worker with a traceback while it imports, which takes seconds. And an exception in this
    process, between the start of a worker and its first message, would leave a worker that fails on its own.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)

    is_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, note) for number in _SIGNALS} if is_main else {}
    resource_tracker.ensure_running()  # starting it inside the mask would unblock the signals
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before.items():
            signal.signal(number, handler)
        if received:
            signal.raise_signal(received[0])


@contextmanager
def _without_script() -> Iterator[None]:
    """Hide the user's script from processes that start in the block.

    They would run it again, and a script without `__main__` guard would start processes without end.
    """
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Limit processes started in the block to one thread each.

    The limit applies to matrix products. Numbers of threads that the user has set stay. Workers that each use every
    core wait for one another and take several times as long (measured: 17 s instead of 4 s). The number can only be set
    before numpy loads.
    """
    unset = [name for name in _THREAD_COUNTS if name not in os.environ]
    os.environ.update(dict.fromkeys(unset, "1"))
    try:
        yield
    finally:
        for name in unset:
            os.environ.pop(name, None)
