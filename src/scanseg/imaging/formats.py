"""Endings of image files and their decoders."""

from pathlib import Path
from typing import Literal

from scanseg.errors import InputError
from scanseg.imaging.dicom import DICOM_ADVICE, is_dicom

Decoder = Literal["nifti", "itk", "pillow", "tiff"]

DECODERS: dict[str, Decoder] = {
    ".nii.gz": "nifti",
    ".nii": "nifti",
    ".nrrd": "itk",
    ".nhdr": "itk",
    ".mha": "itk",
    ".mhd": "itk",
    ".png": "pillow",
    ".bmp": "pillow",
    ".jpg": "pillow",
    ".jpeg": "pillow",
    ".tif": "tiff",
    ".tiff": "tiff",
}
"""Decoder of each file ending. An ending that contains another one precedes it."""

MEDICAL_DECODERS = ("nifti", "itk")
"""Decoders of formats that hold a position in space."""

LOSSY_ENDINGS = (".jpg", ".jpeg")
"""Endings of files that cannot hold a label map."""

DETACHED_ENDINGS = (".nhdr", ".mhd")
"""Endings of headers whose voxels lie in a second file. They can be read but not written."""


def file_ending(path: Path) -> str:
    """Return the ending of an image file in lower case.

    Args:
        path: The file.

    Raises:
        InputError: The ending is not in `DECODERS`.
    """
    name = path.name.lower()
    for ending in DECODERS:
        if name.endswith(ending):
            return ending
    if is_dicom(path):
        raise InputError(f"{path}: expected an image file, got DICOM. {DICOM_ADVICE}")
    raise InputError(f"{path}: unknown image format. Use one of the endings {', '.join(DECODERS)}.")
