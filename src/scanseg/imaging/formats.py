"""Endings of image files, and what reads them."""

from pathlib import Path
from typing import Literal

from scanseg.errors import InputError

Decoder = Literal["itk", "pillow", "tiff"]

DECODERS: dict[str, Decoder] = {
    ".nii.gz": "itk",
    ".nii": "itk",
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
"""What reads the files of each ending; an ending that holds another one comes first."""

LOSSY_ENDINGS = (".jpg", ".jpeg")
"""Endings of files that cannot hold a label map."""

DETACHED_ENDINGS = (".nhdr", ".mhd")
"""Endings of headers whose voxels lie in a second file; read, but not written."""


def file_ending(path: Path) -> str:
    """Return the known ending of a file's name, in lower case.

    Args:
        path: The file.

    Raises:
        InputError: The ending is not a known one.
    """
    name = path.name.lower()
    for ending in DECODERS:
        if name.endswith(ending):
            return ending
    raise InputError(f"{path}: not a known kind of image; known endings are {', '.join(DECODERS)}.")
