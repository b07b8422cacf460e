"""From a plan and a store to a model folder: training, and scores of the validation cases."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock

from scanseg.errors import InputError
from scanseg.evaluation import Report
from scanseg.models import ModelFolder
from scanseg.preprocessing import Store
from scanseg.progress import ProgressCallback, ignore_progress
from scanseg.runtime import SINGLE_PROCESS, Distributed
from scanseg.specs import Fold
from scanseg.training.folds import FoldChoice, choose_cases
from scanseg.training.loop import TrainingLoop
from scanseg.training.validation import OTHER_REPORT, REPORT, validate


@dataclass(frozen=True)
class TrainingResult:
    """What a finished training gives."""

    model: Path
    """The model folder."""
    epochs_done: int
    seconds: float
    """Time spent in epochs, over all resumptions."""
    scores: dict[str, float | None]
    """Mean Dice of each label over the validation cases, on the source grid; None: no case has the label."""
    mean_dice: float | None
    """Mean over labels; None: there are no validation cases."""
    renewed_parameters: tuple[str, ...] = ()
    """Parameters that were not taken from the initial weights, since the labels differ."""
    is_main_process: bool = True
    """Whether this process tells of it; of several the first does."""


def train(
    folder: ModelFolder,
    store: Store,
    *,
    fold: FoldChoice | None,
    device: torch.device,
    processes: Distributed = SINGLE_PROCESS,
    initial_weights: Path | None = None,
    num_workers: int = 0,
    keep_predictions: bool = False,
    stopped: Callable[[], int | None] = lambda: None,
    progress: ProgressCallback = ignore_progress,
) -> TrainingResult:
    """Train the network of a model folder's plan, from its last checkpoint if it has one, to the end.

    Args:
        folder: The model folder; its plan says how.
        store: The preprocessed cases.
        fold: Which cases to train on, see `choose_fold`; None: those with which the training began.
        device: Where to train.
        processes: Those that train together, this one among them; all of them call this function.
        initial_weights: Folder of a model whose weights the network begins with; None: random ones. A training that
            goes on has those with which it began.
        num_workers: Processes that read cases which are held on disk; 0 reads in this one.
        keep_predictions: Keep the label maps of the validation cases in the model folder.
        stopped: Gives the number of a signal once the training shall stop; asked after every iteration and case.
        progress: Called with each progress update.

    Raises:
        InterruptionError: `stopped` gave a signal; the state has been saved.
        InputError: The store does not fit the plan, or lacks cases with which the training began; or the initial
            weights are of another network.
        UsageError: There is no such fold, or the training began with another; or the batch cannot be shared; or another
            process trains in the folder.
        ScansegError: The loss is no longer a number, or the device's memory does not suffice.
    """
    if store.index.preprocessing != folder.plan.preprocessing or store.index.dataset != folder.plan.dataset:
        raise InputError(f"{store.folder} was made for another plan. Choose another store, or leave it out.")
    with _claimed(folder, processes), _fast_arithmetic(device, allow_tf32=folder.plan.training.allow_tf32):
        fold, cases = processes.on_first(lambda: choose_cases(folder, store, fold=fold))
        loop = TrainingLoop(
            folder,
            store,
            cases,
            fold=fold,
            device=device,
            processes=processes,
            initial_weights=initial_weights,
            num_workers=num_workers,
            stopped=stopped,
            progress=progress,
        )
        try:
            for _ in loop.epochs():
                pass
        finally:
            loop.close()
        loop.finish()
        report = _score(
            loop,
            folder,
            store,
            cases,
            device=device,
            processes=processes,
            keep_predictions=keep_predictions,
            stopped=stopped,
            progress=progress,
        )
    means = report.summary.label_means() if report else {}
    return TrainingResult(
        model=folder.path,
        epochs_done=loop.epochs_done,
        seconds=loop.step.seconds,
        scores=means,
        mean_dice=report.summary.mean_over_labels.dice if report else None,
        renewed_parameters=loop.record.renewed_parameters,
        is_main_process=processes.is_first,
    )


def _score(
    loop: TrainingLoop,
    folder: ModelFolder,
    store: Store,
    cases: Fold,
    *,
    device: torch.device,
    processes: Distributed,
    keep_predictions: bool,
    stopped: Callable[[], int | None],
    progress: ProgressCallback,
) -> Report | None:
    """Score the validation cases with the exported weights, and with the others if the plan says so."""
    exported = loop.record.exported
    assert exported is not None
    processes.gather(None)  # the weights are written before any process reads them
    reports = {}
    for weights in ("best", "last"):
        is_exported = weights == exported.checkpoint
        has_both = loop.has_best and folder.plan.training.score_both
        if not is_exported and not has_both:
            continue
        processes.take_from_first(list(loop.step.eval_network.buffers()))
        network = (
            loop.step.eval_network
            if weights == "last"
            else folder.load_network(device=device, weights="best")
        )
        reports[weights] = validate(
            network,
            folder,
            store,
            cases.validation,
            device=device,
            processes=processes,
            name=REPORT if is_exported else OTHER_REPORT.format(weights),
            keep_predictions=keep_predictions and is_exported,
            stopped=stopped,
            progress=progress,
        )
    return reports[exported.checkpoint]


@contextmanager
def _claimed(folder: ModelFolder, processes: Distributed) -> Iterator[None]:
    """Hold a model folder while it is trained; the first process does that for all."""
    locks: list[FileLock] = []
    processes.on_first(lambda: locks.append(folder.claim()))
    try:
        yield
    finally:
        for lock in locks:
            lock.release()


@contextmanager
def _fast_arithmetic(device: torch.device, *, allow_tf32: bool) -> Iterator[None]:
    """Make a GPU the current one, let it measure its convolutions and, where allowed, use TF32; then undo it."""
    if device.type != "cuda":
        yield
        return
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = (cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32)
    cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = True, allow_tf32, allow_tf32
    try:
        with torch.cuda.device(device):
            yield
    finally:
        cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = before
