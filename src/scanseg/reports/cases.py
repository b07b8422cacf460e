"""Cases of a folder of predictions, and the evidence of each."""

import zipfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import Float, Int64, UInt8

from scanseg.dataset import find_images
from scanseg.errors import InputError, refuse_faults
from scanseg.evaluation import list_label_maps, read_maps
from scanseg.imaging import Image, is_segmentation_file, read_geometry, read_image, split_series_path
from scanseg.reports.evidence import (
    EntropyCounts,
    Reliability,
    Shape,
    count_confusion,
    find_box,
    measure_shapes,
    sample_voxels,
)
from scanseg.specs import DatasetSpec, PredictionRecord

_RECORD_FILE = "prediction.json"
_ENTROPY_FOLDER = "entropy"


@dataclass(frozen=True)
class CaseFiles:
    """Files of a predicted case."""

    name: str
    label_map: Path
    images: tuple[Path, ...] = ()
    """Files of the image, one per channel. Empty: not known."""
    probabilities: Path | None = None
    entropy: Path | None = None
    reference: Path | None = None
    warning: str | None = None
    """Unusual property of the image that the prediction reported."""
    segments: Mapping[str, tuple[int, ...]] | None = None
    """Names of segments in DICOM Segmentations, with their label values. `None`: unknown."""

    @property
    def entropy_files(self) -> tuple[Path, ...]:
        """The entropy map. Empty: no entropy."""
        return () if self.entropy is None else (self.entropy,)

    @property
    def num_bytes(self) -> int:
        """Size of the maps on disk."""
        paths = (self.label_map, self.reference, self.probabilities, self.entropy)
        return sum(path.stat().st_size for path in paths if path is not None)


@dataclass(frozen=True, eq=False)
class Evidence:
    """Counts over the voxels of a case."""

    case: str
    shapes: Mapping[str, Shape | None]
    """Size and place of each label in the prediction. `None`: it has no voxel."""
    voxel_ml: float | None
    """Volume of a voxel in ml. `None`: a picture."""
    confusion: Int64[np.ndarray, "reference predicted"] | None = None
    """Voxels by reference and predicted value. `None`: no reference."""
    reliability: Reliability | None = None
    """`None`: no reference or no probabilities."""
    entropy: EntropyCounts | None = None
    """`None`: no reference or no entropy."""
    mean_entropy: float | None = None
    """Mean entropy in the box around the labels. `None`: no entropy."""


@dataclass(frozen=True)
class Predictions:
    """A folder of predictions."""

    folder: Path
    cases: tuple[CaseFiles, ...]
    record: PredictionRecord | None
    """The record of the prediction. `None`: label maps of another origin."""


def find_predictions(
    folder: Path,
    *,
    references: Path | None,
    images: Path | None,
    dataset: DatasetSpec | None,
    with_segmentations: bool = False,
) -> Predictions:
    """Find the label maps of a folder and their other files.

    Args:
        folder: Folder of label maps.
        references: Folder of references with the same names. `None`: no references.
        images: Folder of the images. `None`: the files in the record of the prediction, if they exist.
        dataset: Labels of the maps, channels and file ending of the images. `None`: one channel.
        with_segmentations: Find DICOM Segmentations too.

    Raises:
        InputError: No label maps are found.
    """
    faults: list[str] = []
    maps = list_label_maps(folder, None, faults, with_segmentations=with_segmentations)
    if not maps:
        raise InputError(
            f"{folder}: expected label maps, got none. Give a folder of predictions, a model, or a comparison."
        )
    record_path = folder / _RECORD_FILE
    record = PredictionRecord.read(record_path) if record_path.is_file() else None
    recorded = {} if record is None else {case.case: case for case in record.cases}
    referred = (
        {}
        if references is None
        else list_label_maps(references, None, faults, with_segmentations=with_segmentations)
    )
    others = {} if images is None else _find_images(images, dataset)
    entropies = folder / _ENTROPY_FOLDER
    entropy_maps = list_label_maps(entropies, None, faults) if entropies.is_dir() else {}
    refuse_faults(folder, faults)
    cases = []
    for name, path in sorted(maps.items()):
        case = recorded.get(name)
        listed = others.get(name) or (() if case is None else tuple(map(Path, case.images)))
        found = listed if all(map(_exists, listed)) else ()
        probabilities = folder / f"{name}.npz"
        # Probabilities have no grid in their file. A segmentation lacks slices of the grid on which they were computed.
        has_grid = (
            not is_segmentation_file(path) or name in entropy_maps or (bool(found) and name not in others)
        )
        cases.append(
            CaseFiles(
                name,
                path,
                images=found,
                probabilities=probabilities if has_grid and probabilities.is_file() else None,
                entropy=entropy_maps.get(name),
                reference=referred.get(name),
                warning=None if case is None else case.warning,
                segments=None if dataset is None else dataset.foreground,
            )
        )
    return Predictions(folder, tuple(cases), record)


def _find_images(folder: Path, dataset: DatasetSpec | None) -> dict[str, tuple[Path, ...]]:
    """Return the image files of each case in a folder."""
    ending, channels = (".nii.gz", 1) if dataset is None else (dataset.file_ending, dataset.num_channels)
    found = find_images(folder, file_ending=ending, num_channels=channels)
    return {case.name: tuple(case.images) for case in found.cases}


def _exists(path: Path) -> bool:
    """Return whether an image file or a DICOM series exists."""
    return path.exists() or split_series_path(path) is not None


def read_shown(case: CaseFiles, label_map: Image) -> Image:
    """Read the image of a case. Without one, the picture is black.

    Args:
        case: Files of the case.
        label_map: Label map on the grid of the image.
    """
    if not case.images:
        return replace(label_map, array=label_map.array * 0)
    return read_image(case.images)


def read_case_maps(
    case: CaseFiles, *, like: Sequence[Path]
) -> tuple[Image, UInt8[np.ndarray, "*spatial"] | None]:
    """Read the prediction and the reference of a case.

    DICOM Segmentations lack slices without labels, and are placed on a grid.

    Args:
        case: The files.
        like: Files of an image with the grid for segmentations and the other map. Empty: the grid of the other map.

    Returns:
        The prediction, and the values of the reference. `None`: no reference.

    Raises:
        InputError: A file cannot be read, or a segmentation has other voxels than the image.
    """
    paths = [path for path in (case.label_map, case.reference) if path is not None]
    grid = None
    if any(map(is_segmentation_file, paths)):
        grid = read_geometry(like)
    prediction, *others = read_maps(paths, segments=case.segments, grid=grid)
    return prediction, others[0].array[0] if others else None


def gather_evidence(case: CaseFiles, *, dataset: DatasetSpec) -> Evidence:
    """Read the maps of a case and count.

    Args:
        case: The files.
        dataset: The labels.

    Raises:
        InputError: A file cannot be read, or the shapes differ.
    """
    image, reference = read_case_maps(case, like=case.entropy_files or case.images)
    label_map = image.array[0]
    voxel_ml = float(np.prod(image.spacing)) / 1000 if image.num_axes == 3 else None
    _check_shape(case.reference, reference, label_map)
    box = find_box([each for each in (label_map, reference) if each is not None])
    with ThreadPoolExecutor(1) as reader:  # decompression of probabilities takes as long as everything else
        probabilities = reader.submit(_read_probabilities, case, label_map.shape, box, dataset)
        shapes = measure_shapes(label_map, dataset.foreground)
        entropy = None if case.entropy is None else _read_entropy(case.entropy)
        _check_shape(case.entropy, entropy, label_map)
        mean_entropy = None if entropy is None else float(entropy[box].mean())
        sampled = probabilities.result()
    if reference is None:
        return Evidence(case.name, shapes, voxel_ml, mean_entropy=mean_entropy)
    values = (0, *dataset.label_values)
    confusion = count_confusion(label_map, reference, values, ignore_label=dataset.ignore_label)
    counts, reliability = None, None
    valid = reference[box] != (-1 if dataset.ignore_label is None else dataset.ignore_label)
    if entropy is not None:
        wrong = label_map[box] != reference[box]
        counts = EntropyCounts.of(entropy[box][valid], wrong[valid])
    if sampled is not None:
        places = sample_voxels(label_map.shape, box)
        reliability = measure_reliability(sampled, reference[places], dataset)
    return Evidence(case.name, shapes, voxel_ml, confusion, reliability, counts, mean_entropy)


def _read_probabilities(
    case: CaseFiles, shape: tuple[int, ...], box: tuple[slice, ...], dataset: DatasetSpec
) -> Float[np.ndarray, "output voxel"] | None:
    """Read the probabilities of some voxels in a box.

    Returns:
        Probabilities, or `None` without probabilities or reference.
    """
    if case.probabilities is None or case.reference is None:
        return None
    places = sample_voxels(shape, box)
    return read_sampled(case.probabilities, places, shape=(dataset.num_outputs, *shape))


def measure_reliability(
    probabilities: Float[np.ndarray, "output voxel"],
    reference: UInt8[np.ndarray, " voxel"],
    dataset: DatasetSpec,
) -> Reliability:
    """Compare the confidence of decisions with their correctness.

    Labels have one decision per voxel, the label of the largest probability. Regions have one decision each.

    Args:
        probabilities: Probability of each label or region.
        reference: Reference values.
        dataset: The labels.
    """
    if dataset.ignore_label is not None:
        valid = reference != dataset.ignore_label
        probabilities, reference = probabilities[:, valid], reference[valid]
    if not dataset.has_regions:
        confidence = probabilities.max(axis=0, initial=0.0)
        values = np.array([0, *(values[0] for values in dataset.foreground.values())])
        return Reliability.of(np.clip(confidence, 0, 1), values[probabilities.argmax(axis=0)] == reference)
    masks = np.stack([np.isin(reference, values) for values in dataset.foreground.values()])
    decided = probabilities > 0.5
    confidence = np.where(decided, probabilities, 1 - probabilities)
    return Reliability.of(np.clip(confidence, 0, 1).ravel(), (decided == masks).ravel())


def read_sampled(
    path: Path, places: Sequence[Int64[np.ndarray, " voxel"]], *, shape: tuple[int, ...]
) -> Float[np.ndarray, "output voxel"]:
    """Read the probabilities of some voxels, plane by plane.

    The whole array may be larger than the memory.

    Args:
        path: File `CASE.npz` of a prediction.
        places: Indices of the voxels along each axis, in ascending order of the first.
        shape: Expected shape (output, *spatial).

    Returns:
        Probabilities as float32.

    Raises:
        InputError: The file is damaged or has another shape.
    """
    try:
        with zipfile.ZipFile(path) as archive, archive.open("probabilities.npy") as stream:
            version = np.lib.format.read_magic(stream)
            read_header = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            found, is_fortran, dtype = read_header(stream)
            if found != shape or is_fortran or dtype != np.float16:
                raise InputError(
                    f"{path}: expected probabilities of shape {shape} in float16, got {found} in {dtype}. Predict "
                    "again."
                )
            return _sample_planes(stream, places, shape)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(
            f"{path}: expected probabilities, got a damaged file ({error}). Predict again."
        ) from error


def _sample_planes(
    stream: IO[bytes],
    places: Sequence[Int64[np.ndarray, " voxel"]],
    shape: tuple[int, ...],
) -> Float[np.ndarray, "output voxel"]:
    num_outputs, first, *plane = shape
    bounds = np.searchsorted(places[0], np.arange(first + 1))
    size = int(np.prod(plane)) * 2
    sampled = np.empty((num_outputs, len(places[0])), np.float32)
    for output in range(num_outputs):
        for row in range(first):
            content = stream.read(size)
            if len(content) < size:
                raise EOFError("its end is missing")
            part = slice(bounds[row], bounds[row + 1])
            if part.start < part.stop:
                values = np.frombuffer(content, np.float16).reshape(plane)
                sampled[output, part] = values[tuple(index[part] for index in places[1:])]
    return sampled


def _read_entropy(path: Path) -> Float[np.ndarray, "*spatial"]:
    """Read an entropy map with values from 0 to 1."""
    array = read_image(path).array[0]
    return array.astype(np.float32) / 255 if array.dtype == np.uint8 else array


def _check_shape(path: Path | None, values: np.ndarray | None, label_map: np.ndarray) -> None:
    if values is not None and values.shape != label_map.shape:
        raise InputError(
            f"{path}: expected the shape {label_map.shape} of the prediction, got {values.shape}. Give the file of "
            f"this case."
        )
