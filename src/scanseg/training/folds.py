"""Which cases a training learns from, and which judge it."""

from typing import Literal

from scanseg.errors import InputError, UsageError
from scanseg.messages import listed
from scanseg.models import ModelFolder
from scanseg.preprocessing import Store
from scanseg.specs import Fold, RunRecord

FoldChoice = int | Literal["all"]


def choose_fold(store: Store, fold: FoldChoice) -> Fold:
    """Return the cases to train and validate on.

    Args:
        store: The store.
        fold: Number of a fold, from 0; `all` trains on every case and validates on none.

    Raises:
        UsageError: There is no such fold.
    """
    if fold == "all":
        return Fold(train=tuple(case.case for case in store.index.cases), validation=())
    folds = store.index.splits.folds
    if isinstance(fold, str) or not 0 <= fold < len(folds):
        raise UsageError(
            f"fold {fold} does not exist: {store.index.dataset.name} has folds 0 to {len(folds) - 1} "
            f"({store.index.splits.source}); or ask for all"
        )
    return folds[fold]


def choose_cases(folder: ModelFolder, store: Store, *, fold: FoldChoice | None) -> tuple[FoldChoice, Fold]:
    """Return the cases of a training that begins or goes on.

    One that goes on keeps the cases with which it began, also where the data set has been divided anew or has
    grown since: else it would be scored on cases from which it has learnt.

    Args:
        folder: The model folder.
        store: The store.
        fold: Which cases to begin with, see `choose_fold`; None where the training has begun.

    Raises:
        InputError: The store lacks cases with which the training began.
        UsageError: There is no such fold, the training began with another, or it has not begun.
    """
    record = folder.read_run()
    if record is not None:
        if fold not in (None, record.fold):
            raise UsageError(f"{folder.path} trains on fold {record.fold}, not {fold}; leave the fold out.")
        return record.fold, _recorded_cases(folder, store, record)
    if folder.read_checkpoint() is not None:
        raise InputError(
            f"{folder.path} holds a checkpoint but no run.json, so the cases it was trained on are unknown; "
            f"put the file back, or train anew in another folder."
        )
    if fold is None:
        raise UsageError(
            f"the training in {folder.path} was stopped before it began; say by --fold on which fold."
        )
    return fold, choose_fold(store, fold)


def _recorded_cases(folder: ModelFolder, store: Store, record: RunRecord) -> Fold:
    """Return the cases of a training that has begun, if the store has them all."""
    there = {case.case for case in store.index.cases}
    missing = [name for name in (*record.train_cases, *record.validation_cases) if name not in there]
    if missing:
        raise InputError(
            f"{store.folder} lacks cases with which the training in {folder.path} began: {listed(missing)}. "
            f"Put them back into the data set, or train anew in another folder."
        )
    return Fold(train=record.train_cases, validation=record.validation_cases)
