"""Start processes afresh: without the user's script, on one thread each, and deaf to Ctrl-C."""

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
    """Let the processes that start in the block be workers of this one; they call `serve_parent` when they run.

    Ctrl-C reaches every process of a terminal, and SIGTERM, which a cluster sends, every process of a job: both are
    left to the process that the user started. It ends the workers, once it has saved what is to be saved.
    """
    with _one_thread_each(), _without_script(), _signals_held():
        yield


def serve_parent() -> None:
    """Leave signals to the process that started this one, and end when it does, however that ends."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Wait for the end of the process that started this one."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _signals_held() -> Iterator[None]:
    """Let a signal wait until the block ends, and processes that start meanwhile begin with signals blocked.

    A worker would else die of Ctrl-C with a traceback while it imports, which takes seconds; and an exception in this
    process, between the start of a worker and the message that tells it what to do, leaves one that fails on its own.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)

    is_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, note) for number in _SIGNALS} if is_main else {}
    resource_tracker.ensure_running()  # its start lets signals through at its end
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


@contextmanager
def _without_script() -> Iterator[None]:
    """Let processes that start meanwhile not run the user's script; one without `__main__` guard would not end."""
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Let processes that start meanwhile multiply matrices on one thread, unless the user has said otherwise.

    Workers that each use every core for their products wait for one another and take several times as long
    (measured: 17 s for what takes 4 s), and the number can only be set before numpy is loaded.
    """
    unset = [name for name in _THREAD_COUNTS if name not in os.environ]
    os.environ.update(dict.fromkeys(unset, "1"))
    try:
        yield
    finally:
        for name in unset:
            os.environ.pop(name, None)
