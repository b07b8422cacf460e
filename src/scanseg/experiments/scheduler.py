"""Run jobs in this process, or in other processes on several devices."""

import time
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from scanseg.errors import InterruptionError, ScansegError, UsageError
from scanseg.progress import ProgressCallback, ProgressUpdate
from scanseg.runtime import (
    Job,
    RunContext,
    choose_device,
    keep_freed_memory,
    release_signals,
    spawning_jobs,
    watch_signals,
)

OUT_OF_TIME = -1
"""Returned by `should_stop` instead of a signal when the time is over."""
_POLL_SECONDS = 0.1
_REPORT_SECONDS = 5.0
"""Time between two reports of the running jobs."""
_SEND_SECONDS = 0.2
"""Time between two progress updates of a job in another process."""
_FAILURES_IN_A_ROW = 2
"""A device gets no more jobs after this number of failures in a row."""


def require_devices(devices: Sequence[str]) -> None:
    """Check that devices are available.

    Args:
        devices: Names of devices.

    Raises:
        UsageError: A device is unknown or missing.
    """
    for name in devices:
        choose_device(name)


def stop_after(minutes: float | None, context: RunContext) -> RunContext:
    """Return a context that also stops when the time is over.

    Args:
        minutes: Time from now on. `None`: no limit.
        context: The context.
    """
    if minutes is None:
        return context
    end = time.monotonic() + 60 * minutes

    def should_stop() -> int | None:
        return context.should_stop() or (OUT_OF_TIME if time.monotonic() > end else None)

    return replace(context, should_stop=should_stop)


def run_jobs(
    jobs: Sequence[Job],
    *,
    devices: Sequence[str],
    context: RunContext,
    task: str = "trainings",
) -> None:
    """Run jobs, one at a time on each device.

    A single device runs the jobs in this process. Several devices run each job in its own process, and jobs on the CPU
    share its threads. If a job fails, the others continue. After two failures in a row a device gets no more jobs.
    SIGINT and SIGTERM stop the running jobs, which save their state. On a cluster its engine runs the jobs.

    Args:
        jobs: The jobs, in order.
        devices: Names of devices. A device that is named twice runs two jobs at a time.
        context: Workers, progress and stopping. Its device is replaced.
        task: Name of the task in progress updates of several devices.

    Raises:
        InterruptionError: A signal came, or the time is over.
        UsageError: A job was refused.
        ScansegError: Jobs failed. The message names all of them.
    """
    should_stop = context.should_stop
    with watch_signals() as signalled:
        context = replace(context, should_stop=lambda: signalled() or should_stop())
        if context.engine is not None:
            context.engine.run_jobs(jobs, task=task, context=context)
        elif len(devices) < 2:
            device = devices[0] if devices else context.device
            _run_here(jobs, context=replace(context, device=device))
        else:
            _DevicePool(deque(jobs), devices, context=context, task=task).run()


def _run_here(jobs: Sequence[Job], *, context: RunContext) -> None:
    """Run jobs in this process, one after the other."""
    failures: list[str] = []
    in_a_row = 0
    for job in jobs:
        if in_a_row == _FAILURES_IN_A_ROW:
            failures.append("no more jobs were run after two failures in a row")
            break
        try:
            job.run(context.with_progress(_prefix(context.progress, job.name)))
        except (InterruptionError, UsageError):
            raise
        except ScansegError as error:
            failures.append(f"{job.name}: {error}")
            in_a_row += 1
            continue
        in_a_row = 0
    if failures:
        raise ScansegError("; ".join(failures))


def _prefix(progress: ProgressCallback, name: str) -> ProgressCallback:
    """Return a callback that prepends the job's name to the detail."""

    def report(update: ProgressUpdate) -> None:
        progress(replace(update, detail=f"{name}; {update.detail}" if update.detail else name))

    return report


@dataclass(frozen=True)
class _Failure:
    """Failure message of a job in another process."""

    message: str


@dataclass(frozen=True)
class _Warnings:
    """Warnings of a job in another process."""

    messages: tuple[str, ...]


@dataclass(eq=False)
class _Running:
    """A job in its own process."""

    job: Job
    process: BaseProcess
    connection: Connection
    detail: str = ""
    failure: _Failure | None = None

    def receive(self) -> list[str]:
        """Read the messages that have arrived.

        Returns:
            The new warnings of the job.
        """
        warnings: list[str] = []
        with suppress(EOFError, OSError):
            while self.connection.poll():
                message = self.connection.recv()
                if isinstance(message, _Failure):
                    self.failure = message
                elif isinstance(message, _Warnings):
                    warnings += message.messages
                else:
                    self.detail = message
        return warnings


@dataclass(eq=False)
class _DevicePool:
    """Several devices, each with one job at a time."""

    waiting: deque[Job]
    devices: Sequence[str]
    context: RunContext
    task: str
    running: dict[int, _Running] = field(default_factory=dict)
    """Running jobs by the index of their device."""
    failures: list[str] = field(default_factory=list)
    num_done: int = 0

    def __post_init__(self) -> None:
        self.num_jobs = len(self.waiting)
        self.in_a_row = [0] * len(self.devices)
        self.threads_each = _share_threads(self.devices[: self.num_jobs])

    def run(self) -> None:
        """Run all jobs."""
        last_report = time.monotonic()
        number: int | None = None
        self._report()
        with self._ended_at_exit():
            while self.running or (self.waiting and self._free()):
                if (number := self.context.should_stop()) is not None:
                    break
                self._collect()
                for place in self._free()[: len(self.waiting)]:
                    self._start(place)
                if self.running and time.monotonic() - last_report > _REPORT_SECONDS:
                    self._report()
                    last_report = time.monotonic()
                time.sleep(_POLL_SECONDS)
        number = self.context.should_stop() or number
        if number is not None:
            raise InterruptionError("stopped; continue with --resume", signal_number=number)
        if self.failures:
            raise ScansegError("; ".join(self.failures))

    def _free(self) -> list[int]:
        """Return the indices of devices that can take a job."""
        return [
            place
            for place, failed in enumerate(self.in_a_row)
            if place not in self.running and failed < _FAILURES_IN_A_ROW
        ]

    def _start(self, place: int) -> None:
        """Start the next job on a device."""
        job = self.waiting.popleft()
        processes = get_context("spawn")
        receiver, sender = processes.Pipe(duplex=False)
        arguments = (sender, job, self.devices[place], self.context.num_workers, self.threads_each)
        process = processes.Process(target=_run_in_child, args=arguments, name=job.name)
        with spawning_jobs():
            process.start()
        sender.close()
        self.running[place] = _Running(job, process, receiver)

    def _collect(self) -> None:
        """Receive progress, and collect ended jobs."""
        for place, running in list(self.running.items()):
            is_alive = running.process.is_alive()
            self._receive(running)
            if is_alive:
                continue
            del self.running[place]
            running.connection.close()
            if running.failure is None and running.process.exitcode == 0:
                self.in_a_row[place] = 0
                self.num_done += 1
                self._report(running)
                continue
            self._note_failure(place, running)

    def _note_failure(self, place: int, running: _Running) -> None:
        """Record the message of a failed job."""
        failure = running.failure
        reason = failure.message if failure else f"its process ended with {running.process.exitcode}"
        self.failures.append(f"{running.job.name} on {self.devices[place]}: {reason}")
        self.in_a_row[place] += 1
        if self.in_a_row[place] == _FAILURES_IN_A_ROW:
            self.failures.append(f"{self.devices[place]} got no more jobs after two failures in a row")

    def _report(self, last: _Running | None = None) -> None:
        """Report finished jobs and the progress of running ones."""
        shown = [last] if last is not None else list(self.running.values())
        details = [f"{each.job.name}: {each.detail}" if each.detail else each.job.name for each in shown]
        self.context.progress(ProgressUpdate(self.task, self.num_done, self.num_jobs, "; ".join(details)))

    @contextmanager
    def _ended_at_exit(self) -> Iterator[None]:
        """Stop the running jobs after the block, and wait for them."""
        try:
            yield
        finally:
            for running in self.running.values():
                if running.process.is_alive():
                    running.process.terminate()
            for running in self.running.values():
                while running.process.is_alive():
                    self._receive(running)  # a full pipe would block the process
                    running.process.join(_POLL_SECONDS)
                self._receive(running)

    def _receive(self, running: _Running) -> None:
        """Read the messages of a job, and report its warnings."""
        if warnings := running.receive():
            self.context.progress(
                ProgressUpdate(self.task, self.num_done, self.num_jobs, warnings=tuple(warnings))
            )


def _share_threads(devices: Sequence[str]) -> int:
    """Return the number of threads of each job.

    Jobs on the CPU share the threads of this process. Otherwise they would wait for one another.

    Args:
        devices: Names of the devices in use.
    """
    import torch

    on_cpu = [name for name in devices if _is_cpu(name)]
    return max(1, torch.get_num_threads() // max(1, len(on_cpu)))


def _is_cpu(name: str) -> bool:
    """Return whether a device is the CPU. The jobs of missing devices fail later."""
    try:
        return choose_device(name).type == "cpu"
    except UsageError:
        return False


def _run_in_child(
    connection: Connection, job: Job, device: str, num_workers: int | None, num_threads: int
) -> None:
    """Run a job in the process that was started for it.

    Progress and a failure are sent through the connection.
    """
    with watch_signals() as signalled:
        release_signals()
        import torch

        torch.set_num_threads(num_threads)
        keep_freed_memory()
        sender = _ProgressSender(connection)
        context = RunContext(
            device=device, num_workers=num_workers, progress=sender.report, should_stop=signalled
        )
        try:
            job.run(context)
            sender.flush()
        except ScansegError as error:
            _send(connection, _Failure(str(error)))
        except Exception:
            _send(connection, _Failure(traceback.format_exc().strip()))


@dataclass
class _ProgressSender:
    """Send warnings and the detail of progress updates to the parent process.

    Warnings are sent at once, the detail at most every `_SEND_SECONDS` and at the end.
    """

    connection: Connection
    last_sent: float = 0.0
    detail: str = ""

    def report(self, update: ProgressUpdate) -> None:
        """Send the warnings, and the detail if a message is due."""
        if update.warnings:
            _send(self.connection, _Warnings(update.warnings))
        if not update.detail:
            return
        self.detail = update.detail if update.task == "training" else f"{update.task} {update.detail}"
        if time.monotonic() - self.last_sent >= _SEND_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Send the newest detail."""
        _send(self.connection, self.detail)
        self.last_sent = time.monotonic()


def _send(connection: Connection, message: object) -> None:
    """Send a message to the parent process, if it still exists."""
    with suppress(OSError):
        connection.send(message)
