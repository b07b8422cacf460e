"""Recognition of DICOM files, which are not read."""

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

DICOM_ADVICE = (
    "Convert each DICOM series to one NIfTI file, for example by: dcm2niix -z y -f CASE_0000 FOLDER"
)
"""Advice for users with DICOM files."""

_ENDINGS = (".dcm", ".dicom", ".ima")
_MAGIC, _MAGIC_OFFSET = b"DICM", 128
_MOST_OPENED = 200
"""Maximum number of files that are searched."""


def is_dicom(path: Path) -> bool:
    """Return whether a file is DICOM, by ending or content.

    Args:
        path: File with or without an ending.
    """
    if path.name.lower().endswith(_ENDINGS):
        return True
    try:
        with path.open("rb") as file:
            file.seek(_MAGIC_OFFSET)
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def find_dicom(paths: Iterable[Path]) -> list[Path]:
    """Return the DICOM files among files and in folders.

    At most 200 files are opened.

    Args:
        paths: Files and folders.
    """
    files = (
        file
        for path in paths
        for file in (path.rglob("*") if path.is_dir() else (path,))
        if file.is_file() and not file.name.startswith(".")
    )
    return [file for file in islice(files, _MOST_OPENED) if is_dicom(file)]
