"""Splits of a data set into training and validation cases."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from scanseg.dataset.raw import RawDataset
from scanseg.documents import read_json
from scanseg.errors import InputError, refuse_faults
from scanseg.messages import counted, listed, shortened
from scanseg.specs import Fold, Splits, describe_faults

NUM_FOLDS = 5
NNUNET_SPLITS_FILE = "splits_final.json"
SPLITS_FILE = "splits.json"


def find_splits(dataset: RawDataset, *, seed: int = 12345, required: bool = True) -> Splits:
    """Read the splits file of a data set, or draw five folds.

    The first of these files is read: `splits_final.json` and `splits.json` in the data set's folder, then nnU-Net's
    `../../nnUNet_preprocessed/NAME/splits_final.json`. Each holds a list of `{"train": [...], "val": [...]}`, or one
    such object.

    Drawn folds equal nnU-Net's. The sorted names are shuffled with the seed and divided into five parts (one per case
    if there are fewer cases) whose sizes differ by at most one. Each part is the validation part of one fold.

    Args:
        dataset: Data set to split.
        seed: Seed of the shuffle if folds are drawn.
        required: Refuse a data set of one case. If false, it has no folds, and can be trained on as a whole.

    Raises:
        InputError: The splits file is invalid or names unknown cases, or the data set has fewer than two cases.
    """
    path = splits_file(dataset)
    if path is None and len(dataset.cases) == 1 and not required:
        return Splits(source="no folds, as there is one case", folds=())
    if path is None:
        return _draw_splits(dataset, seed)
    splits = _read_splits(path)
    refuse_faults(path, _check_names(splits, dataset))
    return splits


def splits_file(dataset: RawDataset) -> Path | None:
    """Return the splits file of a data set, if any. See `find_splits`."""
    return next(iter(_splits_files(dataset)), None)


def _splits_files(dataset: RawDataset) -> list[Path]:
    """Return all splits files of a data set by priority."""
    folder = dataset.path.resolve()
    nnunet_folder = folder.parent.parent / "nnUNet_preprocessed" / folder.name
    paths = (
        dataset.path / NNUNET_SPLITS_FILE,
        dataset.path / SPLITS_FILE,
        nnunet_folder / NNUNET_SPLITS_FILE,
    )
    return [path for path in paths if path.is_file()]


def check_splits(dataset: RawDataset) -> tuple[list[str], list[str]]:
    """Check the splits file of a data set.

    Args:
        dataset: Data set of the file.

    Returns:
        Faults, and warnings that do not prevent training. Both are empty without a splits file.
    """
    path = splits_file(dataset)
    if path is None:
        return [], []
    try:
        splits = _read_splits(path)
    except InputError as error:
        return [str(error)], []
    name = path.name if path.parent == dataset.path else str(path)
    bare = [number for number, fold in enumerate(splits.folds) if not fold.validation]
    used = {case for fold in splits.folds for case in (*fold.train, *fold.validation)}
    unused = [case.name for case in dataset.cases if case.name not in used]
    warnings = [f"{name}: fold {number} has no validation cases, so it gives no score" for number in bare]
    if unused and splits.folds:
        verb = "is" if len(unused) == 1 else "are"
        warnings.append(
            f"{name}: {counted(len(unused), 'case')} of the data set {verb} in no fold: {listed(unused)}. Add to a "
            "fold to use"
        )
    warnings += [f"{other.name} is left out, as {name} exists" for other in _splits_files(dataset)[1:]]
    return [f"{name}: {fault}" for fault in _check_names(splits, dataset)], warnings


def list_unused(dataset: RawDataset) -> tuple[str, ...]:
    """Describe files and cases of a data set that no training uses.

    Args:
        dataset: The data set.
    """
    return (*dataset.warnings, *check_splits(dataset)[1])


def _read_splits(path: Path) -> Splits:
    """Read a splits file in any of its forms."""
    content = read_json(path)
    try:
        entries = content if isinstance(content, list) else [content]
        fields = [_fields_of(entry) for entry in entries]
    except (ValueError, KeyError) as error:
        reason = f"a fold lacks {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(
            f'{path}: expected a list of {{"train": [...], "val": [...]}}, or one such object ({reason}).'
        ) from error
    folds, faults = [], []
    for number, named in enumerate(fields):
        try:
            folds.append(Fold.model_validate(named))
        except ValidationError as error:
            faults.append(f"fold {number}: {describe_faults(error, content=named)}. Correct the fold.")
    if faults:
        refuse_faults(path, faults)
    return Splits(source=path.name, folds=tuple(folds))


def _fields_of(entry: Any) -> dict[str, Any]:
    """Return the fields of one fold. `val` and `validation` are synonyms."""
    if not isinstance(entry, dict):
        raise ValueError(f"a fold is {shortened(json.dumps(entry))}")
    return {"train": entry["train"], "validation": entry["validation" if "validation" in entry else "val"]}


def _check_names(splits: Splits, dataset: RawDataset) -> list[str]:
    """Return faults for unknown and repeated cases and for incomplete folds."""
    known = {case.name for case in dataset.cases}
    faults = [] if splits.folds else ["no folds. Add at least one, or remove the file."]
    for number, fold in enumerate(splits.folds):
        unknown = sorted({*fold.train, *fold.validation} - known)
        if unknown:
            several = "case" if len(unknown) == 1 else "cases"
            faults.append(
                f"fold {number}: {several} {listed([*map(shortened, unknown)])} not in the data set. Correct the names."
            )
        if not fold.train:
            faults.append(f"fold {number}: no training cases. Name some, or remove the fold.")
        for part, cases in (("train", fold.train), ("validation", fold.validation)):
            repeated = sorted(name for name, times in Counter(cases).items() if times > 1)
            if repeated:
                faults.append(
                    f"fold {number}: {listed([*map(shortened, repeated)])} more than once in {part}. Name each case "
                    "once."
                )
    return faults


def _draw_splits(dataset: RawDataset, seed: int) -> Splits:
    """Draw folds as scikit-learn's `KFold(5, shuffle=True)`, as nnU-Net does."""
    names = sorted(case.name for case in dataset.cases)
    if len(names) < 2:
        raise InputError(
            f"{dataset.path}: expected at least 2 cases for training and validation, got {len(names)}. Add cases, "
            f"write the fold in {SPLITS_FILE}, or train on all cases by --fold all."
        )
    # Only the legacy generator gives nnU-Net's folds. NumPy guarantees that its stream never changes.
    order = np.random.RandomState(seed).permutation(len(names))
    folds = []
    for part in np.array_split(order, min(NUM_FOLDS, len(names))):
        validation = {names[index] for index in part}
        folds.append(
            Fold(
                train=tuple(name for name in names if name not in validation),
                validation=tuple(sorted(validation)),
            )
        )
    return Splits(source=f"{counted(len(folds), 'fold')} drawn with seed {seed}", folds=tuple(folds))
