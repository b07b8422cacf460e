"""A spawned process with one object, such as a loaded model."""

import os
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import Any

from scanseg.runtime.spawning import serve_parent, spawning
from scanseg.runtime.workers import WorkerEndedError, as_sendable

_CREATION = 0
"""Number of the answer with the error of the creation."""


class ObjectProcess:
    """A process with one object, whose methods are called from here.

    Up to `num_threads` calls run at the same time. Each returns a `Future`. If the object cannot be created, they raise
    the error of the creation. If the process ends, even while it sends, they raise `WorkerEndedError`.
    """

    def __init__(
        self, create: Callable[..., object], *arguments: object, num_threads: int, threads_each: int = 1
    ) -> None:
        """Start the process, which creates the object.

        Args:
            create: Class or function of the object. It can be pickled and is not defined in the user's script.
            *arguments: Its arguments, which can be pickled.
            num_threads: Calls at the same time.
            threads_each: Threads of OpenMP in the process.
        """
        context = get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._lock, self._calls, self._number = threading.Lock(), dict[int, Future[Any]](), _CREATION
        self._has_ended = False
        self._creation_error: Exception | None = None
        words = (theirs, create, arguments, num_threads, threads_each)
        self._process = context.Process(target=_serve, args=words, daemon=True)
        with spawning():
            self._process.start()
        theirs.close()
        self._receiver = threading.Thread(target=self._receive, daemon=True)
        self._receiver.start()
        # At exit, Python sends SIGTERM to such processes and waits for them. These ignore it, so end them before.
        self._end = Finalize(self, _kill, args=(self._process,), exitpriority=0)

    def call(self, method: str, *arguments: object) -> "Future[Any]":
        """Call a method of the object.

        Args:
            method: Name of the method.
            *arguments: Its arguments, which can be pickled.

        Returns:
            Future of the result. It raises the error of the method, or `WorkerEndedError`.
        """
        future: Future[Any] = Future()
        with self._lock:
            if self._has_ended:
                future.set_exception(self._ended())
                return future
            self._number += 1
            self._calls[self._number] = future
            with suppress(OSError):  # the receiver finds the end of the process
                self._connection.send((self._number, method, arguments))
        return future

    def close(self) -> None:
        """End the process."""
        self._end()
        self._receiver.join()
        self._connection.close()

    def _receive(self) -> None:
        """Complete the futures of calls until the process ends."""
        while True:
            try:
                number, result, error = self._connection.recv()
            except (EOFError, OSError):
                break
            if number == _CREATION:
                self._creation_error = error
                continue
            with self._lock:
                future = self._calls.pop(number)
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
        self._process.join()
        self._fail_all()

    def _fail_all(self) -> None:
        """Complete the calls of an ended process."""
        with self._lock:
            self._has_ended = True
            calls, self._calls = list(self._calls.values()), {}
        for future in calls:
            future.set_exception(self._ended())

    def _ended(self) -> Exception:
        """Return the error of calls after the end of the process."""
        if self._creation_error is not None:
            return self._creation_error
        return WorkerEndedError(f"its process ended with exit code {self._process.exitcode}")


def _kill(process: BaseProcess) -> None:
    """End a process and wait for it."""
    process.kill()
    process.join()


def _serve(
    connection: Connection,
    create: Callable[..., object],
    arguments: tuple[object, ...],
    num_threads: int,
    threads_each: int,
) -> None:
    """Create the object, and call its methods until the pipe closes."""
    serve_parent()
    os.environ["OMP_NUM_THREADS"] = str(threads_each)  # for libraries that load now
    lock = threading.Lock()
    try:
        target: object = create(*arguments)
    except Exception as error:
        _answer(connection, lock, (_CREATION, None, as_sendable(error)))
        return
    with ThreadPoolExecutor(num_threads) as threads:
        while True:
            try:
                number, method, words = connection.recv()
            except (EOFError, OSError):
                os._exit(1)  # the parent is gone, and running calls have no reader
            threads.submit(_call, connection, lock, target, number, method, words)


def _call(
    connection: Connection,
    lock: threading.Lock,
    target: object,
    number: int,
    method: str,
    arguments: tuple[object, ...],
) -> None:
    """Call a method and send its result or error."""
    try:
        answer: tuple[int, object, Exception | None] = (number, getattr(target, method)(*arguments), None)
    except Exception as error:
        error.add_note(f"In a worker process:\n{traceback.format_exc()}")
        answer = (number, None, as_sendable(error))
    _answer(connection, lock, answer)


def _answer(
    connection: Connection, lock: threading.Lock, answer: tuple[int, object, Exception | None]
) -> None:
    """Send an answer, if the parent still exists."""
    with lock, suppress(OSError):
        connection.send(answer)
