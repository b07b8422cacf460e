"""Open TIFF files, and refuse incomplete ones.

tifffile logs missing pages and files, and fills them with zeros.
"""

import logging
import math
import re
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scanseg.errors import InputError
from scanseg.messages import shortened

if TYPE_CHECKING:
    import tifffile

DECODER_ERRORS = (
    *(OSError, SyntaxError, ValueError, LookupError, ArithmeticError, TypeError, AttributeError),
    *(AssertionError, RuntimeError, zlib.error, struct.error),
)
"""Errors that pillow and tifffile raise for damaged files."""

_OLD_JPEG = 6
_FAULTS = ("missing data", "failed to read", "index out of range", "cannot handle discontiguous")
"""Parts of tifffile's warnings about lost pixels."""
_LONGEST_FAULT = 120


class _Faults(logging.Handler):
    """Messages of tifffile about faults, in the current thread."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep an error, or a warning about lost pixels."""
        message = record.getMessage()
        is_fault = record.levelno >= logging.ERROR or any(part in message.lower() for part in _FAULTS)
        if record.thread == self._thread and is_fault:
            self.messages.append(re.sub(r"^<[^>]*> ", "", message))


@contextmanager
def open_tiff(path: Path) -> Iterator["tifffile.TiffFile"]:
    """Open a TIFF file.

    Every error of the block and of tifffile becomes an `InputError` that names the file.

    Args:
        path: The file.

    Raises:
        InputError: The file is damaged or incomplete, or has another format.
    """
    import tifffile

    logger, faults = logging.getLogger("tifffile"), _Faults()
    logger.addHandler(faults)  # this also keeps the messages off the terminal
    try:
        with tifffile.TiffFile(path) as file:
            yield file
    except (*DECODER_ERRORS, tifffile.TiffFileError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path}: expected a TIFF file, got a damaged one or another format. Save it again."
        ) from error
    finally:
        logger.removeHandler(faults)
    if faults.messages:
        raise _incomplete(path, shortened(faults.messages[0], _LONGEST_FAULT))


def only_series(path: Path, file: "tifffile.TiffFile") -> "tifffile.TiffPageSeries":
    """Return the pages of the picture or stack.

    Thumbnails, masks and lower levels of a pyramid are left out.

    Args:
        path: The file, for messages.
        file: The open file.

    Raises:
        InputError: The file holds several pictures.
    """
    whole = [series for series in file.series if not (series.keyframe.is_reduced or series.keyframe.is_mask)]
    found = whole or list(file.series)
    if len(found) != 1:
        shapes = ", ".join(f"{series.axes} {series.shape}" for series in found[:3])
        raise InputError(
            f"{path}: expected one picture or stack, got {len(found)} pictures of different sizes ({shapes}). Save one "
            "per file."
        )
    return found[0]


def check_segments(path: Path, series: "tifffile.TiffPageSeries") -> None:
    """Check that a file holds all strips or tiles.

    tifffile fills missing and empty ones with zeros, and raises an error for short ones.

    Args:
        path: The file, for messages.
        series: Pages of the picture or stack.

    Raises:
        InputError: A page, strip or tile is missing or empty.
    """
    keyframe = series.keyframe
    if keyframe.compression == _OLD_JPEG:  # its tags may name one stream for all strips
        return
    needed = math.prod(keyframe.chunked)
    for number, page in enumerate(series.pages):
        if page is None:
            raise _incomplete(path, f"no page {number}")
        offsets, counts = np.asarray(page.dataoffsets), np.asarray(page.databytecounts)
        if min(offsets.size, counts.size) < needed:
            found = min(offsets.size, counts.size)
            raise _incomplete(path, f"{found} of {needed} strips or tiles in page {number}")
        if not offsets[:needed].all() or not counts[:needed].all():
            raise _incomplete(path, f"an empty strip or tile in page {number}")


def _incomplete(path: Path, found: str) -> InputError:
    """Return the error for a file without all of its pixels."""
    return InputError(
        f"{path}: damaged or truncated: expected a complete TIFF file, got {found}. Copy or download it again, or save "
        "it again."
    )
