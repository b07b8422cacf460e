"""Fields of MetaImage and NRRD headers, read before SimpleITK.

Its readers use some fields without a check. More than ten axes, a file name with percent signs, and long words write
beyond their memory. A list with too few file names leaves voxels of arbitrary values.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from scanseg.errors import InputError
from scanseg.messages import counted, shortened

_MOST_BYTES = 2**20
"""Largest header in bytes."""
_MOST_CHARACTERS = 4096
"""Longest line of a header."""
_LONGEST_WORD = 120
"""Longest word of a field, in bytes. Texts and names of files may be longer."""
_FREE_TEXTS = (b"#", b"content", b"data file", b"datafile")
_REPEATED = ("Comment",)
"""Fields that may occur several times."""
_AXES = ("NDims", "dimension")
_DATA_FILES = ("ElementDataFile", "data file")
_NUMBERED = re.compile(r"[^%\s]*%0?[0-9]{0,2}d[^%\s]*( +[0-9]{1,6}){3,4}")
"""Name of numbered files with first, last and step: `slice%03d.raw 1 10 1`."""
_SEPARATOR = re.compile(rb"[=:]")
_ATTACHED = ("LOCAL", "Local", "local")
"""Values of `ElementDataFile` if the voxels follow the header."""


@dataclass(frozen=True)
class ItkFields:
    """Fields of a MetaImage or NRRD header."""

    path: Path
    """File of the header."""
    is_nrrd: bool
    values: Mapping[str, str]
    """Value of each field by its name. Names of NRRD are in lower case and have their spaces."""
    listed: tuple[str, ...]
    """File names that follow `LIST`."""
    num_bytes: int
    """Size of the header. Attached voxels begin there."""

    @property
    def num_axes(self) -> int:
        """Number of all axes. 0: the field is missing."""
        return int(self.values.get("dimension" if self.is_nrrd else "NDims", 0))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Voxels along each axis.

        Raises:
            InputError: They are missing, or no whole numbers above 0.
        """
        name = "sizes" if self.is_nrrd else "DimSize"
        words = self.values.get(name, "").split()
        if len(words) != self.num_axes or not all(word.isdecimal() and int(word) > 0 for word in words):
            raise InputError(
                f"{self.path}: expected {counted(self.num_axes, 'whole number')} above 0 in {name}, got "
                f"{_shown(self.values.get(name, ''))}. Fix the header."
            )
        return tuple(map(int, words))

    @property
    def data_file(self) -> str:
        """File, pattern or `LIST` of the voxels. Empty: attached voxels."""
        value = self.values.get("data file" if self.is_nrrd else "ElementDataFile", "")
        return "" if value in _ATTACHED and not self.is_nrrd else value

    @property
    def data_names(self) -> tuple[str, ...]:
        """Ordered names of the voxel files. Empty: attached voxels."""
        if self.data_file.startswith("LIST"):
            return self.listed
        if "%" not in self.data_file:
            return (self.data_file,) if self.data_file else ()
        pattern, first, last, step = self.data_file.split()[:4]
        return tuple(pattern % number for number in range(int(first), int(last) + 1, max(1, int(step))))


def read_itk_header(path: Path) -> ItkFields:
    """Read a header, and check its axes and data files.

    Args:
        path: File with the ending of MetaImage or NRRD.

    Raises:
        InputError: The file cannot be read, or a field has a wrong value.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(_MOST_BYTES)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
    fields = _parse(path, content)
    for name in _AXES:
        value = fields.values.get(name, "2")
        if value not in ("1", "2", "3", "4"):
            raise InputError(f"{path}: expected 2 to 4 axes, got {name} {_shown(value)}. Fix the header.")
    for name in _DATA_FILES:
        value = fields.values.get(name, "")
        if len(value) > _MOST_CHARACTERS or ("%" in value and not _NUMBERED.fullmatch(value)):
            raise InputError(
                f"{path}: expected the name of a file, got {name} {_shown(value)}. Fix the header."
            )
    if not fields.is_nrrd:  # SimpleITK counts the names of NRRD
        _check_number(fields)
    return fields


def _parse(path: Path, content: bytes) -> ItkFields:
    """Return the fields of a header.

    Raises:
        InputError: A word is too long, a field has two values, or the header does not end.
    """
    is_nrrd = content.startswith(b"NRRD")
    values: dict[str, str] = {}
    position = 0
    while position < len(content):
        end = content.find(b"\n", position)
        end = len(content) if end < 0 else end
        line, position = content[position:end], end + 1
        if is_nrrd and not line.strip():  # the voxels follow
            return ItkFields(path, is_nrrd, values, (), position)
        if is_nrrd:
            _check_words(line, path)
        name, value = _split(line, is_nrrd=is_nrrd)
        if name and values.setdefault(name, value) != value and name not in _REPEATED:
            raise InputError(
                f"{path}: expected one value of {shortened(name)}, got {_shown(values[name])} and {_shown(value)}. Fix "
                "the header."
            )
        if name in _DATA_FILES and (not is_nrrd or value.startswith("LIST")):  # voxels or names follow
            listed = _names(content[position:]) if value.startswith("LIST") else ()
            return ItkFields(path, is_nrrd, values, listed, position)
    if len(content) == _MOST_BYTES:
        raise InputError(
            f"{path}: expected a header of at most {_MOST_BYTES} bytes, got a longer one, damaged data or another "
            "format. Copy or download it again, or save it in its format."
        )
    return ItkFields(path, is_nrrd, values, (), len(content))


def _split(line: bytes, *, is_nrrd: bool) -> tuple[str, str]:
    """Return name and value of a field, or empty texts."""
    found = _SEPARATOR.search(line)
    if found is None or (
        is_nrrd and (line.startswith(b"#") or line[found.start() :].startswith((b":=", b"=")))
    ):
        return "", ""
    name = os.fsdecode(line[: found.start()].strip())
    value = os.fsdecode(line[found.end() :].strip())
    if is_nrrd:
        name = name.lower()
        name = {"datafile": "data file", "lineskip": "line skip", "byteskip": "byte skip"}.get(name, name)
    return name, value


def _names(content: bytes) -> tuple[str, ...]:
    """Return the file names of a list, one on each line.

    A name without a line break is left out, as SimpleITK does not read it.
    """
    return tuple(os.fsdecode(line.strip()) for line in content.split(b"\n")[:-1] if line.strip())


def _check_number(fields: ItkFields) -> None:
    """Check that a MetaImage header names one file per slice.

    Raises:
        InputError: The number of names is another one, or the files have as many axes as the image.
    """
    value = fields.data_file
    is_list = value.startswith("LIST")
    if not is_list and "%" not in value:
        return
    words = value.split()
    num_axes = fields.num_axes - 1
    if is_list and len(words) > 1 and words[1].rstrip("D") not in ("0", str(num_axes)):
        raise InputError(
            f"{fields.path}: expected LIST, with one file of {num_axes} axes for each step along the last axis, got "
            f"{_shown(value)}. Save the image as one file."
        )
    expected, names = fields.sizes[-1], fields.data_names
    if len(names) != expected:
        raise InputError(
            f"{fields.path}: expected {counted(expected, 'file')} of voxels by the last number of DimSize, got "
            f"{counted(len(names), 'name')}. Correct the names, each with a line break, or copy the image again."
        )


def _check_words(line: bytes, path: Path) -> None:
    """Check that the words of a field are short.

    Raises:
        InputError: A word is too long.
    """
    if b":=" in line or line.lower().startswith(_FREE_TEXTS):
        return
    longest = max(line.split(), key=len, default=b"")
    if len(longest) > _LONGEST_WORD:
        raise InputError(
            f"{path}: expected a header with words of at most {_LONGEST_WORD} bytes, got "
            f"{_shown(longest.decode('latin-1'))}. Fix the header."
        )


def _shown(value: str) -> str:
    """Return a value for a message."""
    return shortened(repr(value))
