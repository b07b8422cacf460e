"""Find truncated NIfTI files, which SimpleITK reads without a word, as zeros.

Source: NIfTI-1 and NIfTI-2 headers, https://nifti.nimh.nih.gov.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

from scanseg.errors import InputError

HEADER_BYTES = {1: 348, 2: 540}
PIECE_BYTES = 1 << 20
GZIP_MAGIC = b"\x1f\x8b"


def check_complete(path: Path) -> None:
    """Compare the length of a NIfTI file with what its header announces.

    Args:
        path: A `.nii` or `.nii.gz` file; what is not NIfTI is left for the decoder to refuse.

    Raises:
        InputError: The file ends too early.
    """
    with path.open("rb") as file:
        compressed = file.read(2) == GZIP_MAGIC
    try:
        expected = _announced_bytes(path, compressed=compressed)
        if expected is None:
            return
        actual = _contained_bytes(path, expected) if compressed else path.stat().st_size
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: truncated or damaged ({error}); copy or download it again.") from error
    if actual < expected:
        raise InputError(
            f"{path}: truncated: {actual} bytes of the {expected} that its header announces; "
            "copy or download it again."
        )


def _announced_bytes(path: Path, *, compressed: bool) -> int | None:
    """Bytes of header and voxels by the header; None where it is not that of a single NIfTI file."""
    with gzip.open(path, "rb") if compressed else path.open("rb") as file:
        header = file.read(HEADER_BYTES[2])
    for order in "<>":
        size = struct.unpack_from(f"{order}i", header)[0] if len(header) >= 4 else 0
        if size == HEADER_BYTES[1] and header[344:347] == b"n+1":
            dimensions = struct.unpack_from(f"{order}8h", header, 40)
            bits = struct.unpack_from(f"{order}h", header, 72)[0]
            offset = int(struct.unpack_from(f"{order}f", header, 108)[0])
        elif size == HEADER_BYTES[2] and header[4:7] == b"n+2":
            dimensions = struct.unpack_from(f"{order}8q", header, 16)
            bits = struct.unpack_from(f"{order}h", header, 14)[0]
            offset = struct.unpack_from(f"{order}q", header, 168)[0]
        else:
            continue
        if 1 <= dimensions[0] <= 7:
            return offset + math.prod(dimensions[1 : 1 + dimensions[0]]) * bits // 8
    return None


def _contained_bytes(path: Path, expected: int) -> int:
    """Bytes after decompression; from the gzip trailer where that says what is expected."""
    with path.open("rb") as file:
        file.seek(-4, 2)
        if struct.unpack("<I", file.read(4))[0] == expected % (1 << 32):
            return expected
    total = 0
    with gzip.open(path, "rb") as stream:
        while piece := stream.read(PIECE_BYTES):
            total += len(piece)
    return total
