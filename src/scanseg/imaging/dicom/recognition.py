"""Recognition of DICOM files and of paths of series."""

import re
from collections.abc import Iterable
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

_CONVERSION = "convert each DICOM series to one NIfTI file, for example by: dcm2niix -z y -f CASE_0000 FOLDER"
_ENDINGS = (".dcm", ".dicom", ".ima")
_MAGIC, _MAGIC_OFFSET = b"DICM", 128
_UID = re.compile(r"[0-9]+(\.[0-9]+)+")
_MOST_OPENED = 200
"""Maximum number of files that are searched."""


def can_read_dicom() -> bool:
    """Return whether the library that reads DICOM is installed."""
    return find_spec("pydicom") is not None


def dicom_advice() -> str:
    """Return advice for users with DICOM files."""
    if can_read_dicom():
        return f"Give the folder of the series (scanseg dicom list FOLDER), or {_CONVERSION}"
    return f'Install the reader of series by pip install "scanseg[dicom]", or {_CONVERSION}'


def is_dicom(path: Path) -> bool:
    """Return whether a file is DICOM, by ending or content.

    Args:
        path: File with or without an ending.
    """
    return has_dicom_ending(path.name) or has_dicom_content(path)


def has_dicom_content(path: Path) -> bool:
    """Return whether a file is DICOM by its content.

    Args:
        path: The file.
    """
    try:
        with path.open("rb") as file:
            return begins_as_dicom(file.read(_MAGIC_OFFSET + len(_MAGIC)))
    except OSError:
        return False


def has_dicom_ending(name: str) -> bool:
    """Return whether a name has an ending of DICOM files.

    Args:
        name: Name of a file.
    """
    return name.lower().endswith(_ENDINGS)


def begins_as_dicom(content: bytes) -> bool:
    """Return whether a file begins with the mark of DICOM.

    Args:
        content: At least the first 132 bytes of the file.
    """
    return content[_MAGIC_OFFSET : _MAGIC_OFFSET + len(_MAGIC)] == _MAGIC


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


def split_series_path(path: Path) -> tuple[Path, str | None] | None:
    """Split the path of a series into its source and its UID.

    Args:
        path: `FOLDER`, `FILE.zip`, `FOLDER/UID` or `FILE.zip/UID`.

    Returns:
        The folder or zip file, and the UID if the path has one. `None`: the path names no series.
    """
    if _may_hold_series(path):
        return path, None
    if _UID.fullmatch(path.name) and not path.exists() and _may_hold_series(path.parent):
        return path.parent, path.name
    return None


def _may_hold_series(path: Path) -> bool:
    """Return whether a path is a folder or a zip file."""
    return path.is_dir() or (path.name.lower().endswith(".zip") and path.is_file())
