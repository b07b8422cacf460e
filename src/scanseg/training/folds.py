"""Choose the training and validation cases of a training."""

from typing import Literal

from scanseg.errors import InputError, UsageError
from scanseg.messages import listed
from scanseg.models import ModelFolder
from scanseg.preprocessing import Store
from scanseg.specs import Fold, RunRecord, TrainingSpec

FoldChoice = int | Literal["all"]


def choose_fold(store: Store, fold: FoldChoice) -> Fold:
    """Return the training and validation cases of a fold.

    Args:
        store: The store.
        fold: Number of the fold, from 0. `all`: every case is a training case, and none is a validation case.

    Raises:
        UsageError: The fold does not exist.
    """
    if fold == "all":
        return Fold(train=tuple(case.case for case in store.index.cases), validation=())
    folds = store.index.splits.folds
    if not folds:
        raise UsageError(
            f"{store.index.dataset.name}: expected at least 2 cases for training and validation, got "
            f"{len(store.index.cases)}. Add cases, or train on all cases by --fold all."
        )
    if isinstance(fold, str) or not 0 <= fold < len(folds):
        raise UsageError(
            f"fold {fold} does not exist: {store.index.dataset.name} has folds 0 to {len(folds) - 1} "
            f"({store.index.splits.source}). Choose one of them, or all."
        )
    return folds[fold]


def choose_cases(folder: ModelFolder, store: Store, *, fold: FoldChoice | None) -> tuple[FoldChoice, Fold]:
    """Return fold and cases of a new or resumed training.

    A resumed training keeps its cases, even if the splits have changed or the data set has grown. Otherwise it could
    be scored on its own training cases.

    Args:
        folder: The model folder.
        store: The store.
        fold: Number of the fold, or `all`. `None`: the fold of the resumed training.

    Raises:
        InputError: The store lacks cases of the resumed training.
        UsageError: The fold does not exist, the training started with another one, or it has not started.
    """
    record = folder.read_run()
    if record is not None:
        if fold not in (None, record.fold):
            raise UsageError(
                f"{folder.path}: expected fold {record.fold} of its training, got {fold}. Leave the fold out."
            )
        return record.fold, _recorded_cases(folder, store, record)
    if folder.read_checkpoint() is not None:
        raise InputError(
            f"{folder.path} holds a checkpoint but no run.json, so its training cases are unknown. Restore the file, "
            f"or train again in another folder."
        )
    setup = folder.read_setup()
    if fold is None and setup is not None:
        fold = setup.fold
    if fold is None:
        raise UsageError(
            f"the training in {folder.path} was stopped before its start. Choose its fold by --fold."
        )
    return fold, choose_fold(store, fold)


def _recorded_cases(folder: ModelFolder, store: Store, record: RunRecord) -> Fold:
    """Return the recorded cases of a training.

    Raises:
        InputError: The store lacks some of them.
    """
    available = {case.case for case in store.index.cases}
    missing = [name for name in (*record.train_cases, *record.validation_cases) if name not in available]
    if missing:
        raise InputError(
            f"{store.folder} lacks cases of the training in {folder.path}: {listed(missing)}. Restore them in the data "
            f"set, or train again in another folder."
        )
    return Fold(train=record.train_cases, validation=record.validation_cases)


def check_validation(training: TrainingSpec, cases: Fold, *, fold: FoldChoice) -> None:
    """Check that validation cases exist if a choice depends on them.

    Args:
        training: Choices of the plan.
        cases: Training and validation cases.
        fold: Number of the fold, or `all`.

    Raises:
        UsageError: The fold has no validation cases.
    """
    if cases.validation:
        return
    if training.export == "best":
        raise UsageError(
            f"training.export best needs validation cases, and fold {fold} has none. Choose last."
        )
    if training.early_stop is not None and training.early_stop.measure == "validation-dice":
        raise UsageError(
            f"training.early_stop by validation-dice needs validation cases, and fold {fold} has none. Choose the "
            f'measure "loss", or leave early_stop out.'
        )
