"""Processes that compile kernels.

Triton translates kernels in Python. Threads do this one after the other, and hold back the pass that requests further
kernels. So a program of its own, `serve`, compiles in forked processes. It imports PyTorch first, and forks before it
starts threads. It ends with the process that started it, and after a minute without requests.
"""

import atexit
import os
import pickle
import signal
import subprocess
import sys
import threading
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import count
from multiprocessing import get_context
from multiprocessing.connection import Connection, Pipe
from pathlib import Path

from scanseg.ops._support.compile_requests import CompileRequest
from scanseg.runtime import end_with_parent

FEWEST_CORES = 4
"""With fewer cores threads are as fast, since the processes import PyTorch first."""

_IDLE_SECONDS = 60
_POLL_SECONDS = 1.0
_ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_PROGRAM = "from scanseg.ops._support.compile_processes import serve; serve({connection}, {number})"


class CompileProcesses:
    """A program that compiles kernels in processes."""

    def __init__(self, number: int) -> None:
        """Start the program.

        Args:
            number: Number of processes.

        Raises:
            OSError: It cannot be started.
        """
        self._connection, theirs = Pipe()
        with theirs:
            program = _PROGRAM.format(connection=theirs.fileno(), number=number)
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", program],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={
                    **os.environ,
                    **dict.fromkeys(_ONE_THREAD, "1"),
                    "PYTHONPATH": os.pathsep.join(filter(_is_text, sys.path)),
                },
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # one group to end, and Ctrl-C is for the program that compiles
            )
        self.has_failed = False
        """Whether the program ended while the first kernels were waiting. It would do so again."""
        self._has_answered = False
        self._numbers, self._lock = count(), threading.Lock()
        self._waiting: dict[int, Future[bool]] | None = {}
        self._reader = threading.Thread(target=self._read, name="compiled kernels", daemon=True)
        self._reader.start()

    @property
    def is_running(self) -> bool:
        """Whether the program takes requests."""
        return self._waiting is not None

    def compile(self, request: bytes) -> bool:
        """Compile a kernel in another process, and wait for it.

        Args:
            request: A pickled `CompileRequest`.

        Returns:
            Whether the kernel is in Triton's cache.
        """
        future: Future[bool] = Future()
        with self._lock:
            if self._waiting is None:
                return False
            number = next(self._numbers)
            self._waiting[number] = future
            try:
                self._connection.send((number, request))
            except OSError:
                return False
        return future.result()

    def close(self) -> None:
        """End the program. Kernels in compilation are given up."""
        with self._lock:
            if self._waiting is not None:
                self._kill()
        self._reader.join()

    def _read(self) -> None:
        """Receive results until the program ends."""
        try:
            while True:
                number, is_compiled = self._connection.recv()
                with self._lock:
                    assert self._waiting is not None
                    self._has_answered = True
                    future = self._waiting.pop(number)
                future.set_result(is_compiled)
        except (EOFError, OSError):
            self._kill()
            self._process.wait()
            with self._lock:
                waiting, self._waiting = self._waiting or {}, None
                self.has_failed = bool(waiting) and not self._has_answered
                self._connection.close()
            for future in waiting.values():
                future.set_result(False)

    def _kill(self) -> None:
        """End the program and its processes, which may outlive it.

        Once `wait` has returned, another program may have the number of this one.
        """
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


def start_compile_processes(number: int) -> CompileProcesses | None:
    """Start the processes of this process, unless they run already.

    Args:
        number: Number of processes.

    Returns:
        The processes. `None`: they cannot be started here.

    Example:
        >>> from scanseg.ops import start_compile_processes
        >>> start_compile_processes(1)
    """
    global _processes
    with _starting:
        if _processes is not None and _owner == os.getpid():
            if _processes.is_running:
                return _processes
            if _processes.has_failed:
                return None
        if number < FEWEST_CORES or os.name != "posix" or "python" not in Path(sys.executable or "").name:
            return None
        try:
            _start(number)
        except OSError:
            _processes = None
        return _processes


def stop_compile_processes() -> None:
    """End the processes of this process."""
    global _processes
    with _starting:
        if _processes is not None and _owner == os.getpid():
            _processes.close()
        _processes = None


def _start(number: int) -> None:
    global _processes, _owner
    _processes, _owner = CompileProcesses(number), os.getpid()


def _is_text(entry: object) -> bool:
    """Return whether an entry of `sys.path` is text.

    Python passes over others, such as `Path`.
    """
    return isinstance(entry, str)


_processes: CompileProcesses | None = None
_owner = 0
"""The process that started them. Forked processes start their own."""
_starting = threading.Lock()
atexit.register(stop_compile_processes)


def serve(connection: int, number: int) -> None:
    """Compile requests in processes until the other end closes the connection.

    Args:
        connection: Handle of the connection. It gives pairs of a number and a pickled `CompileRequest`, and takes
            pairs of the number and whether the kernel is compiled.
        number: Number of processes.
    """
    parent = os.getppid()
    import triton.compiler  # noqa: F401  (once for all processes, like the package of this module)

    received, sending = Connection(connection), threading.Lock()
    pool: ProcessPoolExecutor | None = None
    running: set[Future[bool]] = set()

    def finish(number: int, future: "Future[bool]") -> None:
        running.discard(future)
        with sending:
            received.send((number, future.exception() is None and future.result()))

    idle = 0.0
    while os.getppid() == parent and idle < _IDLE_SECONDS:
        if not received.poll(_POLL_SECONDS):
            idle = 0.0 if running else idle + _POLL_SECONDS
            continue
        idle = 0.0
        try:
            key, request = received.recv()
        except EOFError:
            break
        # The pool forks all processes before it starts threads.
        pool = pool or ProcessPoolExecutor(
            number, mp_context=get_context("fork"), initializer=_serve_program, initargs=(received,)
        )
        try:
            future = pool.submit(_compile, request)
        except RuntimeError:  # a process ended
            break
        running.add(future)
        future.add_done_callback(partial(finish, key))
    os.killpg(0, signal.SIGKILL)  # the processes of the pool too


def _serve_program(connection: Connection) -> None:
    """Leave the connection to the program, and end with it."""
    connection.close()  # otherwise the other end would not see that the program has ended
    end_with_parent()


def _compile(request: bytes) -> bool:
    """Compile a kernel, and return whether it succeeded.

    The requesting process meets the error itself.
    """
    try:
        decoded: CompileRequest = pickle.loads(request)
        decoded.compile()
    except Exception:
        return False
    return True
