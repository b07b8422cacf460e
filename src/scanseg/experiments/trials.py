"""Single trainings of a study: run one after the other, taken up where they were left, and scored."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from scanseg.errors import UsageError
from scanseg.experiments.curves import write_curves
from scanseg.models import ModelFolder
from scanseg.planning import keep_first_stage
from scanseg.preprocessing import Store
from scanseg.progress import ProgressCallback, ProgressUpdate
from scanseg.runtime import RunContext, raise_if_stopped, watch_signals
from scanseg.settings import compare_settings
from scanseg.specs import Plan
from scanseg.training import REPORT, FoldChoice
from scanseg.training import train as run_training

Checkpoint = Literal["last", "best"]
Stopped = Callable[[], int | None]
OUT_OF_TIME = -1
"""Stands for a signal where the time is over."""


@dataclass(frozen=True)
class Trial:
    """One training of a study."""

    name: str
    plan: Plan
    folder: Path
    """Its model folder."""
    fold: FoldChoice = 0
    initial_weights: Path | None = None

    @property
    def is_done(self) -> bool:
        """Whether it has been trained to its end, and its validation cases, if it has any, scored."""
        record = ModelFolder.open(self.folder).read_run() if (self.folder / "plan.json").is_file() else None
        if record is None or record.status != "finished":
            return False
        return not record.validation_cases or (self.folder / REPORT).is_file()


@contextmanager
def watch_time(minutes: float | None) -> Iterator[Stopped]:
    """Give a function that says whether trainings shall stop: by a signal, or since the time is over.

    Args:
        minutes: Time from now on; None: no bound.
    """
    begin = time.monotonic()
    with watch_signals() as signalled:

        def stopped() -> int | None:
            late = minutes is not None and time.monotonic() - begin > 60 * minutes
            return signalled() or (OUT_OF_TIME if late else None)

        yield stopped


def named(progress: ProgressCallback, name: str) -> ProgressCallback:
    """Return a listener that says of which training it hears.

    Args:
        progress: Who is told.
        name: Name of the training.
    """

    def hear(update: ProgressUpdate) -> None:
        progress(replace(update, detail=f"{name}; {update.detail}" if update.detail else name))

    return hear


def run_trial(trial: Trial, store: Store, *, context: RunContext) -> None:
    """Train, from where it was left; what is done is kept.

    Args:
        trial: The training.
        store: Its cases.
        context: Device, worker processes, stopping and progress.

    Raises:
        InterruptionError: It was stopped; its state has been saved.
        UsageError: The folder holds another training.
    """
    if (trial.folder / "plan.json").is_file():
        folder = ModelFolder.open(trial.folder)
        faults = compare_settings(folder.plan, trial.plan)
        if faults:
            raise UsageError(
                f"{trial.folder} holds a training where {'; '.join(faults)}. Remove it, or choose another output."
            )
    else:
        trial.folder.parent.mkdir(parents=True, exist_ok=True)
        folder = ModelFolder.create(trial.folder, trial.plan)
        if trial.plan.cascade is not None:
            keep_first_stage(trial.plan, trial.folder)
    if trial.is_done:
        return
    raise_if_stopped(context.should_stop, f"{trial.name} is still to be trained; go on with --resume")
    run_training(
        folder,
        store,
        fold=trial.fold,
        context=context,
        initial_weights=trial.initial_weights,
    )
    write_curves(folder)
