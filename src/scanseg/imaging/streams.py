"""Sequential reading of plain and gzip-compressed files into given memory."""

import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
from jaxtyping import UInt8

from scanseg.errors import InputError

GZIP_MAGIC = b"\x1f\x8b"
MAX_GZIP_RATIO = 1032
"""Largest number of bytes that deflate makes of one. Source: zlib, "Maximum Compression Factor"."""
_PIECE_BYTES = 1 << 16
_MAX_REST_BYTES = 1 << 26
"""Largest number of bytes after the voxels that are counted."""


class Stream(Protocol):
    """Bytes of a file, in order."""

    max_bytes: int
    """Most bytes that the file can hold after decompression."""

    def fill(self, target: UInt8[np.ndarray, "byte"]) -> int:
        """Read into an array and return the number of bytes.

        It is smaller than the array only at the end of the file.
        """

    def count_rest(self) -> int:
        """Read up to 64 MiB more, and return their number."""


class PlainStream:
    """Bytes of an uncompressed file.

    Args:
        file: The open file.
        num_bytes: Its size.
    """

    def __init__(self, file: BinaryIO, num_bytes: int) -> None:
        self.max_bytes = num_bytes
        self._file = file

    def fill(self, target: UInt8[np.ndarray, "byte"]) -> int:
        """Read into an array and return the number of bytes.

        Args:
            target: Contiguous array.
        """
        view, filled = target.data, 0
        while filled < len(view) and (count := self._file.readinto(view[filled:])):  # type: ignore[attr-defined]
            filled += count
        return filled

    def count_rest(self) -> int:
        """Return the number of remaining bytes."""
        return self.max_bytes - self._file.tell()


class GzipStream:
    """Decompressed bytes of a gzip file with one or more members.

    The decompressor checks the checksum at the end of each member.

    Args:
        path: The file, for messages.
        file: The open file.
        num_bytes: Its size.
    """

    def __init__(self, path: Path, file: BinaryIO, num_bytes: int) -> None:
        self.max_bytes = num_bytes * MAX_GZIP_RATIO
        self._path = path
        self._file = file
        self._pending = b""
        self._member = zlib.decompressobj(zlib.MAX_WBITS | 16)

    def fill(self, target: UInt8[np.ndarray, "byte"]) -> int:
        """Decompress into an array and return the number of bytes.

        Args:
            target: Contiguous array.

        Raises:
            InputError: The data is damaged.
        """
        view, filled = target.data, 0
        while filled < len(view) and (piece := self._next(len(view) - filled)):
            view[filled : filled + len(piece)] = piece
            filled += len(piece)
        return filled

    def count_rest(self) -> int:
        """Decompress the rest and return its number of bytes.

        Raises:
            InputError: The data is damaged, or ends before its checksum.
        """
        count = 0
        while count < _MAX_REST_BYTES and (piece := self._next(_PIECE_BYTES)):
            count += len(piece)
        if count < _MAX_REST_BYTES and not self._member.eof:
            raise InputError(
                f"{self._path}: truncated: expected a checksum after the compressed data, got the end of the file. "
                "Copy or download it again."
            )
        return count + len(self._pending)

    def _next(self, most: int) -> bytes:
        """Return the next decompressed bytes, or no bytes at the end."""
        while True:
            if self._member.eof and not self._begin_member():
                return b""
            data = self._pending or self._file.read(_PIECE_BYTES)
            try:
                piece = self._member.decompress(data, min(most, _PIECE_BYTES * 16))
            except zlib.error as error:
                raise InputError(
                    f"{self._path}: damaged: the compressed data, or its checksum, is wrong. Copy or download it "
                    "again."
                ) from error
            self._pending = self._member.unconsumed_tail
            if piece or (not data and not self._member.eof):
                return piece

    def _begin_member(self) -> bool:
        """Begin the next member, if any. Zeros between members are skipped."""
        rest = self._pending or self._member.unused_data
        while not (rest := rest.lstrip(b"\0")) and (more := self._file.read(_PIECE_BYTES)):
            rest = more
        if len(rest) == 1:
            rest += self._file.read(_PIECE_BYTES)
        self._pending = rest
        if not rest.startswith(GZIP_MAGIC):
            return False
        self._member = zlib.decompressobj(zlib.MAX_WBITS | 16)
        return True


@contextmanager
def open_stream(path: Path) -> Iterator[Stream]:
    """Open a file whose ending names its compression.

    Args:
        path: The file. It is compressed if its name ends in `.gz`.

    Yields:
        The bytes of the file after decompression.

    Raises:
        InputError: The content is compressed and the ending is not, or the reverse.
    """
    with path.open("rb") as file:
        num_bytes = file.seek(0, io.SEEK_END)
        file.seek(0)
        magic = file.read(2)
        file.seek(0)
        named, compressed = path.name.lower().endswith(".gz"), magic == GZIP_MAGIC
        if compressed and not named:
            raise InputError(
                f"{path}: expected an uncompressed file by its ending, got gzip data. Add .gz to its name."
            )
        if named and not compressed:
            raise InputError(
                f"{path}: damaged, or not compressed: expected gzip data by its ending. Copy or download it again, or "
                "remove .gz from its name if it is not compressed."
            )
        yield GzipStream(path, file, num_bytes) if compressed else PlainStream(file, num_bytes)
