"""DICOM series for tests, written by pydicom."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian

STUDY = "1.2.826.0.1.3680043.8.498.1"
SERIES = "1.2.826.0.1.3680043.8.498.2"
FRAME = "1.2.826.0.1.3680043.8.498.3"


def make_slice(
    pixels: np.ndarray,
    position: Sequence[float],
    *,
    number: int = 1,
    spacing: Sequence[float] = (0.5, 0.75),
    orientation: Sequence[float] = (1, 0, 0, 0, 1, 0),
    series: str = SERIES,
    **fields: Any,
) -> Dataset:
    """Return one CT slice.

    Args:
        pixels: Stored values (y, x) of 8, 16 or 32 bits.
        position: Of the first pixel in mm, along x, y, z.
        number: Instance number.
        spacing: Along y, x in mm.
        orientation: Direction cosines of x and of y.
        series: Series instance UID.
        fields: Further elements, or replacements. `None` removes an element.
    """
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = f"{series}.{number}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = STUDY, series, FRAME
    dataset.PatientID, dataset.PatientName = "P1", "Doe^Jane"
    dataset.PatientBirthDate, dataset.PatientSex = "19700101", "F"
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20260102", "101112", "S1"
    dataset.AccessionNumber, dataset.ReferringPhysicianName = "A1", ""
    dataset.Modality, dataset.SeriesNumber, dataset.InstanceNumber = "CT", 3, number
    dataset.SeriesDescription = "thin"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    bits = 8 * pixels.dtype.itemsize
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit, dataset.PixelRepresentation = bits - 1, int(pixels.dtype.kind == "i")
    dataset.PixelSpacing = [_decimal(value) for value in spacing]
    dataset.ImagePositionPatient = [_decimal(value) for value in position]
    dataset.ImageOrientationPatient = [_decimal(value) for value in orientation]
    dataset.PixelData = np.ascontiguousarray(pixels).tobytes() + b"\0" * (pixels.nbytes % 2)
    for keyword, value in fields.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    return dataset


def save(dataset: Dataset, path: Path, *, implicit: bool = False) -> Path:
    """Write a DICOM file; its folder is created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if implicit:
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True)
    return path


def make_series(
    volume: np.ndarray,
    *,
    spacing: Sequence[float] = (3.0, 0.5, 0.75),
    origin: Sequence[float] = (0.0, 0.0, 0.0),
    direction: Sequence[float] = (1, 0, 0, 0, 1, 0, 0, 0, 1),
    reverse: bool = False,
    **fields: Any,
) -> list[Dataset]:
    """Return the slices of a volume (z, y, x).

    Args:
        volume: Stored values.
        spacing: Along z, y, x in mm.
        origin: Of the first voxel in mm, along x, y, z.
        direction: Rows of the matrix of direction cosines over x, y, z.
        reverse: Number the instances from the last slice.
        fields: Further elements, or replacements, of every slice.
    """
    columns = np.reshape(direction, (3, 3))
    orientation = [*columns[:, 0], *columns[:, 1]]
    count = len(volume)
    return [
        make_slice(
            pixels,
            np.asarray(origin) + index * spacing[0] * columns[:, 2],
            number=count - index if reverse else index + 1,
            spacing=spacing[1:],
            orientation=orientation,
            **fields,
        )
        for index, pixels in enumerate(volume)
    ]


def write_series(folder: Path, volume: np.ndarray, *, names: Sequence[str] = (), **options: Any) -> Path:
    """Write the slices of a volume, `names` are those of the files, and return the folder."""
    for index, dataset in enumerate(make_series(volume, **options)):
        save(dataset, folder / (names[index] if names else f"IM{index:04d}"))
    return folder


def _decimal(value: float) -> str:
    """Return a decimal string of at most 16 characters."""
    return f"{value:.9f}"[:16]
