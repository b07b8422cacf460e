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
                    "PYTHONPATH": os.pathsep.join(sys.path),
                },
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # one group to end, and Ctrl-C is for the program that compiles
            )
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
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join()

    def _read(self) -> None:
        """Receive results until the program ends."""
        try:
            while True:
                number, is_compiled = self._connection.recv()
                with self._lock:
                    assert self._waiting is not None
                    future = self._waiting.pop(number)
                future.set_result(is_compiled)
        except (EOFError, OSError):
            with self._lock:
                waiting, self._waiting = self._waiting or {}, None
                self._connection.close()
            self._process.wait()
            for future in waiting.values():
                future.set_result(False)


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
        if _processes is not None and _processes.is_running and _owner == os.getpid():
            return _processes
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
        pool = pool or ProcessPoolExecutor(number, mp_context=get_context("fork"))
        try:
            future = pool.submit(_compile, request)
        except RuntimeError:  # a process ended
            break
        running.add(future)
        future.add_done_callback(partial(finish, key))
    os.killpg(0, signal.SIGKILL)  # the processes of the pool too


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
