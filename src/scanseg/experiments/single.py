"""One training, from a data set or a plan to a model folder."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scanseg.errors import InterruptionError, OtherProcessError, UsageError
from scanseg.experiments.curves import write_curves
from scanseg.models import ModelFolder
from scanseg.planning import keep_first_stage, plan_of, store_of
from scanseg.preprocessing import Store
from scanseg.progress import ProgressCallback, ProgressUpdate, ignore_progress
from scanseg.runtime import (
    Distributed,
    RunContext,
    choose_workers,
    join_processes,
    keep_workers,
    warm_up,
    watch_signals,
)
from scanseg.settings import apply_settings, compare_settings, several
from scanseg.specs import Plan
from scanseg.training import FoldChoice, TrainingResult, choose_fold
from scanseg.training import train as run_training

_STORES = "scanseg-stores"
_SECONDS_BETWEEN_PICTURES = 300.0
"""Time after which the curves of a training that still runs are drawn again."""


@dataclass(frozen=True)
class TrainingOptions:
    """What a person may say of a training, beside its data and its fold."""

    recipe: str | None = None
    """How to plan, where the source is a data set; None: `xlstm-unet`."""
    settings: tuple[str, ...] = ()
    """Changes to the plan."""
    initial_weights: Path | None = None
    """Folder of a model whose weights, and for a data set whose plan, the training begins with."""
    device: str = "auto"
    store: Path | None = None
    """Folder of the stores; None: beside the output."""
    num_workers: int | None = None


def train(
    source: Path,
    output: Path,
    options: TrainingOptions,
    *,
    fold: FoldChoice | None,
    resume: bool,
    keep_predictions: bool = False,
    progress: ProgressCallback = ignore_progress,
) -> TrainingResult:
    """Train a network and score it on the validation cases of its fold. See `scanseg.train`."""
    with join_processes(options.device) as (processes, device):
        if not processes.is_main_process:
            progress = ignore_progress
        with warm_up(device):
            folder, store, fold = processes.on_main_process(
                lambda: _prepare(
                    source, output, options, fold=fold, resume=resume, processes=processes, progress=progress
                )
            )
        with (
            watch_signals() as stopped,
            _told_once(processes),
            _drawn(folder, processes, progress) as progress,
        ):
            result = run_training(
                folder,
                store,
                fold=fold,
                context=RunContext(
                    device=device,
                    distributed=processes,
                    num_workers=_workers_of(options, processes),
                    should_stop=stopped,
                    progress=progress,
                ),
                initial_weights=options.initial_weights,
                keep_predictions=keep_predictions,
            )
        return result


@keep_workers()
def _prepare(
    source: Path,
    output: Path,
    options: TrainingOptions,
    *,
    fold: FoldChoice | None,
    resume: bool,
    processes: Distributed,
    progress: ProgressCallback,
) -> tuple[ModelFolder, Store, FoldChoice | None]:
    """Open or make the model folder and the store, and decide on the fold."""
    stores = stores_of(output, options)
    if resume:
        folder = begun_model(output, options, fold=fold)
        _check_batch(folder.plan, processes)
        store = store_of(
            folder.plan,
            source,
            stores,
            context=RunContext(num_workers=options.num_workers, progress=progress),
        )
        return folder, store, fold
    ModelFolder.require_new(output)
    plan = plan_of(
        source,
        recipe=options.recipe,
        like=options.initial_weights,
        settings=options.settings,
        context=RunContext(num_workers=options.num_workers, progress=progress),
    )
    _check_batch(plan, processes)
    fold = 0 if fold is None else fold
    store = store_of(
        plan, source, stores, context=RunContext(num_workers=options.num_workers, progress=progress)
    )
    choose_fold(store, fold)
    folder = ModelFolder.create(output, plan)
    if plan.cascade is not None:
        keep_first_stage(plan, output)
    return folder, store, fold


def _check_batch(plan: Plan, processes: Distributed) -> None:
    """Make sure that the processes can share the plan's batches."""
    processes.check_batch(plan.sampling.batch_size, accumulation_steps=plan.training.accumulation_steps)


@contextmanager
def _told_once(processes: Distributed) -> Iterator[None]:
    """Let the first process alone say that a signal stopped all of them."""
    try:
        yield
    except InterruptionError as error:
        if processes.is_main_process:
            raise
        raise OtherProcessError(str(error)) from error


@contextmanager
def _drawn(
    folder: ModelFolder, processes: Distributed, progress: ProgressCallback
) -> Iterator[ProgressCallback]:
    """Draw the curves of a training now and then, and at its end, also where a signal ends it.

    Yields:
        A listener for the training, which hears as the one that was given.
    """
    drawn = time.monotonic()

    def hear(update: ProgressUpdate) -> None:
        nonlocal drawn
        progress(update)
        if time.monotonic() - drawn > _SECONDS_BETWEEN_PICTURES:
            write_curves(folder)
            drawn = time.monotonic()

    try:
        yield hear if processes.is_main_process else progress
    except InterruptionError:
        if processes.is_main_process:
            write_curves(folder)
        raise
    if processes.is_main_process:
        write_curves(folder)


def stores_of(output: Path, options: TrainingOptions) -> Path:
    """Return the folder of the stores: as wanted, or beside the output.

    Args:
        output: Folder to which a training or a study is written.
        options: What was said.
    """
    return output.parent / _STORES if options.store is None else options.store


def begun_model(path: Path, options: TrainingOptions, *, fold: FoldChoice | None) -> ModelFolder:
    """Open a model whose training is to go on; refuse what would make it another training.

    Args:
        path: The model folder.
        options: What was said now; what is said must be what the training began with.
        fold: The fold, if it was said.

    Raises:
        InputError: There is no model.
        UsageError: Something else was said.
    """
    folder = ModelFolder.open(path)
    faults = compare_settings(folder.plan, apply_settings(folder.plan, options.settings))
    if options.recipe not in (None, folder.plan.recipe):
        faults.append(f"recipe is {folder.plan.recipe}, not {options.recipe}")
    record = folder.read_run()
    if record is not None and fold not in (None, record.fold):
        faults.append(f"fold is {record.fold}, not {fold}")
    if record is not None and options.initial_weights is not None:
        begun_with = None if record.initial_weights is None else Path(record.initial_weights)
        if begun_with != options.initial_weights:
            faults.append(f"the weights to begin with were {begun_with}, not {options.initial_weights}")
    if faults:
        raise UsageError(
            f"--resume goes on with the training in {path}, where {'; '.join(faults)}. Leave these options out, or "
            f"train anew in another folder."
        )
    return folder


def plan_settings(
    *,
    settings: Sequence[str],
    epochs: int | None = None,
    max_minutes: float | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    seed: int | None = None,
    precision: str | None = None,
) -> tuple[str, ...]:
    """Return the changes to a plan that options with names of their own and others ask for."""
    named = {
        "training.epochs": epochs,
        "training.max_minutes": max_minutes,
        "sampling.batch_size": batch_size,
        "training.optimizer.lr": lr,
        "training.seed": seed,
        "training.precision": precision,
    }
    return (*(f"{path}={value}" for path, value in named.items() if value is not None), *several(settings))


def _workers_of(options: TrainingOptions, processes: Distributed) -> int:
    """Return how many processes read cases for each of those that train."""
    workers = choose_workers(options.num_workers)
    return workers if processes.world_size == 1 else -(-workers // processes.world_size)
