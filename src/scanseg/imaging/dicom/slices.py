"""Headers of the slices of a series."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from scanseg.errors import InputError
from scanseg.imaging.dicom.container import Member
from scanseg.imaging.dicom.objects import explained, is_deflated, read_header

if TYPE_CHECKING:
    from pydicom import Dataset

_TAGS = (
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"),
    *("PatientID", "Modality", "SeriesNumber", "SeriesDescription", "ImageType", "Rows", "Columns"),
    *("NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "PixelSpacing", "SliceThickness"),
    *("SpacingBetweenSlices", "ImagePositionPatient", "ImageOrientationPatient", "BitsAllocated"),
    *("BitsStored", "PixelRepresentation", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *("PerFrameFunctionalGroupsSequence",),
)
_OTHER_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.66.4",  # Segmentation
    "1.2.840.10008.5.1.4.1.1.66.7",  # Label Map Segmentation
    "1.2.840.10008.5.1.4.1.1.30",  # Parametric Map
    "1.2.840.10008.5.1.4.1.1.481.2",  # RT Dose
)
"""SOP classes with pixels that are no images of a patient."""
_DIRECTORY = "1.2.840.10008.1.3.10"
"""SOP class of the file `DICOMDIR`."""
_PIXELS = {False: b"\xe0\x7f\x10\x00", True: b"\x7f\xe0\x00\x10"}
"""Tag of the pixels by byte order (true: big endian)."""


@dataclass(frozen=True)
class Slice:
    """Header of one object of a series."""

    member: Member
    instance: str
    """SOP instance UID."""
    context: tuple[str, str, str]
    """Patient ID, study UID and UID of the frame of reference."""
    shape: tuple[int, int]
    """Rows and columns."""
    spacing: tuple[float, ...] | None
    """Millimetres per pixel along y and x. `None`: missing or invalid."""
    thickness: float | None
    """Distance of slices or thickness of the slice in mm. `None`: missing or invalid."""
    position: tuple[float, ...] | None
    """Position of the first pixel in mm, in the order x, y, z. `None`: missing or invalid."""
    orientation: tuple[float, ...] | None
    """Direction cosines of x, then of y. `None`: missing or invalid."""
    scaling: tuple[float, float]
    """Rescale slope and intercept."""
    bits: tuple[int, bool]
    """Stored bits, and whether values are signed."""
    fault: str | None
    """Reason why the object is no readable slice. `None`: it may be one."""
    is_localizer: bool


@dataclass(frozen=True)
class SliceOfSeries:
    """A slice, and the series to which it belongs."""

    slice: Slice
    uid: str
    """Series instance UID."""
    modality: str
    number: str
    """Series number. Empty: missing."""
    description: str
    """Description of the series. Empty: missing."""


def read_slice(file: BinaryIO, member: Member, where: str) -> SliceOfSeries | str | None:
    """Read the header of a DICOM object.

    Args:
        file: The open file.
        member: The file in its folder or zip file.
        where: Name for messages.

    Returns:
        The slice, or the name of its kind if it is no image. `None`: a directory of DICOM files.

    Raises:
        InputError: The file is damaged.
    """
    if is_deflated(file, where):
        raise InputError(
            f"{where}: expected a DICOM file whose pixels alone are compressed, got a deflated one. Convert it, for "
            "example by dcmconv +te."
        )
    dataset = read_header(file, where, tags=_TAGS)
    with explained(where):
        kind = dataset.get("SOPClassUID") or dataset.file_meta.MediaStorageSOPClassUID
        if kind == _DIRECTORY:
            return None
        if "Rows" not in dataset or kind in _OTHER_CLASSES:
            return str(kind.name)
        fault = _find_fault(dataset)
        if fault is None:
            _check_pixels(file, dataset, member)
        return SliceOfSeries(
            _to_slice(dataset, member, fault),
            uid=str(dataset.SeriesInstanceUID),
            modality=str(dataset.get("Modality") or ""),
            number=str(_text(dataset, "SeriesNumber")),
            description=str(dataset.get("SeriesDescription") or ""),
        )


def _to_slice(dataset: "Dataset", member: Member, fault: str | None) -> Slice:
    """Return the checked values of a header."""
    thickness = _numbers(dataset, "SpacingBetweenSlices", 1) or _numbers(dataset, "SliceThickness", 1)
    return Slice(
        member,
        instance=str(dataset.SOPInstanceUID),
        context=(
            _text(dataset, "PatientID"),
            _text(dataset, "StudyInstanceUID"),
            _text(dataset, "FrameOfReferenceUID"),
        ),
        shape=(int(dataset.Rows), int(dataset.Columns)),
        spacing=_numbers(dataset, "PixelSpacing", 2),
        thickness=abs(thickness[0]) if thickness else None,
        position=_numbers(dataset, "ImagePositionPatient", 3),
        orientation=_numbers(dataset, "ImageOrientationPatient", 6),
        scaling=(_number(dataset, "RescaleSlope", 1.0), _number(dataset, "RescaleIntercept", 0.0)),
        bits=(_count_bits(dataset), bool(dataset.get("PixelRepresentation"))),
        fault=fault,
        is_localizer="LOCALIZER" in (dataset.get("ImageType") or ()),
    )


def _count_bits(dataset: "Dataset") -> int:
    """Return the number of stored bits.

    Raises:
        ValueError: Values of this size cannot be read.
    """
    allocated = int(dataset.BitsAllocated)
    stored = int(dataset.get("BitsStored") or allocated)
    if allocated not in (8, 16, 32) or not 0 < stored <= allocated:
        raise ValueError(f"{stored} of {allocated} bits")
    return stored


def _text(dataset: "Dataset", keyword: str) -> str:
    """Return a value as text. Missing values are empty."""
    value = dataset.get(keyword)
    return "" if value is None else str(value)


def _numbers(dataset: "Dataset", keyword: str, count: int) -> tuple[float, ...] | None:
    """Return finite numbers of a header. `None`: they are missing or invalid."""
    value = dataset.get(keyword)
    if value is None or value == "":
        return None
    values: Sequence[object] = [value] if isinstance(value, str | float | int) else list(value)
    try:
        numbers = tuple(float(str(each)) for each in values)
    except ValueError:
        return None
    return numbers if len(numbers) == count and all(map(math.isfinite, numbers)) else None


def _number(dataset: "Dataset", keyword: str, default: float) -> float:
    """Return a number of a header.

    Raises:
        ValueError: The value is invalid.
    """
    if dataset.get(keyword) in (None, ""):
        return default
    numbers = _numbers(dataset, keyword, 1)
    if numbers is None:
        raise ValueError(f"{keyword} is no finite number")
    return numbers[0]


def _find_fault(dataset: "Dataset") -> str | None:
    """Return the reason why an object is no slice."""
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1 or "PerFrameFunctionalGroupsSequence" in dataset:
        return (
            "expected one slice per file, got a multi-frame object. Convert it to NIfTI, for example by dcm2niix, or "
            "export it as single frames"
        )
    photometric = str(dataset.get("PhotometricInterpretation"))
    if int(dataset.get("SamplesPerPixel") or 1) > 1 or not photometric.startswith("MONOCHROME"):
        return f"expected grey values, got colours ({photometric}). Give a series of grey values"
    if photometric != "MONOCHROME2":
        return (
            f"expected values that grow with brightness, got {photometric}. Convert the series to MONOCHROME2"
        )
    if "ModalityLUTSequence" in dataset:
        return (
            "expected a rescale slope and intercept, got a modality lookup table. Convert the series to NIfTI"
        )
    return _find_compression_fault(dataset)


def _find_compression_fault(dataset: "Dataset") -> str | None:
    """Return the reason why pixels cannot be decoded."""
    from pydicom.pixels import get_decoder

    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        is_available = get_decoder(syntax).is_available
    except NotImplementedError:
        is_available = False
    if is_available:
        return None
    return (
        f"expected pixels that an installed decoder reads, got the transfer syntax {syntax.name} ({syntax}). Install a "
        "decoder by pip install python-gdcm, or decompress the series, for example by gdcmconv --raw"
    )


def _check_pixels(file: BinaryIO, dataset: "Dataset", member: Member) -> None:
    """Check that a file holds all of its uncompressed pixels.

    Raises:
        ValueError: Pixels are missing.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    start = file.tell()
    tag = file.read(4)
    if tag != _PIXELS[not syntax.is_little_endian]:
        raise ValueError("no pixels")
    expected = int(dataset.Rows) * int(dataset.Columns) * int(dataset.BitsAllocated) // 8
    available = member.num_bytes - start - (8 if syntax.is_implicit_VR else 12)
    if not syntax.is_compressed and available < expected:
        raise ValueError(f"{max(available, 0)} bytes of pixels instead of {expected}")
