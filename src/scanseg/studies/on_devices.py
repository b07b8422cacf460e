"""Trainings at the same time: one on each of several devices, each in a process of its own."""

import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO

from scanseg.errors import ScansegError
from scanseg.training import InterruptionError, watch_signals

_PAUSE_SECONDS = 0.1
"""Time between looks at the processes."""


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

    def failure(self) -> list[ScansegError]:
        """Return the error of a process that failed, with what it said last; nothing where it ended well."""
        if not self.process.returncode:
            return []
        self.errors.seek(0)
        said = self.errors.read().decode("utf-8", errors="replace").strip().splitlines() or ["nothing"]
        return [
            ScansegError(
                f"{self.job.name} on {self.device} ended with {self.process.returncode}: "
                f"{said[-1].removeprefix('error: ')}"
            )
        ]


def run_on_devices(
    jobs: Sequence[Job],
    devices: Sequence[str],
    *,
    ended: Callable[[Job], None],
    stopped: Callable[[], int | None] = lambda: None,
) -> None:
    """Run jobs, on each device one at a time.

    After a failure what runs comes to its end, and nothing more begins. SIGINT and SIGTERM are passed on, so that
    trainings save their state; once they have ended so does this.

    Args:
        jobs: What to run, in this order.
        devices: Names of devices; one that is named twice runs two.
        ended: Told of each job that ended well.
        stopped: Gives a number, as of a signal, once what runs shall end.

    Raises:
        ScansegError: A job failed.
        InterruptionError: A signal came.
    """
    waiting, running = list(jobs), dict[int, _Running]()
    failures: list[ScansegError] = []
    number: int | None = None
    with watch_signals() as signalled, ExitStack() as files:
        try:
            while waiting or running:
                if (number := signalled() or stopped()) is not None:
                    break
                for place, here in list(running.items()):
                    if here.process.poll() is not None:
                        del running[place]
                        failures += here.failure()
                        if not here.process.returncode:
                            ended(here.job)
                if failures:
                    waiting = []
                for place, device in enumerate(devices):
                    if place not in running and waiting:
                        running[place] = _start(waiting.pop(0), device, files)
                time.sleep(_PAUSE_SECONDS)
        finally:
            _end(running.values())
        number = signalled() or number
    if number is not None:
        raise InterruptionError("stopped; go on with --resume", signal_number=number)
    if failures:
        raise failures[0]


def _start(job: Job, device: str, files: ExitStack) -> _Running:
    """Begin a job; what it says goes to a file that is closed with the others."""
    errors = files.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
    process = subprocess.Popen(
        [*job.command, "--device", device],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=errors,
    )
    return _Running(job, device, process, errors)


def _end(running: Iterable[_Running]) -> None:
    """Ask what still runs to end, and wait until it has."""
    left = [each.process for each in running if each.process.poll() is None]
    for process in left:
        process.send_signal(signal.SIGTERM)
    for process in left:
        process.wait()
