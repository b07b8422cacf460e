"""Endings of image files and their decoders."""

from pathlib import Path
from typing import Literal

from scanseg.errors import InputError
from scanseg.imaging.dicom.recognition import dicom_advice, is_dicom, split_series_path

Decoder = Literal["nifti", "itk", "pillow", "tiff", "dicom"]

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
"""Decoder of each file ending. An ending that contains another one precedes it. Series of DICOM have none."""

MEDICAL_DECODERS = ("nifti", "itk", "dicom")
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
        raise InputError(f"{path}: expected an image file, got DICOM. {dicom_advice()}")
    raise InputError(f"{path}: unknown image format. Use one of the endings {', '.join(DECODERS)}.")


def decoder_of(path: Path) -> Decoder:
    """Return the decoder of an image.

    Args:
        path: File of the image, or path of a DICOM series (`FOLDER`, `FILE.zip`, or one of them with `/UID`).

    Raises:
        InputError: The path is no series, and its ending is not in `DECODERS`.
    """
    return "dicom" if split_series_path(path) is not None else DECODERS[file_ending(path)]
