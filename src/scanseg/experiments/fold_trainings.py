"""The trainings of a cross-validation: every fold that is not done, on one device or several."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from scanseg.experiments.configuration import PLAN, Configuration
from scanseg.experiments.scheduler import Job, run_on_devices
from scanseg.experiments.single import TrainingOptions, train
from scanseg.models import ModelFolder
from scanseg.progress import ProgressCallback, ProgressUpdate
from scanseg.training import REPORT, mean_dice


def train_all(
    configurations: Sequence[Configuration],
    options: TrainingOptions,
    *,
    devices: Sequence[str],
    progress: ProgressCallback,
) -> None:
    """Train every fold that is not done, one after the other or each device one at a time.

    Args:
        configurations: The ways to plan.
        options: What was said of the trainings.
        devices: Names of devices; several train folds at the same time.
        progress: Called with each progress update.

    Raises:
        InterruptionError: A signal came; what has begun has saved its state.
        ScansegError: A training failed.
    """
    waiting = [(each, fold) for each in configurations for fold in each.folds if not _is_done(each, fold)]
    if len(devices) < 2:
        options = replace(options, device=devices[0]) if devices else options
        for each, fold in waiting:
            model = each.model(fold)
            train(
                each.folder / PLAN,
                model,
                replace(options, recipe=None, settings=()),
                fold=fold,
                resume=(model / PLAN).is_file(),
                keep_predictions=True,
                progress=_named(progress, f"{each.name} fold {fold}"),
            )
        return
    jobs = {
        Job(f"the training in {each.model(fold)}", _command(each, fold, options)): (each, fold)
        for each, fold in waiting
    }
    done: list[Job] = []

    def tell(running: Sequence[Job]) -> None:
        progress(
            ProgressUpdate("folds", len(done), len(jobs), "; ".join(_standing(*jobs[job]) for job in running))
        )

    def end(job: Job) -> None:
        done.append(job)
        tell([job])

    tell([])
    run_on_devices(list(jobs), devices, ended=end, running=tell)


def _standing(configuration: Configuration, fold: int) -> str:
    """Say how far a fold is: the last line of its metrics."""
    name, model = f"{configuration.name} fold {fold}", configuration.model(fold)
    metrics = ModelFolder.open(model).read_metrics() if (model / PLAN).is_file() else []
    if not metrics:
        return name
    last = metrics[-1]
    measured = [line["validation_dice"] for line in metrics if isinstance(line.get("validation_dice"), dict)]
    training = configuration.plan.training
    of = "/" if training.max_minutes is None else " of at most "
    said = f"{name}: epoch {last['epoch']}{of}{training.epochs}, loss {last['loss']:.3f}"
    if not measured:
        return said
    dice = mean_dice(cast(dict[str, float | None], measured[-1]))
    return said if dice is None else f"{said}, Dice {dice:.3f}"


def _command(configuration: Configuration, fold: int, options: TrainingOptions) -> tuple[str, ...]:
    """Return the command that trains a fold."""
    model = configuration.model(fold)
    words = [sys.executable, "-m", "scanseg", "train", str(configuration.folder / PLAN), "-o", str(model)]
    words += ["--fold", str(fold), "--store", str(options.store), "--keep-predictions"]
    if options.num_workers is not None:
        words += ["--num-workers", str(options.num_workers)]
    if options.initial_weights is not None:
        words += ["--initial-weights", str(options.initial_weights)]
    return (*words, "--resume") if (model / PLAN).is_file() else tuple(words)


def _named(progress: ProgressCallback, name: str) -> ProgressCallback:
    """Return a listener that says of which training it hears."""

    def hear(update: ProgressUpdate) -> None:
        progress(replace(update, detail=f"{name}, {update.detail}" if update.detail else name))

    return hear


def _is_done(configuration: Configuration, fold: int) -> bool:
    """Whether a fold is trained, its validation cases predicted and scored."""
    path = configuration.model(fold)
    if not (path / PLAN).is_file() or not (path / REPORT).is_file():
        return False
    folder = ModelFolder.open(path)
    record = folder.read_run()
    return (
        record is not None
        and record.status == "finished"
        and all(folder.prediction_path(case).is_file() for case in record.validation_cases)
    )
