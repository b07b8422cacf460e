"""Predictions and the references they are scored against: found, and checked against each other."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from scanseg.errors import InputError, UsageError, refuse_faults
from scanseg.imaging import DECODERS, Image, compare_geometry, file_ending, read_label_map
from scanseg.settings import several

_PIECE = 1 << 22
"""Voxels that are counted at a time."""


@dataclass(frozen=True)
class Pair:
    """A predicted label map and its reference."""

    name: str
    prediction: Path
    reference: Path


@dataclass(frozen=True)
class Pairs:
    """What is compared, and what is left out because that was asked for."""

    pairs: tuple[Pair, ...]
    """Sorted by name."""
    unpredicted: tuple[str, ...]
    """Names of the references that have no prediction."""


@dataclass(frozen=True)
class Inspection:
    """What a look into the files of a pair found."""

    faults: tuple[str, ...]
    values: frozenset[int]
    """Values other than 0 of both label maps."""


def find_pairs(
    predictions: Path, references: Path, *, cases: Sequence[str] | None, only_predicted: bool
) -> Pairs:
    """Find the reference of every prediction by its name; file endings may differ.

    Args:
        predictions: Folder of predicted label maps, or one file.
        references: Folder of reference label maps, or one file, whatever its name.
        cases: Names of the only cases to compare; None: all in either folder.
        only_predicted: Leave out the references that have no prediction.

    Raises:
        UsageError: One is a folder and the other is not, cases are named for files, or for a part that is another.
        InputError: Nothing is there, or a file has no counterpart; all faults are in one message.
    """
    for path in (predictions, references):
        if not path.exists():
            raise InputError(f"{path}: no such file or folder.")
    if predictions.is_dir() != references.is_dir():
        raise UsageError(f"{predictions} and {references} must be two folders or two files.")
    cases = None if cases is None else several(cases)
    if cases is not None and not cases:
        raise UsageError("no cases are named; name at least one, or leave cases out for all.")
    if cases is not None and only_predicted:
        raise UsageError("named cases and only those that are predicted exclude each other; leave one out.")
    if predictions.is_file():
        if cases is not None or only_predicted:
            raise UsageError("a part of the cases is for folders only; two files are one case.")
        return Pairs((Pair(case_name(predictions), predictions, references),), ())
    faults: list[str] = []
    predicted, referred = (list_label_maps(folder, cases, faults) for folder in (predictions, references))
    unpredicted = sorted(referred.keys() - predicted.keys()) if only_predicted else []
    there = predicted.keys() | referred.keys() if cases is None else set(cases)
    wanted = sorted(there - set(unpredicted))
    for name in wanted:
        if name not in predicted and name not in referred:
            faults.append(
                f"case {name}: neither in {predictions} nor in {references}; mend its name (--case)"
            )
        elif name not in predicted:
            faults.append(
                f"case {name}: no prediction in {predictions}; predict it, name the cases to compare (--case), or "
                "leave out what is not predicted (--only-predicted)"
            )
        elif name not in referred:
            faults.append(
                f"case {name}: no reference in {references}; remove the prediction, or name the cases to compare "
                "(--case)"
            )
    if not wanted:
        where = predictions if unpredicted else "either folder"
        faults.append(f"no label maps in {where}; known endings are {', '.join(DECODERS)}")
    refuse_faults(f"{predictions} and {references}", faults)
    return Pairs(
        tuple(Pair(name, predicted[name], referred[name]) for name in wanted), unpredicted=tuple(unpredicted)
    )


def read_pair(pair: Pair) -> tuple[Image, Image]:
    """Read the prediction and the reference of a pair.

    Raises:
        InputError: A file cannot be read as a label map.
    """
    return read_label_map(pair.prediction), read_label_map(pair.reference)


def inspect_pair(pair: Pair, *, known_values: frozenset[int] | None) -> Inspection:
    """Read a pair and say what is wrong with it.

    Args:
        pair: The files.
        known_values: Values that may occur; None: any.
    """
    faults, images = [], {}
    for path in (pair.prediction, pair.reference):
        try:
            images[path] = read_label_map(path)
        except InputError as error:
            faults.append(f"case {pair.name}: {error}")
    found = {path: _values(image.array) for path, image in images.items()}
    for path, values in found.items():
        unknown = sorted(values - known_values) if known_values is not None else []
        if unknown:
            faults.append(
                f"case {pair.name}: {path} holds the values {unknown}, which are no labels; the labels are "
                f"{sorted(known_values or ())}: correct the file, or the labels"
            )
    if len(images) == 2:
        differences = compare_geometry(images[pair.prediction], images[pair.reference])
        faults += [
            f"case {pair.name}: {pair.prediction} and {pair.reference} differ in {difference}; bring the prediction "
            "to the reference's grid"
            for difference in differences
        ]
    return Inspection(tuple(faults), frozenset().union(*found.values()) - {0})


def list_label_maps(folder: Path, cases: Collection[str] | None, faults: list[str]) -> dict[str, Path]:
    """Return the label maps of a folder by case; adds names that are used twice to the faults.

    Args:
        folder: The folder.
        cases: Names of the only cases to list; None: all.
        faults: What is wrong so far.
    """
    grouped: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.iterdir()):
        known = (
            path.is_file() and not path.name.startswith(".") and path.name.lower().endswith(tuple(DECODERS))
        )
        if known and (cases is None or case_name(path) in cases):
            grouped[case_name(path)].append(path)
    faults += [
        f"case {name}: {' and '.join(path.name for path in paths)} in {folder}; remove all but one"
        for name, paths in grouped.items()
        if len(paths) > 1
    ]
    return {name: paths[0] for name, paths in grouped.items()}


def case_name(path: Path) -> str:
    """Return the name of a label map's case: that of the file without its ending."""
    return path.name[: -len(file_ending(path))]


def _values(label_map: UInt8[np.ndarray, "..."]) -> frozenset[int]:
    """Return the values of a label map, counted piece by piece to bound the memory."""
    flat = label_map.reshape(-1)
    pieces = (flat[start : start + _PIECE] for start in range(0, len(flat), _PIECE))
    counts = sum((np.bincount(piece, minlength=256) for piece in pieces), np.zeros(256, np.int64))
    return frozenset(np.flatnonzero(counts).tolist())
