"""Train the network of a plan and score the validation cases."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock
from torch import nn

from scanseg.errors import InputError
from scanseg.evaluation import Report
from scanseg.models import ModelFolder, TrainedWeights
from scanseg.preprocessing import Store
from scanseg.runtime import Distributed, RunContext
from scanseg.specs import Fold, RunRecord
from scanseg.training.arithmetic import fast_arithmetic
from scanseg.training.folds import FoldChoice, choose_cases
from scanseg.training.loop import TrainingLoop
from scanseg.training.validation import validate

_SCORED: tuple[TrainedWeights, ...] = ("best", "last")


@dataclass(frozen=True)
class TrainingResult:
    """Result of a finished training."""

    model: Path
    """The model folder."""
    epochs_done: int
    """Finished epochs."""
    seconds: float
    """Training time in seconds, over all resumptions."""
    scores: dict[str, float | None]
    """Mean Dice (0 to 1) of each label over the validation cases, on the source grid. `None`: no case has it."""
    mean_dice: float | None
    """Mean Dice over labels. `None`: the fold has no validation cases."""
    renewed_parameters: tuple[str, ...] = ()
    """Parameters with random initial weights, because the labels of the initial model differ."""
    was_finished: bool = False
    """The resumed training was finished already."""
    is_main_process: bool = True
    """True on the main process (rank 0), which reports."""
    warnings: tuple[str, ...] = ()
    """Unusual properties of the data set that do not prevent training, see `scanseg.check`."""


def train(
    folder: ModelFolder,
    store: Store,
    *,
    fold: FoldChoice | None,
    initial_weights: Path | None = None,
    keep_predictions: bool = False,
    context: RunContext,
) -> TrainingResult:
    """Train the network of a model folder, or resume its training.

    Args:
        folder: The model folder with its plan.
        store: The preprocessed cases.
        fold: Number of the fold, from 0, or `all` for all cases. `None`: the fold of the resumed training.
        initial_weights: Model folder of the initial weights. `None`: random weights. A resumed training keeps its
            own.
        keep_predictions: Keep the label maps of the validation cases in the model folder.
        context: Device, worker processes for cases on disk, progress, and distributed processes, which all call this
            function. `should_stop` is called after every iteration and case.

    Raises:
        InterruptionError: A signal came. The state has been saved.
        InputError: The store does not fit the plan, or lacks cases of the resumed training. Or the initial weights
            belong to another network.
        UsageError: The fold does not exist, or the training started with another one. Or the batch cannot be shared, or
            another process trains in the folder.
        ScansegError: The loss is not finite, or the device has too little memory.
    """
    stored, planned = store.index.dataset.without_colours(), folder.plan.dataset.without_colours()
    if store.index.preprocessing != folder.plan.preprocessing or stored != planned:
        raise InputError(
            f"{store.folder}: the store was made for another plan. Choose another store, or leave it out."
        )
    with (
        _claimed(folder, context.distributed),
        fast_arithmetic(context.torch_device, allow_tf32=folder.plan.training.allow_tf32),
    ):
        fold, cases = context.distributed.on_main_process(lambda: choose_cases(folder, store, fold=fold))
        record = context.distributed.on_main_process(lambda: _finished_record(folder))
        if record is not None:
            return _finished_result(
                folder, store, cases, record, keep_predictions=keep_predictions, context=context
            )
        loop = TrainingLoop(
            folder,
            store,
            cases,
            fold=fold,
            context=context,
            initial_weights=initial_weights,
        )
        try:
            for _ in loop.epochs():
                pass
        finally:
            loop.close()
        loop.finish()
        context.distributed.gather(None)  # wait until the main process has written the weights

        def network_with(weights: TrainedWeights) -> nn.Module:
            context.distributed.broadcast(list(loop.step.eval_network.buffers()))
            if weights == "last":
                return loop.step.eval_network
            return folder.load_network(device=context.torch_device, weights=weights)

        report = _score(
            folder,
            store,
            cases,
            loop.record,
            network_with,
            has_best=loop.has_best,
            context=context,
            keep_predictions=keep_predictions,
        )
    return _result(folder, loop.record, report, context=context)


def _finished_record(folder: ModelFolder) -> RunRecord | None:
    """Return the run record of a training that is finished.

    Returns:
        The record. `None`: the training goes on.
    """
    record, training = folder.read_run(), folder.plan.training
    if record is None or record.status != "finished" or record.exported is None:
        return None
    last = record.sessions[-1]
    has_limits = last.epochs is not None
    if has_limits and (last.epochs, last.max_minutes) != (training.epochs, training.max_minutes):
        return None
    return record if folder.has_weights() else None


def _finished_result(
    folder: ModelFolder,
    store: Store,
    cases: Fold,
    record: RunRecord,
    *,
    keep_predictions: bool,
    context: RunContext,
) -> TrainingResult:
    """Return the result of a finished training.

    Missing and outdated scores are made from its weights.
    """
    processes = context.distributed

    def is_scored() -> bool:
        status = folder.status(with_predictions=keep_predictions)
        return status == "finished" and folder.scores.has_current_validation(store)

    if processes.on_main_process(is_scored):
        report = processes.on_main_process(folder.scores.read_validation) if cases.validation else None
    else:
        has_best = processes.on_main_process(
            lambda: folder.has_weights("best") and folder.has_weights("last")
        )
        report = _score(
            folder,
            store,
            cases,
            record,
            lambda weights: folder.load_network(device=context.torch_device, weights=weights),
            has_best=has_best,
            context=context,
            keep_predictions=keep_predictions,
        )
    return replace(_result(folder, record, report, context=context), was_finished=True)


def _result(
    folder: ModelFolder, record: RunRecord, report: Report | None, *, context: RunContext
) -> TrainingResult:
    """Return the result of a training from its record and scores."""
    return TrainingResult(
        model=folder.path,
        epochs_done=record.epochs_done,
        seconds=record.training_seconds,
        scores=report.summary.label_means() if report else {},
        mean_dice=report.summary.mean_over_labels.dice if report else None,
        renewed_parameters=record.renewed_parameters,
        is_main_process=context.distributed.is_main_process,
    )


def _score(
    folder: ModelFolder,
    store: Store,
    cases: Fold,
    record: RunRecord,
    network_with: Callable[[TrainedWeights], nn.Module],
    *,
    has_best: bool,
    keep_predictions: bool,
    context: RunContext,
) -> Report | None:
    """Score the validation cases with the exported weights.

    With `training.score_both` the other weights are scored too.
    """
    exported = record.exported
    assert exported is not None
    reports = {}
    for weights in _SCORED:
        is_exported = weights == exported.checkpoint
        if not is_exported and not (has_best and folder.plan.training.score_both):
            continue
        reports[weights] = validate(
            network_with(weights),
            folder,
            store,
            cases.validation,
            context=context,
            weights=weights,
            keep_predictions=keep_predictions and is_exported,
        )
    return reports[exported.checkpoint]


@contextmanager
def _claimed(folder: ModelFolder, processes: Distributed) -> Iterator[None]:
    """Lock a model folder during its training, on the main process."""
    locks: list[FileLock] = []
    processes.on_main_process(lambda: locks.append(folder.claim()))
    try:
        yield
    finally:
        for lock in locks:
            lock.release()
