"""Reading of single DICOM objects by pydicom."""

import struct
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from scanseg.errors import InputError, reason_of
from scanseg.imaging.dicom.recognition import can_read_dicom, dicom_advice
from scanseg.messages import shortened

if TYPE_CHECKING:
    from pydicom import Dataset

_META_START, _META_GROUP = 132, 2
"""Place and group of the elements that name the encoding."""
_lock = threading.RLock()
"""Filters of warnings belong to the whole process."""


def require_reader(path: Path) -> None:
    """Check that the library that reads DICOM is installed.

    Args:
        path: File or folder to read, for the message.

    Raises:
        InputError: It is missing.
    """
    if not can_read_dicom():
        raise InputError(f"{path}: expected an image file, got DICOM. {dicom_advice()}")


@contextmanager
def without_warnings() -> Iterator[None]:
    """Ignore the warnings of pydicom and highdicom.

    They concern values that break a rule of DICOM. Values that are used are checked.
    """
    with _lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def explained(where: str) -> Iterator[None]:
    """Name the file in errors of pydicom.

    Args:
        where: Folder or zip file, and name in it.

    Raises:
        InputError: The block raised an error of pydicom or of one of its decoders.
    """
    from pydicom.errors import BytesLengthException, InvalidDicomError

    of_pydicom = (BytesLengthException, InvalidDicomError)
    faults = (ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, *of_pydicom)
    try:
        with without_warnings():
            yield
    except (*faults, OSError, RuntimeError, TypeError, ValueError, struct.error) as error:
        lacking = getattr(error, "name", None) if isinstance(error, AttributeError) else None
        reason = shortened(f"no {lacking}" if lacking else reason_of(error) or type(error).__name__, 200)
        raise InputError(
            f"{where}: expected a complete DICOM file, got a damaged one ({reason}). Copy it again."
        ) from error


def is_deflated(file: BinaryIO, where: str) -> bool:
    """Return whether an object is compressed as a whole.

    Args:
        file: The open file, at its beginning. Its position is restored.
        where: Folder or zip file, and name in it.

    Raises:
        InputError: The file is damaged.
    """
    from pydicom.filereader import read_dataset

    with explained(where):
        file.seek(_META_START)
        meta = read_dataset(
            file,
            is_implicit_VR=False,
            is_little_endian=True,
            stop_when=lambda tag, *_: tag >> 16 != _META_GROUP,
        )
        values = {element.keyword: element.value for element in meta}
        file.seek(0)
        return bool(values["TransferSyntaxUID"].is_deflated)


def read_header(file: BinaryIO, where: str, *, tags: Sequence[str] | None = None) -> "Dataset":
    """Read a DICOM object up to its pixels.

    The file is then at the beginning of the pixels.

    Args:
        file: The open file.
        where: Folder or zip file, and name in it.
        tags: Keywords of the values to read. `None`: all.

    Raises:
        InputError: The file is damaged.
    """
    from pydicom import dcmread

    with explained(where):
        return dcmread(file, stop_before_pixels=True, specific_tags=None if tags is None else list(tags))


def read_object(file: BinaryIO, where: str) -> "Dataset":
    """Read a whole DICOM object.

    Args:
        file: The open file.
        where: Folder or zip file, and name in it.

    Raises:
        InputError: The file is damaged.
    """
    from pydicom import dcmread

    with explained(where):
        return dcmread(file)
