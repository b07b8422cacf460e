"""Write label maps as DICOM Segmentations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Integer, Shaped

from scanseg.errors import InputError, reason_of
from scanseg.files import written_whole
from scanseg.imaging.dicom.container import opened
from scanseg.imaging.dicom.geometry import stack_slices
from scanseg.imaging.dicom.objects import read_header, without_warnings
from scanseg.imaging.dicom.series import Series, choose_series, list_series
from scanseg.imaging.header import DicomHeader
from scanseg.imaging.image import Image
from scanseg.imaging.palette import make_palette
from scanseg.messages import shortened
from scanseg.specs import TISSUE, Code, SegmentCode, SegmentCodes
from scanseg.version import __version__

if TYPE_CHECKING:
    from highdicom import PixelMeasuresSequence
    from highdicom.seg import Segmentation, SegmentDescription
    from highdicom.sr import CodedConcept
    from pydicom import Dataset

_LONGEST = 64
"""Longest text of a label, a name or a code's meaning, in characters."""
_EMPTY_IF_MISSING = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"),
    *("StudyDate", "StudyTime", "ReferringPhysicianName"),
)
"""Attributes of patient and study that the standard requires, empty if unknown."""
_ARTIFICIAL_INTELLIGENCE = Code(value="123110", scheme="DCM", meaning="Artificial Intelligence")
_FEWEST_PIXELS = 8
"""Fewest pixels of a slice. highdicom 0.28 pads smaller frames to whole bytes, so that readers misplace them."""
_SERIES_NUMBER = 1000
"""Series number of a segmentation. Scanners count from 1."""
_TISSUE = SegmentCode(category=TISSUE, type=TISSUE)


@dataclass(frozen=True)
class Segment:
    """A segment of a DICOM Segmentation."""

    name: str
    """Label of the segment."""
    values: tuple[int, ...]
    """Values of its voxels in the label map. Segments may share values (regions)."""
    code: SegmentCode = _TISSUE
    """Category and type of the segment."""


@dataclass(frozen=True)
class SegmentationSource:
    """Origin of a segmentation, for its header."""

    model: str = "scanseg"
    """Name of the model."""
    digest: str = "unknown"
    """Checksum of the model."""


def can_write_segmentations() -> bool:
    """Return whether the library that writes DICOM Segmentations is installed."""
    return find_spec("highdicom") is not None


def require_writer() -> None:
    """Check that the library that writes DICOM Segmentations is installed.

    Raises:
        InputError: It is missing.
    """
    if not can_write_segmentations():
        raise InputError(
            'DICOM Segmentations: expected the library highdicom, got none. Install it by pip install "scanseg[dicom]".'
        )


def write_segmentation(
    path: Path,
    label_map: Integer[np.ndarray, "z y x"],
    *,
    like: Image,
    segments: Sequence[Segment],
    source: SegmentationSource | None = None,
) -> None:
    """Write a label map as a binary DICOM Segmentation.

    It refers to all instances of the series, has its geometry, and keeps its patient, study and frame of reference.
    Segments are numbered from 1 in their order, also those without voxels. Slices without labels have no frame.

    Args:
        path: File to write. An existing file is replaced.
        label_map: Label values of shape (z, y, x) on the grid of the series.
        like: Image that was read from the series.
        segments: The segments.
        source: Model of the label map. `None`: unknown.

    Raises:
        InputError: highdicom is not installed, the image was not read from a series or its files have changed, the
            shape differs, slices have fewer than 8 pixels, a value has no segment, a name is empty or too long, a value
            of the patient or study is invalid, or the file cannot be written.
    """
    require_writer()
    if not isinstance(like.header, DicomHeader):
        raise InputError(
            f"{path}: expected an image of a DICOM series, got another one. Choose another format."
        )
    _check_label_map(path, label_map, like, segments)
    datasets = _read_sources(like.header)
    try:
        with without_warnings():
            segmentation = _build(datasets, label_map, like, segments, source or SegmentationSource())
            _save(path, segmentation)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: expected headers of {like.header.source} that a segmentation can copy, got an invalid value "
            f"({shortened(str(error), 200)}). Correct it, or choose another format."
        ) from error


def _build(
    datasets: "list[Dataset]",
    label_map: Integer[np.ndarray, "z y x"],
    like: Image,
    segments: Sequence[Segment],
    source: SegmentationSource,
) -> "Segmentation":
    """Return the segmentation of a label map."""
    from highdicom import UID
    from highdicom.seg import Segmentation

    return Segmentation(
        source_images=datasets,
        pixel_array=_to_segments(label_map, segments),
        segmentation_type="BINARY",
        segment_descriptions=_describe(segments, source),
        series_instance_uid=UID(),
        series_number=_SERIES_NUMBER,
        sop_instance_uid=UID(),
        instance_number=1,
        manufacturer="scanseg",
        manufacturer_model_name="scanseg",
        software_versions=__version__,
        device_serial_number=source.digest[:_LONGEST],
        pixel_measures=_measure_pixels(datasets[0], like),
        omit_empty_frames=bool(np.any(label_map)),
        content_label="SEGMENTATION",
        content_description=f"Label map of {source.model}"[:_LONGEST],
        series_description="Segmentation by scanseg",
    )


def _measure_pixels(dataset: "Dataset", like: Image) -> "PixelMeasuresSequence":
    """Return the size of pixels, and the distance of slices as read."""
    from highdicom import PixelMeasuresSequence

    return PixelMeasuresSequence(
        pixel_spacing=dataset.PixelSpacing,
        slice_thickness=dataset.SliceThickness,
        spacing_between_slices=like.spacing[0],
    )


def _save(path: Path, segmentation: "Dataset") -> None:
    """Write a DICOM object under a temporary name, then rename it."""
    if not path.parent.is_dir():
        raise InputError(f"{path}: expected a folder at {path.parent}, got none. Create it first.")
    try:
        with written_whole(path) as temporary:
            segmentation.save_as(temporary)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({reason_of(error)}).") from error


def _check_label_map(path: Path, label_map: np.ndarray, like: Image, segments: Sequence[Segment]) -> None:
    """Check shape and values of a label map, and the segments."""
    if label_map.shape != like.shape:
        raise InputError(
            f"{path}: expected the label map in the shape {like.shape} of the series, got {label_map.shape}."
        )
    if label_map[0].size < _FEWEST_PIXELS:
        raise InputError(
            f"{path}: expected slices of at least {_FEWEST_PIXELS} pixels, got {label_map[0].size}. Choose another "
            "format."
        )
    if label_map.dtype.kind not in "ui":
        raise InputError(f"{path}: expected integers in the label map, got {label_map.dtype}.")
    named = {value for segment in segments for value in segment.values}
    unnamed = sorted({int(value) for value in np.unique(label_map)} - named - {0})
    if not segments or unnamed:
        raise InputError(f"{path}: expected a segment for each label value, got none for {unnamed or 'any'}.")
    wrong = [
        segment.name for segment in segments if not 0 < len(segment.name) <= _LONGEST or "\\" in segment.name
    ]
    if wrong:
        raise InputError(
            f"{path}: expected names of segments of 1 to {_LONGEST} characters without a backslash, got {wrong}."
        )


def _read_sources(header: DicomHeader) -> "list[Dataset]":
    """Read the headers of a series in the order of the volume.

    Raises:
        InputError: The series cannot be read, or has changed.
    """
    series = choose_series([list_series(header.source)], header.uid)
    stack = stack_slices(series)
    if not stack.grid.equals(header.grid):
        raise InputError(
            f"{series.path}: expected the series that was segmented, got changed files. Predict it again."
        )
    with opened(series.source) as open_member:
        datasets = []
        for each in stack.slices:
            with open_member(each.member) as file:
                header_of_slice = read_header(file, series.where(each.member))
            datasets.append(_complete(header_of_slice, series, distance=stack.grid.spacing[0]))
    return datasets


def _complete(dataset: "Dataset", series: Series, *, distance: float) -> "Dataset":
    """Return a header with all attributes that a segmentation copies.

    The distance of slices in mm replaces a missing thickness.

    Raises:
        InputError: The frame of reference is missing.
    """
    for keyword in _EMPTY_IF_MISSING:
        if keyword not in dataset:
            setattr(dataset, keyword, None)
    dataset.SliceThickness = dataset.get("SliceThickness") or distance
    if not dataset.get("FrameOfReferenceUID") or not dataset.get("StudyInstanceUID"):
        raise InputError(
            f"{series.path}: expected the UIDs of the study and of its frame of reference, got none. A segmentation "
            "refers to them. Choose another format."
        )
    return dataset


def _to_segments(
    label_map: Integer[np.ndarray, "z y x"], segments: Sequence[Segment]
) -> Shaped[np.ndarray, "z y x *segment"]:
    """Return the segment of each voxel.

    If segments share values, each has a mask.
    """
    values = [value for segment in segments for value in segment.values]
    if len(set(values)) < len(values):
        return np.stack([np.isin(label_map, segment.values) for segment in segments], axis=-1)
    numbers = np.zeros(max(int(label_map.max(initial=0)), *values) + 1, np.uint16)
    for number, segment in enumerate(segments, start=1):
        numbers[list(segment.values)] = number
    return numbers[label_map]


def _describe(segments: Sequence[Segment], source: SegmentationSource) -> "list[SegmentDescription]":
    """Return the descriptions of the segments."""
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.color import CIELabColor
    from highdicom.seg import SegmentDescription

    algorithm = AlgorithmIdentificationSequence(
        name=source.model[:_LONGEST],
        family=_to_concept(_ARTIFICIAL_INTELLIGENCE),
        version=__version__,
        parameters={"digest": source.digest},
    )
    palette = make_palette()
    return [
        SegmentDescription(
            segment_number=number,
            segment_label=segment.name,
            segmented_property_category=_to_concept(segment.code.category),
            segmented_property_type=_to_concept(segment.code.type),
            algorithm_type="AUTOMATIC",
            algorithm_identification=algorithm,
            display_color=CIELabColor.from_rgb(*palette[3 * (number % 256) : 3 * (number % 256) + 3]),
        )
        for number, segment in enumerate(segments, start=1)
    ]


def _to_concept(code: Code) -> "CodedConcept":
    """Return a code for highdicom."""
    from highdicom.sr import CodedConcept

    return CodedConcept(code.value, code.scheme, code.meaning)


def make_segments(
    labels: Mapping[str, Sequence[int]], codes: SegmentCodes | None = None
) -> tuple[Segment, ...]:
    """Return the segments of labels.

    Args:
        labels: Name to the values of the label or region.
        codes: Codes by name. `None`: none. Other segments are coded as tissue.

    Raises:
        InputError: A code has a name that is no label.
    """
    known = {} if codes is None else codes.segments
    unknown = sorted(set(known) - set(labels))
    if unknown:
        raise InputError(
            f"segment codes: expected names among {', '.join(labels)}, got {', '.join(unknown)}."
        )
    return tuple(Segment(name, tuple(values), known.get(name, _TISSUE)) for name, values in labels.items())
