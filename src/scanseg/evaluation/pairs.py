"""Pairs of a prediction and its reference: search and checks."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from scanseg.errors import InputError, UsageError, refuse_faults
from scanseg.evaluation.aligned import align_maps, read_map, read_maps
from scanseg.imaging import (
    DECODERS,
    MEDICAL_DECODERS,
    Image,
    compare_geometry,
    file_ending,
    is_segmentation_file,
    read_instance_map,
)
from scanseg.messages import counted, listed
from scanseg.settings import as_tuple

_PIECE = 1 << 22
"""Voxels counted at a time."""
_SIDE_ENDINGS = (".json", ".csv", ".md", ".npz", ".raw", ".zraw", ".b2nd", "thumbs.db", "desktop.ini")
"""Endings of files beside label maps that are no label maps: records, probabilities, voxels of headers."""
_MOST_VALUES = 10
"""Maximum number of values in a message."""


@dataclass(frozen=True)
class Pair:
    """A predicted label map and its reference."""

    name: str
    prediction: Path
    reference: Path


@dataclass(frozen=True)
class Pairs:
    """Pairs to compare, and references left out on request."""

    pairs: tuple[Pair, ...]
    """Sorted by name."""
    unpredicted: tuple[str, ...]
    """Names of the references without a prediction, which are left out."""
    warnings: tuple[str, ...] = ()
    """Files of the folders that are no label maps and are left out."""


@dataclass(frozen=True)
class Inspection:
    """Faults and label values of the files of a pair."""

    faults: tuple[str, ...]
    values: frozenset[int]
    """Values other than 0 of both label maps."""
    has_spacing: bool
    """False if the reference is a raster file without spacing."""


def find_pairs(
    predictions: Path,
    references: Path,
    *,
    cases: Sequence[str] | None,
    only_predicted: bool,
    with_segmentations: bool = False,
) -> Pairs:
    """Find the reference of every prediction by case name.

    File endings of a prediction and its reference may differ.

    Args:
        predictions: Folder of predicted label maps, or one file.
        references: Folder of reference label maps, or one file of any name.
        cases: Names of the cases to compare. `None`: all cases in either folder.
        only_predicted: Leave out references without a prediction.
        with_segmentations: Find DICOM Segmentations too.

    Raises:
        UsageError: One path is a folder and the other a file, cases are named for two files, or both `cases` and
            `only_predicted` are given.
        InputError: A path or all label maps are missing, or a file has no counterpart. One message lists all faults.
    """
    cases = None if cases is None else as_tuple(cases)
    _check_arguments(predictions, references, cases=cases, only_predicted=only_predicted)
    if predictions.is_file():
        return Pairs((Pair(case_name(predictions), predictions, references),), ())
    faults: list[str] = []
    predicted, referred = (
        list_label_maps(folder, cases, faults, with_segmentations=with_segmentations)
        for folder in (predictions, references)
    )
    unpredicted = sorted(referred.keys() - predicted.keys()) if only_predicted else []
    candidates = predicted.keys() | referred.keys() if cases is None else set(cases)
    wanted = sorted(candidates - set(unpredicted))
    if cases is None and predicted and referred and not predicted.keys() & referred.keys():
        faults.append(
            f"no common names: predictions are {listed(sorted(predicted))}; references are {listed(sorted(referred))}. "
            "Give each reference the name of its prediction. The references of a converted data set are in its "
            "labelsTs or labelsTr."
        )
    else:
        faults += _missing_faults(predictions, references, wanted, predicted=predicted, referred=referred)
    if not wanted:
        where = predictions if unpredicted else "either folder"
        faults.append(f"no label maps in {where}. Known endings are {', '.join(DECODERS)}.")
    refuse_faults(f"{predictions} and {references}", faults)
    return Pairs(
        tuple(Pair(name, predicted[name], referred[name]) for name in wanted),
        unpredicted=tuple(unpredicted),
        warnings=tuple(
            warning
            for folder in (predictions, references)
            for warning in _left_out(folder, cases, found={*predicted.values(), *referred.values()})
        ),
    )


def _left_out(folder: Path, cases: Collection[str] | None, *, found: Collection[Path]) -> list[str]:
    """Describe hidden files and files of unknown endings.

    Files that predictions and data sets have beside label maps are not mentioned.

    Args:
        folder: Folder of label maps.
        cases: Names of the cases to compare. `None`: all. Otherwise nothing is mentioned.
        found: The label maps.
    """
    if cases is not None:
        return []
    names = {path.name for path in folder.iterdir() if path.is_file()}
    known = {name for name in names if name.lower().endswith(tuple(DECODERS))}
    hidden = sorted(
        name for name in known if name.startswith(".") and not (name.startswith("._") and name[2:] in names)
    )
    others = sorted(
        name
        for name in names - known - {path.name for path in found}
        if not name.startswith(".") and not name.lower().endswith(_SIDE_ENDINGS)
    )
    left_out = [("hidden file", hidden), ("file of unknown ending", others)]
    return [
        f"{folder}: {counted(len(each), kind, kind.replace('file', 'files', 1))} left out: {listed(each)}"
        for kind, each in left_out
        if each
    ]


def _check_arguments(
    predictions: Path, references: Path, *, cases: Sequence[str] | None, only_predicted: bool
) -> None:
    """Raise an error for missing paths and contradictory arguments."""
    for path in (predictions, references):
        if not path.exists():
            raise InputError(f"{path}: no such file or folder.")
    if predictions.is_dir() != references.is_dir():
        raise UsageError(f"{predictions} and {references} must be two folders or two files.")
    if cases is not None and not cases:
        raise UsageError("no cases are named. Name at least one, or leave cases out for all.")
    if cases is not None and only_predicted:
        raise UsageError("cases and only_predicted exclude each other. Leave one out.")
    if predictions.is_file() and (cases is not None or only_predicted):
        raise UsageError("selecting cases is for folders only, and two files are one case.")


def _missing_faults(
    predictions: Path,
    references: Path,
    wanted: Sequence[str],
    *,
    predicted: Collection[str],
    referred: Collection[str],
) -> list[str]:
    """Return a fault for each case without prediction or reference.

    Args:
        predictions: Folder of the predictions.
        references: Folder of the references.
        wanted: Names of the cases to compare.
        predicted: Names of the predictions.
        referred: Names of the references.
    """
    return [
        _missing_file_fault(
            name,
            predictions=None if name in predicted else predictions,
            references=None if name in referred else references,
        )
        for name in wanted
        if name not in predicted or name not in referred
    ]


def _missing_file_fault(name: str, *, predictions: Path | None, references: Path | None) -> str:
    """Return the fault of a case whose prediction or reference is missing.

    Args:
        name: Name of the case.
        predictions: Folder that lacks its prediction, if it does.
        references: Folder that lacks its reference, if it does.
    """
    if predictions and references:
        return f"case {name}: neither in {predictions} nor in {references}. Correct its name (--case)."
    if predictions:
        return (
            f"case {name}: no prediction in {predictions}. Predict it, name the cases to compare (--case), or leave "
            "out references without a prediction (--only-predicted)."
        )
    return f"case {name}: no reference in {references}. Remove the prediction, or name the cases to compare (--case)."


def read_pair(pair: Pair, *, segments: Mapping[str, Sequence[int]] | None = None) -> tuple[Image, Image]:
    """Read the prediction and the reference of a pair.

    Args:
        pair: The files.
        segments: Names of segments in DICOM Segmentations, with their label values. `None`: unknown.

    Raises:
        InputError: A file cannot be read as a label map.
    """
    prediction, reference = read_maps((pair.prediction, pair.reference), segments=segments)
    return prediction, reference


def inspect_pair(
    pair: Pair,
    *,
    known_values: frozenset[int] | None,
    segments: Mapping[str, Sequence[int]] | None = None,
) -> Inspection:
    """Read a pair and return its faults and label values.

    Args:
        pair: The files.
        known_values: Values that may occur. `None`: any value.
        segments: Names of segments in DICOM Segmentations, with their label values. `None`: unknown.
    """
    faults, images = list[str](), dict[Path, Image]()
    for path in (pair.prediction, pair.reference):
        try:
            images[path] = read_map(path, segments)
        except InputError as error:
            is_numbered = not is_segmentation_file(path) and is_instance_map(path)
            advice = f" {_SCORE_INSTANCES}" if is_numbered else ""
            faults.append(f"case {pair.name}: {error}{advice}")
    images = align_maps(images)
    found = {path: _values(image.array) for path, image in images.items()}
    for path, values in found.items():
        unknown = sorted(values - known_values) if known_values is not None else []
        if unknown:
            labels = frozenset(known_values or ()) - {0}
            hint = _mask_hint(values, labels) or _instance_hint(values, labels)
            faults.append(
                f"case {pair.name}: {path} holds the values {_joined(unknown)}, which are no labels. The labels are "
                f"{_joined(sorted(known_values or ()))}. {hint or 'Correct the file, or the labels.'}"
            )
    if known_values is None and len(found) == 2:
        faults += _mask_faults(pair, found[pair.prediction], found[pair.reference])
    if len(images) == 2:
        differences = compare_geometry(images[pair.prediction], images[pair.reference])
        faults += [
            f"case {pair.name}: {pair.prediction} and {pair.reference} differ in {difference}. Resample the "
            "prediction to the reference's grid."
            for difference in differences
        ]
    reference = images.get(pair.reference)
    has_spacing = reference is None or _has_spacing(pair.reference, reference)
    return Inspection(tuple(faults), frozenset().union(*found.values()) - {0}, has_spacing)


def _has_spacing(path: Path, image: Image) -> bool:
    """Return whether an image has a spacing.

    Raster files hold none, except beside TIFF files.
    """
    is_medical = is_segmentation_file(path) or DECODERS[file_ending(path)] in MEDICAL_DECODERS
    return is_medical or any(spacing != 1 for spacing in image.spacing)


def _mask_faults(pair: Pair, predicted: frozenset[int], referred: frozenset[int]) -> list[str]:
    """Return a fault if a mask of 255 meets the label 1."""
    hints = (
        (pair.prediction, _mask_hint(predicted, referred - {0})),
        (pair.reference, _mask_hint(referred, predicted - {0})),
    )
    return [
        f"case {pair.name}: {path} holds 0 and 255, and the other map 0 and 1. {hint}"
        for path, hint in hints
        if hint
    ]


def _mask_hint(values: frozenset[int], labels: frozenset[int]) -> str | None:
    """Return the advice for a mask of 0 and 255, if any."""
    if values - {0} == {255} and labels == {1}:
        return "Replace 255 by 1: (array == 255).astype('uint8')."
    return None


_SCORE_INSTANCES = "If each instance has its own number, score instances by --instances."


def _instance_hint(values: frozenset[int], labels: frozenset[int]) -> str | None:
    """Return the advice for numbers that look like instances, if any."""
    highest = max(values, default=0)
    if values - {0} == set(range(1, highest + 1)) and highest > max(labels, default=0) + 1:
        return f"{_SCORE_INSTANCES} Otherwise correct the file, or the labels."
    return None


def is_instance_map(path: Path) -> bool:
    """Return whether a file can be read as an instance map.

    Args:
        path: The file.
    """
    try:
        read_instance_map(path)
    except InputError:
        return False
    return True


def _joined(values: Sequence[int]) -> str:
    """Return values in brackets, at most ten of them."""
    more = f", ... {len(values)} values up to {values[-1]}" if len(values) > _MOST_VALUES else ""
    return f"[{', '.join(map(str, values[:_MOST_VALUES]))}{more}]"


def list_label_maps(
    folder: Path, cases: Collection[str] | None, faults: list[str], *, with_segmentations: bool = False
) -> dict[str, Path]:
    """Return the label maps of a folder by case name.

    Args:
        folder: Folder of label maps.
        cases: Names of the cases to list. `None`: all.
        faults: List to which a fault is added for each case with several files.
        with_segmentations: List DICOM Segmentations too.
    """
    grouped: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.iterdir()):
        known = path.is_file() and path.name.lower().endswith(tuple(DECODERS))
        known = known or (with_segmentations and is_segmentation_file(path))
        if known and not path.name.startswith(".") and (cases is None or case_name(path) in cases):
            grouped[case_name(path)].append(path)
    faults += [
        f"case {name}: {' and '.join(path.name for path in paths)} in {folder}. Remove all but one."
        for name, paths in grouped.items()
        if len(paths) > 1
    ]
    return {name: paths[0] for name, paths in grouped.items()}


def case_name(path: Path) -> str:
    """Return the case name of a label map.

    It is the file name without the ending.
    """
    return path.stem if is_segmentation_file(path) else path.name[: -len(file_ending(path))]


def _values(label_map: UInt8[np.ndarray, "..."]) -> frozenset[int]:
    """Return the values of a label map.

    Voxels are counted piece by piece, which bounds the memory.
    """
    flat = label_map.reshape(-1)
    pieces = (flat[start : start + _PIECE] for start in range(0, len(flat), _PIECE))
    counts = sum((np.bincount(piece, minlength=256) for piece in pieces), np.zeros(256, np.int64))
    return frozenset(np.flatnonzero(counts).tolist())
