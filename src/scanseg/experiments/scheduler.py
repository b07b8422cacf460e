"""Trainings at the same time: one on each of several devices, each in a process of its own."""

import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO

from scanseg.errors import InterruptionError, ScansegError
from scanseg.runtime import choose_device, watch_signals

_PAUSE_SECONDS = 0.1
"""Time between looks at the processes."""
_TOLD_SECONDS = 5.0
"""Time between reports of what runs."""
_FAILURES_IN_A_ROW = 2
"""After so many a device is taken for the fault, and gets no more jobs."""


@dataclass(frozen=True)
class Job:
    """A command to run."""

    name: str
    """What it is, for its failure."""
    command: tuple[str, ...]
    """The words; `--device NAME` is added."""


@dataclass(frozen=True, eq=False)
class _Running:
    """A process at work."""

    job: Job
    device: str
    process: "subprocess.Popen[bytes]"
    errors: IO[bytes]

    @property
    def failure(self) -> str:
        """Say of a process that failed where it did, and what it said last."""
        self.errors.seek(0)
        said = self.errors.read().decode("utf-8", errors="replace").strip().splitlines() or ["nothing"]
        last = said[-1].removeprefix("error: ")
        return f"{self.job.name} on {self.device} ended with {self.process.returncode}: {last}"


class _Devices:
    """Devices at work, each on one job at a time, and what failed on them."""

    def __init__(self, names: Sequence[str], files: ExitStack) -> None:
        self._names = names
        self._files = files
        self._in_a_row = [0] * len(names)
        self.running: dict[int, _Running] = {}
        self.failures: list[str] = []

    @property
    def free(self) -> list[int]:
        """Places of the devices that can take a job; none after failures in a row."""
        return [
            place
            for place, failed in enumerate(self._in_a_row)
            if place not in self.running and failed < _FAILURES_IN_A_ROW
        ]

    def start(self, job: Job, place: int) -> None:
        """Begin a job; what it says goes to a file that is closed with the others."""
        device = self._names[place]
        errors = self._files.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
        process = subprocess.Popen(
            [*job.command, "--device", device],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        self.running[place] = _Running(job, device, process, errors)

    def ended(self) -> list[Job]:
        """Take note of the jobs that have ended; return those that ended well."""
        well = []
        for place, here in list(self.running.items()):
            if here.process.poll() is None:
                continue
            del self.running[place]
            if not here.process.returncode:
                self._in_a_row[place] = 0
                well.append(here.job)
                continue
            self._in_a_row[place] += 1
            self.failures.append(here.failure)
            if self._in_a_row[place] == _FAILURES_IN_A_ROW:
                self.failures.append(f"after that {here.device} got no more")
        return well


def require_devices(devices: Sequence[str]) -> None:
    """Make sure that devices are there, before work is done that would be for nothing.

    Args:
        devices: Names of devices.

    Raises:
        UsageError: One is not there, or unknown.
    """
    for name in devices:
        choose_device(name)


def run_on_devices(
    jobs: Sequence[Job],
    devices: Sequence[str],
    *,
    ended: Callable[[Job], None],
    running: Callable[[Sequence[Job]], None] = lambda jobs: None,
    stopped: Callable[[], int | None] = lambda: None,
) -> None:
    """Run jobs, on each device one at a time.

    After a failure the other jobs go on; a device on which two failed in a row gets no more. SIGINT and SIGTERM are
    passed on, so that trainings save their state; once they have ended so does this.

    Args:
        jobs: What to run, in this order.
        devices: Names of devices; one that is named twice runs two.
        ended: Told of each job that ended well.
        running: Told now and then of the jobs that run.
        stopped: Gives a number, as of a signal, once what runs shall end.

    Raises:
        ScansegError: Jobs failed; what each said is told once the others have ended.
        InterruptionError: A signal came.
    """
    waiting, told = list(jobs), time.monotonic()
    number: int | None = None
    with watch_signals() as signalled, ExitStack() as files:
        places = _Devices(devices, files)
        try:
            while places.running or (waiting and places.free):
                if (number := signalled() or stopped()) is not None:
                    break
                for job in places.ended():
                    ended(job)
                for place in places.free[: len(waiting)]:
                    places.start(waiting.pop(0), place)
                if places.running and time.monotonic() - told > _TOLD_SECONDS:
                    running([here.job for here in places.running.values()])
                    told = time.monotonic()
                time.sleep(_PAUSE_SECONDS)
        finally:
            _end(places.running.values())
        number = signalled() or number
    if number is not None:
        raise InterruptionError("stopped; go on with --resume", signal_number=number)
    if places.failures:
        raise ScansegError("; ".join(places.failures))


def _end(running: Iterable[_Running]) -> None:
    """Ask what still runs to end, and wait until it has."""
    left = [each.process for each in running if each.process.poll() is None]
    for process in left:
        process.send_signal(signal.SIGTERM)
    for process in left:
        process.wait()
