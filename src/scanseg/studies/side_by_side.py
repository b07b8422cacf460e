"""Trainings of a study on several devices at the same time, each in a process of its own."""

import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scanseg.errors import ScansegError
from scanseg.progress import Progress, ProgressListener
from scanseg.studies.trials import Stopped, Trial
from scanseg.training import InterruptionError

_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class _Running:
    """A training in a process."""

    trial: Trial
    process: "subprocess.Popen[bytes]"
    log: Path

    def require_success(self, device: str) -> None:
        """Raise what a process that failed has said."""
        if self.process.returncode:
            lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["nothing"]
            raise ScansegError(
                f"{self.trial.name} on {device} ended with {self.process.returncode}: "
                f"{lines[-1].removeprefix('error: ')} (all of it in {self.log})"
            )


def run_side_by_side(
    trials: Sequence[Trial],
    stores: Path,
    *,
    devices: Sequence[str],
    num_workers: int | None,
    stopped: Stopped,
    listen: ProgressListener,
) -> None:
    """Train what is not done, each device one training at a time; the next takes the first device that is free.

    Args:
        trials: The trainings, in their order.
        stores: Folder of their stores.
        devices: Names of the devices; one named twice trains two at a time.
        num_workers: Processes that read cases, of each training.
        stopped: Gives the number of a signal once trainings shall stop.
        listen: Told of trainings that are done.

    Raises:
        InterruptionError: It was stopped; the states have been saved.
        ScansegError: A training failed; those that run are stopped, and their states saved.
    """
    waiting = deque(trial for trial in trials if not trial.is_done)
    total, running = len(waiting), dict[int, _Running]()
    try:
        while waiting or running:
            if (number := stopped()) is not None:
                raise InterruptionError("stopped; go on with --resume", signal_number=number)
            for place, device in enumerate(devices):
                one = running.get(place)
                if one is not None and one.process.poll() is not None:
                    del running[place]
                    one.require_success(device)
                    listen(Progress("trainings", total - len(waiting) - len(running), total, one.trial.name))
                if place not in running and waiting:
                    running[place] = _start(waiting.popleft(), stores, device=device, num_workers=num_workers)
            time.sleep(_POLL_SECONDS)
    finally:
        for one in running.values():
            one.process.terminate()
        for one in running.values():
            one.process.wait()


def _start(trial: Trial, stores: Path, *, device: str, num_workers: int | None) -> _Running:
    """Begin a training, or go on with it, in a process of its own."""
    trial.folder.parent.mkdir(parents=True, exist_ok=True)
    plan = trial.folder.with_name(f"{trial.folder.name}.plan.json")
    plan.write_text(trial.plan.to_json(), encoding="utf-8")
    words = [sys.executable, "-m", "scanseg", "train", str(plan), "-o", str(trial.folder)]
    words += ["--fold", str(trial.fold), "--store", str(stores), "--device", device]
    if num_workers is not None:
        words += ["--num-workers", str(num_workers)]
    if (trial.folder / "plan.json").is_file():
        words.append("--resume")
    log = trial.folder.with_name(f"{trial.folder.name}.log")
    with log.open("wb") as stream:
        process = subprocess.Popen(words, stdout=stream, stderr=subprocess.STDOUT)
    return _Running(trial, process, log)
