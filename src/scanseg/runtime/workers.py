"""Do one thing to every case, in this process or in several."""

import itertools
import os
import pickle
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from scanseg.errors import ScansegError, UsageError
from scanseg.progress import ProgressUpdate

if TYPE_CHECKING:
    from scanseg.runtime.context import RunContext
from scanseg.runtime.spawning import serve_parent, spawning


class Named(Protocol):
    """Anything with the name of a case."""

    @property
    def name(self) -> str:
        """Name of the case."""


Case = TypeVar("Case", bound=Named)
Argument = TypeVar("Argument")
Result = TypeVar("Result")

_MAX_WORKERS = 16
_WORTH_WORKERS_BYTES = 4 * 2**20
"""Image files below this are read sooner than processes start (2 to 3 seconds)."""


def choose_workers(wanted: int | None, *, image_bytes: int | None = None) -> int:
    """Return how many processes to use.

    Args:
        wanted: What the user asked for; None: one for each core, at most 16.
        image_bytes: Size of the image files to read; small ones do not pay for the start of processes. `None`: unknown.
    """
    if wanted is not None:
        return wanted
    if image_bytes is not None and image_bytes < _WORTH_WORKERS_BYTES:
        return 0
    return min(_num_cores(), _MAX_WORKERS)


def _num_cores() -> int:
    """Return how many cores this process may use, which a cluster makes fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def keep_workers() -> Iterator[None]:
    """Let the calls of `map_cases` in the block hand their processes on, which take a second or more to start.

    May be nested: the outermost block ends them. After an error they are not kept.
    """
    if _kept.get() is not None:
        yield
        return
    pools: dict[int, ProcessPoolExecutor] = {}
    token = _kept.set(pools)
    try:
        yield
    finally:
        _kept.reset(token)
        for pool in pools.values():
            pool.shutdown(wait=True, cancel_futures=True)


_kept: ContextVar[dict[int, ProcessPoolExecutor] | None] = ContextVar("kept pools", default=None)
"""Pools that wait for the next call, by their number of processes; None: none is kept."""


def map_cases(
    function: Callable[[Case], Result], cases: Sequence[Case], *, task: str, context: "RunContext"
) -> list[Result]:
    """Call a function for every case.

    Processes are started afresh (spawned), without the script of the user, which they would run again.

    Args:
        function: What to do; can be pickled, and does not come from the user's script.
        cases: The cases.
        task: What is being done, for the listener.
        context: Workers and progress.

    Returns:
        The results in the order of the cases.

    Raises:
        UsageError: `num_workers` is negative.
        ScansegError: A worker died without a word, or the memory does not suffice. What else the function raises is
            raised as it is.
    """
    num_workers = choose_workers(context.num_workers)
    if num_workers < 0:
        raise UsageError(f"num_workers {num_workers} must be 0 (work in this process) or above.")
    context.progress(ProgressUpdate(task, 0, len(cases)))
    if num_workers == 0 or not cases:
        results = []
        for done, case in enumerate(cases, start=1):
            with _explained_memory(task, case):
                results.append(function(case))
            context.progress(ProgressUpdate(task, done, len(cases), case.name))
        return results
    return _map_in_processes(function, cases, context=context, task=task)


def _map_in_processes(
    function: Callable[[Case], Result], cases: Sequence[Case], *, task: str, context: "RunContext"
) -> list[Result]:
    """Call a function for every case in spawned processes; the first error stops the rest."""
    results: dict[str, Result] = {}
    with _pool_of(choose_workers(context.num_workers), most=len(cases)) as pool:
        try:
            with spawning():
                futures: dict[Future[Result], Case] = {
                    pool.submit(_call, function, case): case for case in cases
                }
            for future in as_completed(futures):
                case = futures[future]
                with _explained_memory(task, case):
                    results[case.name] = future.result()
                context.progress(ProgressUpdate(task, len(results), len(cases), case.name))
        except BrokenProcessPool as error:
            waiting = [case.name for case in cases if case.name not in results]
            raise ScansegError(
                f"{task}: a worker process was ended from outside, at one of the cases "
                f"{', '.join(waiting[: context.num_workers])}; most often memory ran out: use fewer workers."
            ) from error
    return [results[case.name] for case in cases]


@contextmanager
def _pool_of(num_workers: int, *, most: int) -> Iterator[ProcessPoolExecutor]:
    """Lend a pool of processes, which start as there is work; it is kept for the next call where that is wanted.

    Args:
        num_workers: Processes.
        most: Processes at most, where the pool is not kept.
    """
    pools = _kept.get()
    pool = pools.pop(num_workers, None) if pools is not None else None
    if pool is None:
        number = num_workers if pools is not None else min(num_workers, most)
        pool = ProcessPoolExecutor(number, mp_context=get_context("spawn"), initializer=serve_parent)
    keep = False
    try:
        yield pool
        keep = True
    finally:
        if pools is not None and keep:
            pools[num_workers] = pool
        else:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _explained_memory(task: str, case: Named) -> Iterator[None]:
    """Say at which case the memory did not suffice.

    Raises:
        ScansegError: It did not.
    """
    try:
        yield
    except MemoryError as error:
        raise ScansegError(
            f"{task}: the memory of the host does not suffice for case {case.name} ({error}); use fewer workers "
            f"(--num-workers)."
        ) from error


def _call(function: Callable[[Argument], Result], argument: Argument) -> Result:
    """Call a function in a worker process; what it raises can be sent.

    Raises:
        Exception: What the function raises; in words, where it cannot be pickled and read again.
    """
    try:
        return function(argument)
    except Exception as error:
        if _survives_sending(error):
            raise
        raise RuntimeError(f"{type(error).__name__}: {error}\n{traceback.format_exc()}") from None


def _survives_sending(error: Exception) -> bool:
    """Whether an error can be pickled and read again; many whose `__init__` has arguments of its own cannot."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever its own methods raise
        return False
    return True


class WorkerPool:
    """Processes that do one thing after the other for this one, started afresh when they are first needed.

    Each has a pipe of its own: what it sends waits in it until it is taken, so that little is done ahead, and the end
    of a process, even in the midst of sending, is noticed where its next result is taken.
    """

    def __init__(self, num_workers: int) -> None:
        """Start nothing yet.

        Args:
            num_workers: Processes, one at least.
        """
        self._num_workers = num_workers
        self._workers: list[tuple[BaseProcess, Connection]] = []
        self._tickets = itertools.count()
        # Before Python ends it sends SIGTERM to such processes and waits; these are deaf to it.
        Finalize(self, _end_all, args=(self._workers,), exitpriority=0)

    @property
    def processes(self) -> tuple[BaseProcess, ...]:
        """The processes that have been started."""
        return tuple(process for process, _ in self._workers)

    def submit(self, function: Callable[[Argument], Result], argument: Argument) -> "Ticket[Result]":
        """Have a function called, by each of the processes in turn; what it returns is to be taken in this order.

        Args:
            function: Can be pickled, and does not come from the user's script.
            argument: Can be pickled.

        Raises:
            WorkerEndedError: The process was ended from outside.
        """
        number = next(self._tickets)
        if len(self._workers) < self._num_workers:
            self._start()
        worker = number % self._num_workers
        try:
            self._workers[worker][1].send((number, function, argument))
        except OSError as error:
            raise WorkerEndedError from error
        return Ticket(number, worker)

    def take(self, ticket: "Ticket[Result]") -> Result:
        """Wait for a result; those of earlier tickets of the same process are lost.

        Raises:
            WorkerEndedError: The process was ended from outside. What the function raises is raised as it is.
        """
        number = None
        while number != ticket.number:
            try:
                number, result, error = self._workers[ticket.worker][1].recv()
            except (EOFError, OSError) as ended:
                raise WorkerEndedError from ended
        if error is not None:
            raise error
        return result

    def close(self) -> None:
        """End the processes, which the end of Python does too."""
        _end_all(self._workers)

    def _start(self) -> None:
        """Start one more process."""
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs,), daemon=True)
        with spawning():
            process.start()
        theirs.close()
        self._workers.append((process, ours))


def _end_all(workers: list[tuple[BaseProcess, Connection]]) -> None:
    """End the processes of a pool, and empty its list."""
    while workers:
        process, connection = workers.pop()
        connection.close()
        process.kill()
        process.join()


@dataclass(frozen=True)
class Ticket(Generic[Result]):
    """For a result that is to come."""

    number: int
    worker: int


class WorkerEndedError(Exception):
    """A worker process was ended from outside."""


def _serve(connection: Connection) -> None:
    """Do what comes through a pipe, until it is closed.

    A thread of its own takes what comes, so that the other side can always send: a process that sends a result while
    the next tasks fill the pipe, and another that waits to send one more, would wait for each other for ever.
    """
    serve_parent()
    tasks: SimpleQueue[tuple[int, Callable[[object], object], object] | None] = SimpleQueue()
    threading.Thread(target=_receive, args=(connection, tasks), daemon=True).start()
    while (task := tasks.get()) is not None:
        number, function, argument = task
        try:
            answer: tuple[int, object, Exception | None] = (number, _call(function, argument), None)
        except Exception as error:  # what it is, the process that takes the result will see
            error.add_note(f"In a worker process:\n{traceback.format_exc()}")
            answer = (number, None, error)
        try:
            connection.send(answer)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            connection.send((number, None, TypeError(f"a result that cannot be sent: {error}")))
        except OSError:
            return


def _receive(connection: Connection, tasks: "SimpleQueue[Any]") -> None:
    """Put what comes through a pipe into a queue; None once the pipe is closed, or what comes cannot be read."""
    try:
        while True:
            tasks.put(connection.recv())
    except (EOFError, OSError):
        pass
    finally:
        tasks.put(None)
