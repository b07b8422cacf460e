"""Check the headers of MetaImage and NRRD files before SimpleITK reads them.

Its readers use some fields without a check. More than ten axes, a file name with percent signs, and long words write
beyond their memory.
"""

import re
from pathlib import Path

from scanseg.errors import InputError
from scanseg.messages import shortened

_MOST_BYTES = 2**16
"""Largest header in bytes."""
_MOST_CHARACTERS = 4096
"""Longest line of a header."""
_LONGEST_WORD = 120
"""Longest word of a field, in bytes. Texts and names of files may be longer."""
_FREE_TEXTS = (b"#", b"content", b"data file", b"datafile", b"ElementDataFile", b"Comment", b"Name")
_AXES = {b"NDims": b"=", b"dimension": b":"}
_DATA_FILES = {b"ElementDataFile": b"=", b"data file": b":", b"datafile": b":"}
_NUMBERED = re.compile(rb"[^%\s]*%0?[0-9]{0,2}d[^%\s]*( +[0-9]{1,6}){3,4}")
"""Name of numbered files with first, last and step: `slice%03d.raw 1 10 1`."""


def check_itk_header(path: Path) -> None:
    """Check the number of axes and the name of the data file in a header.

    Args:
        path: File with the ending of MetaImage or NRRD.

    Raises:
        InputError: The file cannot be read, or a field has a wrong value.
    """
    try:
        with path.open("rb") as stream:
            header = stream.read(_MOST_BYTES)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
    is_nrrd = header.startswith(b"NRRD")
    for line in header.split(b"\n"):
        if is_nrrd and not line.strip():  # the voxels follow
            return
        if is_nrrd:
            _check_words(line, path)
        name, value = _split(line, _AXES)
        if value is not None and value not in (b"1", b"2", b"3", b"4"):
            raise InputError(f"{path}: expected 2 to 4 axes, got {name} {_shown(value)}.")
        name, value = _split(line, _DATA_FILES)
        if value is None:
            continue
        if len(value) > _MOST_CHARACTERS or (b"%" in value and not _NUMBERED.fullmatch(value)):
            raise InputError(f"{path}: expected the name of a file, got {name} {_shown(value)}.")
        if not is_nrrd or value.startswith(b"LIST"):  # voxels or names of files follow
            return


def _check_words(line: bytes, path: Path) -> None:
    """Check that the words of a field are short.

    Raises:
        InputError: A word is too long.
    """
    if b":=" in line or line.startswith(_FREE_TEXTS):
        return
    longest = max(line.split(), key=len, default=b"")
    if len(longest) > _LONGEST_WORD:
        raise InputError(
            f"{path}: expected a header with words of at most {_LONGEST_WORD} bytes, got {_shown(longest)}."
        )


def _split(line: bytes, fields: dict[bytes, bytes]) -> tuple[str, bytes | None]:
    """Return the name and the value of a field in a line. The value is `None` for other fields."""
    for name, separator in fields.items():
        found, separated, value = line.partition(separator)
        if separated and found.strip() == name:
            return name.decode(), value.strip()
    return "", None


def _shown(value: bytes) -> str:
    """Return a value for a message."""
    return shortened(repr(value.decode("latin-1")))
