"""Folds: which cases train and which validate."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from scanseg.data.faults import refuse_faults
from scanseg.data.raw import RawDataset
from scanseg.errors import InputError
from scanseg.specs import Fold, Splits, describe_faults

NUM_FOLDS = 5
NNUNET_FILE = "splits_final.json"
OUR_FILE = "splits.json"


def find_splits(dataset: RawDataset, *, seed: int = 12345) -> Splits:
    """Read the folds that come with a data set, or draw five.

    Looked for, in this order: `splits_final.json` and `splits.json` in the data set's folder, then nnU-Net's
    `../../nnUNet_preprocessed/NAME/splits_final.json`. Both hold a list of `{"train": [...], "val": [...]}`,
    or one such object.

    Drawn folds are those of nnU-Net: the sorted names, shuffled by the seed and cut into five parts (as many
    as there are cases, if fewer) whose sizes differ by one at most; each part validates once.

    Args:
        dataset: The data set.
        seed: Seed of the shuffle, where folds are drawn.

    Raises:
        InputError: The file of folds is invalid or names unknown cases, or there are fewer than two cases.
    """
    folder = dataset.path.resolve()
    nnunet_folder = folder.parent.parent / "nnUNet_preprocessed" / folder.name
    for path in (dataset.path / NNUNET_FILE, dataset.path / OUR_FILE, nnunet_folder / NNUNET_FILE):
        if path.is_file():
            splits = _read_splits(path)
            _check_names(path, splits, {case.name for case in dataset.cases})
            return splits
    return _draw_splits(dataset, seed)


def _read_splits(path: Path) -> Splits:
    """Read a file of folds in any of its forms."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        entries = content if isinstance(content, list) else [content]
        folds = tuple(_read_fold(entry) for entry in entries)
    except ValidationError as error:
        raise InputError(f"{path}: {describe_faults(error)}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"a fold lacks {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(
            f'{path}: not a list of {{"train": [...], "val": [...]}}, nor one of these ({reason}).'
        ) from error
    return Splits(source=path.name, folds=folds)


def _read_fold(entry: dict[str, Any]) -> Fold:
    """One fold; the validation cases are called `val` or `validation`."""
    return Fold.model_validate(
        {"train": entry["train"], "validation": entry["validation" if "validation" in entry else "val"]}
    )


def _check_names(path: Path, splits: Splits, known: set[str]) -> None:
    """Refuse folds of other cases, and folds that cannot train."""
    faults = [] if splits.folds else ["no folds; give at least one, or remove the file"]
    for number, fold in enumerate(splits.folds):
        unknown = sorted({*fold.train, *fold.validation} - known)
        if unknown:
            faults.append(
                f"fold {number}: cases {', '.join(unknown)} are not in the data set; mend the names"
            )
        if not fold.train:
            faults.append(f"fold {number}: no training cases")
        for part, names in (("train", fold.train), ("validation", fold.validation)):
            repeated = sorted({name for name in names if names.count(name) > 1})
            if repeated:
                faults.append(f"fold {number}: {', '.join(repeated)} more than once in {part}")
    refuse_faults(path, faults)


def _draw_splits(dataset: RawDataset, seed: int) -> Splits:
    """Draw folds as scikit-learn's `KFold(5, shuffle=True)` does, which nnU-Net uses."""
    names = sorted(case.name for case in dataset.cases)
    if len(names) < 2:
        raise InputError(
            f"{dataset.path}: {len(names)} case, but training and validation need at least 2; "
            f"add cases, or write the fold yourself in {OUR_FILE}."
        )
    # The legacy generator: only its shuffle gives nnU-Net's folds, and its stream is frozen by numpy.
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
    return Splits(source=f"{len(folds)} folds drawn with seed {seed}", folds=tuple(folds))
