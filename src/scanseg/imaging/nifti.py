"""Detect missing voxels and NaN in NIfTI files.

SimpleITK reads both as zeros without a warning.

Source: NIfTI-1 and NIfTI-2 headers, https://nifti.nimh.nih.gov.
"""

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scanseg.errors import InputError
from scanseg.messages import counted

_HEADER_BYTES = {1: 348, 2: 540}
_PIECE_BYTES = 1 << 22
_GZIP_MAGIC = b"\x1f\x8b"
_FLOAT_TYPES = {16: "f4", 64: "f8"}
"""Codes of floating-point voxel types, whose voxels can be NaN."""


@dataclass(frozen=True)
class _Layout:
    """Position, size and type of the voxels, from the header."""

    offset: int
    """Bytes before the first voxel."""
    num_bytes: int
    """Bytes of all voxels."""
    float_type: str | None
    """NumPy type of floating-point voxels. `None`: integers."""


def check_voxels(path: Path) -> None:
    """Check a NIfTI file for missing voxels, NaN and infinities.

    Args:
        path: A `.nii` or `.nii.gz` file. A file without a NIfTI header passes: the decoder rejects it.

    Raises:
        InputError: The file is truncated, or holds NaN or infinities.
    """
    with path.open("rb") as file:
        compressed = file.read(2) == _GZIP_MAGIC
    try:
        layout = _read_layout(path, compressed=compressed)
        if layout is None:
            return
        expected = layout.offset + layout.num_bytes
        if layout.float_type is not None or (compressed and _trailer_bytes(path) != expected % (1 << 32)):
            actual = _scan(path, layout, compressed=compressed)
        else:
            actual = expected if compressed else path.stat().st_size
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: truncated or damaged ({error}). Copy or download it again.") from error
    if actual < expected:
        raise InputError(
            f"{path}: truncated: expected {expected} bytes from its header, got {actual}. "
            "Copy or download it again."
        )


def describe_not_finite(path: Path, num_nan: int, num_infinite: int, num_voxels: int) -> str:
    """Return the error message for voxels that are NaN or infinite.

    Args:
        path: The file.
        num_nan: Voxels that are NaN.
        num_infinite: Voxels that are infinite.
        num_voxels: All voxels of the file.
    """
    counts = " and ".join(
        f"{counted(number, 'voxel')} {'is' if number == 1 else 'are'} {kind}"
        for number, kind in ((num_nan, "NaN"), (num_infinite, "infinite"))
        if number
    )
    return f"{path}: {counts}, of {num_voxels}. Replace them by a number (often 0)."


def _read_layout(path: Path, *, compressed: bool) -> _Layout | None:
    """Read the header of a single-file NIfTI. `None`: no such header."""
    with gzip.open(path, "rb") if compressed else path.open("rb") as file:
        header = file.read(_HEADER_BYTES[2])
    for order in "<>":
        size = struct.unpack_from(f"{order}i", header)[0] if len(header) >= 4 else 0
        if size == _HEADER_BYTES[1] and header[344:347] == b"n+1":
            dimensions = struct.unpack_from(f"{order}8h", header, 40)
            code, bits = struct.unpack_from(f"{order}2h", header, 70)
            offset = int(struct.unpack_from(f"{order}f", header, 108)[0])
        elif size == _HEADER_BYTES[2] == len(header) and header[4:7] == b"n+2":
            dimensions = struct.unpack_from(f"{order}8q", header, 16)
            code, bits = struct.unpack_from(f"{order}2h", header, 12)
            offset = struct.unpack_from(f"{order}q", header, 168)[0]
        else:
            continue
        if 1 <= dimensions[0] <= 7 and offset >= 0:
            num_bytes = math.prod(dimensions[1 : 1 + dimensions[0]]) * bits // 8
            float_type = f"{order}{_FLOAT_TYPES[code]}" if code in _FLOAT_TYPES else None
            return _Layout(offset, num_bytes, float_type)
    return None


def _trailer_bytes(path: Path) -> int:
    """Return the size after decompression from the gzip trailer.

    It is in bytes, modulo 2^32. The trailer holds the size of the last gzip member only.
    """
    with path.open("rb") as file:
        file.seek(-4, 2)
        size: int = struct.unpack("<I", file.read(4))[0]
    return size


def _scan(path: Path, layout: _Layout, *, compressed: bool) -> int:
    """Count the bytes of header and voxels, and check the values.

    Raises:
        InputError: Values are NaN or infinite.
    """
    num_nan = num_infinite = 0
    with gzip.open(path, "rb") if compressed else path.open("rb") as stream:
        total = len(stream.read(layout.offset))
        while piece := stream.read(min(_PIECE_BYTES, layout.offset + layout.num_bytes - total)):
            total += len(piece)
            if layout.float_type is not None:
                whole = len(piece) - len(piece) % int(layout.float_type[-1])
                values = np.frombuffer(piece[:whole], dtype=layout.float_type)
                if not np.isfinite(values).all():
                    num_nan += int(np.isnan(values).sum())
                    num_infinite += int(np.isinf(values).sum())
    if num_nan or num_infinite:
        num_voxels = layout.num_bytes // int((layout.float_type or "1")[-1])
        raise InputError(describe_not_finite(path, num_nan, num_infinite, num_voxels))
    return total
