"""Endings of image files and their decoders."""

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
"""Decoder of each file ending. An ending that contains another one precedes it."""

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
    raise InputError(f"{path}: unknown image format. Use one of the endings {', '.join(DECODERS)}.")
