"""Calls of one function for every case, in worker processes."""

import itertools
import pickle
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from scanseg.cores import available_cores
from scanseg.errors import ScansegError, UsageError
from scanseg.progress import ProgressUpdate

if TYPE_CHECKING:
    from scanseg.runtime.context import RunContext
from scanseg.runtime.engine import NamedCase
from scanseg.runtime.spawning import serve_parent, spawning

Case = TypeVar("Case", bound=NamedCase)
Argument = TypeVar("Argument")
Result = TypeVar("Result")

_MAX_WORKERS = 16
_MIN_BYTES_FOR_WORKERS = 4 * 2**20
"""Size of image files below which reading takes less time than starting processes (2 to 3 seconds)."""

_FEWEST_EARLY = 4
"""Number of worker processes from which they are started early. On few cores they would hold back the main process."""


def choose_workers(wanted: int | None, *, image_bytes: int | None = None) -> int:
    """Return the number of worker processes.

    Args:
        wanted: Number given by the user. `None`: one per core, at most 16; 0 for small data sets.
        image_bytes: Size of the image files to read. Below 4 MiB no processes are started. `None`: unknown.
    """
    if wanted is not None:
        return wanted
    if image_bytes is not None and image_bytes < _MIN_BYTES_FOR_WORKERS:
        return 0
    return min(available_cores(), _MAX_WORKERS)


@contextmanager
def keep_workers() -> Iterator[None]:
    """Keep worker processes for further `map_cases` calls in the block.

    Starting them takes a second or more. Blocks may be nested: the outermost one ends the processes. After an error
    the processes of that call end.
    """
    if _kept_pools.get() is not None:
        yield
        return
    pools, early = dict[int, ProcessPoolExecutor](), _early_pools.get()
    while early:
        pools.update([early.popitem()])
    token = _kept_pools.set(pools)
    try:
        yield
    finally:
        _kept_pools.reset(token)
        for pool in pools.values():
            pool.shutdown(wait=True, cancel_futures=True)


_kept_pools: ContextVar[dict[int, ProcessPoolExecutor] | None] = ContextVar("kept pools", default=None)
"""Idle pools by number of processes. `None`: pools are not kept."""
_early_pools: ContextVar[dict[int, ProcessPoolExecutor] | None] = ContextVar("early pools", default=None)
"""Pools for the next `keep_workers` block, by number of processes."""


@contextmanager
def started_early(
    function: Callable[[Case], object], cases: Sequence[Case], *, context: "RunContext"
) -> Iterator[None]:
    """Start the worker processes of a `keep_workers` block that follows.

    Each process calls a function for one case, which loads its libraries. Meanwhile this process loads others. Results
    and errors are dropped.

    Args:
        function: As for `map_cases`.
        cases: The cases, at least one.
        context: Worker processes. With fewer than four, or on a cluster, none is started.
    """
    number = context.workers
    if number < _FEWEST_EARLY or context.engine is not None or not cases:
        yield
        return
    pools = {number: _new_pool(number)}
    token = _early_pools.set(pools)
    try:
        with spawning():
            for case in itertools.islice(itertools.cycle(cases), number):
                pools[number].submit(_call_and_forget, function, case)
        yield
    finally:
        _early_pools.reset(token)
        for pool in pools.values():  # no block followed
            pool.shutdown(wait=True, cancel_futures=True)


def map_cases(
    function: Callable[[Case], Result], cases: Sequence[Case], *, task: str, context: "RunContext"
) -> list[Result]:
    """Call a function for every case.

    Processes are spawned without the user's script, which they would run again. On a cluster its engine calls it.

    Args:
        function: Called with each case. It can be pickled and is not defined in the user's script.
        cases: Cases, at most one call each.
        task: Name of the work in progress updates.
        context: Worker processes and progress.

    Returns:
        Results in the order of the cases.

    Raises:
        UsageError: `num_workers` is negative.
        ScansegError: A worker was ended from outside, or memory ran out. Other errors of the function propagate.
    """
    if context.engine is not None and cases:
        return context.engine.map_cases(function, cases, task=task, context=context)
    num_workers = choose_workers(context.num_workers)
    if num_workers < 0:
        raise UsageError(f"num_workers: expected 0 (no worker processes) or above, got {num_workers}.")
    context.progress(ProgressUpdate(task, 0, len(cases)))
    if num_workers == 0 or not cases:
        results = []
        for done, case in enumerate(cases, start=1):
            with _explain_memory(task, case):
                results.append(function(case))
            context.progress(ProgressUpdate(task, done, len(cases), case.name))
        return results
    return _map_in_processes(function, cases, context=context, task=task)


def _map_in_processes(
    function: Callable[[Case], Result], cases: Sequence[Case], *, task: str, context: "RunContext"
) -> list[Result]:
    """Call a function for every case in spawned processes.

    The first error ends all of them.
    """
    results: dict[str, Result] = {}
    with _pool_of(choose_workers(context.num_workers), most=len(cases)) as pool:
        try:
            with spawning():
                futures: dict[Future[Result], Case] = {
                    pool.submit(_call, function, case): case for case in cases
                }
            for future in as_completed(futures):
                case = futures[future]
                with _explain_memory(task, case):
                    results[case.name] = future.result()
                context.progress(ProgressUpdate(task, len(results), len(cases), case.name))
        except BrokenProcessPool as error:
            waiting = [case.name for case in cases if case.name not in results]
            raise ScansegError(
                f"{task}: a worker process was ended from outside, at one of the cases "
                f"{', '.join(waiting[: context.num_workers])}, probably for lack of memory. Use fewer workers "
                f"(--num-workers)."
            ) from error
    return [results[case.name] for case in cases]


@contextmanager
def _pool_of(num_workers: int, *, most: int) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool of processes, which start on demand.

    Within `keep_workers` the pool is kept for the next call.

    Args:
        num_workers: Number of processes.
        most: Maximum number of processes if the pool is not kept.
    """
    pools = _kept_pools.get()
    pool = pools.pop(num_workers, None) if pools is not None else None
    if pool is None:
        number = num_workers if pools is not None else min(num_workers, most)
        pool = _new_pool(number)
    keep = False
    try:
        yield pool
        keep = True
    finally:
        if pools is not None and keep:
            pools[num_workers] = pool
        else:
            pool.shutdown(wait=True, cancel_futures=True)


def _new_pool(number: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(number, mp_context=get_context("spawn"), initializer=serve_parent)


def _call_and_forget(function: Callable[[Argument], object], argument: Argument) -> None:
    with suppress(Exception):
        function(argument)


@contextmanager
def _explain_memory(task: str, case: NamedCase) -> Iterator[None]:
    """Add the case to errors for too little memory.

    Raises:
        ScansegError: The block ran out of memory.
    """
    try:
        yield
    except MemoryError as error:
        raise ScansegError(
            f"{task}: not enough memory on the host for case {case.name} ({error}). Use fewer workers (--num-workers)."
        ) from error


def _call(function: Callable[[Argument], Result], argument: Argument) -> Result:
    """Call a function, and raise errors that can be pickled.

    Raises:
        Exception: The function's error. A `RuntimeError` with its text replaces an error that cannot be pickled.
    """
    try:
        return function(argument)
    except Exception as error:
        if _survives_sending(error):
            raise
        raise as_sendable(error) from None


def as_sendable(error: Exception) -> Exception:
    """Return an error in a form that can be pickled.

    An error that cannot be pickled becomes a `RuntimeError` with its text.

    Args:
        error: The error that is being handled.
    """
    if _survives_sending(error):
        return error
    return RuntimeError(f"{type(error).__name__}: {error}\n{traceback.format_exc()}")


def _survives_sending(error: Exception) -> bool:
    """Return whether an error can be pickled and unpickled.

    Many errors with their own `__init__` arguments cannot.
    """
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # pickling runs methods of the error, which may raise anything
        return False
    return True


class WorkerPool:
    """Spawned processes that compute results in turn.

    They start on first use. Each process has its own pipe, which holds a result until `take`. So processes do not
    work far ahead. If a process ends, even while it sends, the next `take` from it raises an error.
    """

    def __init__(self, num_workers: int) -> None:
        """Create the pool without starting processes.

        Args:
            num_workers: Number of processes, at least 1.
        """
        self._num_workers = num_workers
        self._workers: list[tuple[BaseProcess, Connection]] = []
        self._tickets = itertools.count()
        # At exit, Python sends SIGTERM to such processes and waits for them. These ignore it, so end them before.
        Finalize(self, _end_all, args=(self._workers,), exitpriority=0)

    @property
    def processes(self) -> tuple[BaseProcess, ...]:
        """Processes started so far."""
        return tuple(process for process, _ in self._workers)

    def submit(self, function: Callable[[Argument], Result], argument: Argument) -> "Ticket[Result]":
        """Send a call to the next process in turn.

        Results are taken in the order of the calls.

        Args:
            function: Can be pickled and is not defined in the user's script.
            argument: Can be pickled.

        Returns:
            Ticket for `take`.

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
        """Wait for a result, and drop earlier results of the same process.

        Args:
            ticket: Returned by `submit`.

        Raises:
            WorkerEndedError: The process was ended from outside. Errors of the function propagate.
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
        """End the processes, as the end of Python does."""
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
    """End the processes of a pool and empty its list."""
    while workers:
        process, connection = workers.pop()
        connection.close()
        process.kill()
        process.join()


@dataclass(frozen=True)
class Ticket(Generic[Result]):
    """Receipt for a result that a process computes."""

    number: int
    """Number of the call, from 0."""
    worker: int
    """Number of the process, from 0."""


class WorkerEndedError(Exception):
    """A worker process was ended from outside."""


def _serve(connection: Connection) -> None:
    """Run the tasks of a pipe until it closes.

    A thread receives the tasks, so the parent can always send. Otherwise a worker that sends a result while tasks fill
    the pipe, and a parent that sends one more task, would wait for each other without end.
    """
    serve_parent()
    tasks: SimpleQueue[tuple[int, Callable[[object], object], object] | None] = SimpleQueue()
    threading.Thread(target=_receive, args=(connection, tasks), daemon=True).start()
    while (task := tasks.get()) is not None:
        number, function, argument = task
        try:
            answer: tuple[int, object, Exception | None] = (number, _call(function, argument), None)
        except Exception as error:  # raised again by `take`
            error.add_note(f"In a worker process:\n{traceback.format_exc()}")
            answer = (number, None, error)
        try:
            connection.send(answer)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            connection.send((number, None, TypeError(f"the result cannot be pickled: {error}")))
        except OSError:
            return


def _receive(connection: Connection, tasks: "SimpleQueue[Any]") -> None:
    """Put the tasks of a pipe into a queue, then `None`.

    A task that cannot be unpickled ends the queue too.
    """
    try:
        while True:
            tasks.put(connection.recv())
    except (EOFError, OSError):
        pass
    finally:
        tasks.put(None)
