"""Check voxel data of MetaImage and NRRD files before SimpleITK.

SimpleITK accepts damaged zlib data of MetaImage, does not verify the checksum of NRRD's gzip data, and ignores surplus
bytes.
"""

import math
import re
import zlib
from pathlib import Path
from typing import BinaryIO

from scanseg.errors import InputError
from scanseg.imaging.itk_header import ItkFields, read_itk_header
from scanseg.imaging.streams import GZIP_MAGIC
from scanseg.messages import counted

_PIECE_BYTES = 1 << 14
_MOST_SURPLUS = 1 << 26
"""Largest number of decompressed bytes after the voxels that are counted."""
_BYTES_OF_METAIMAGE = {
    **dict.fromkeys(("CHAR", "UCHAR"), 1),
    **dict.fromkeys(("SHORT", "USHORT"), 2),
    **dict.fromkeys(("INT", "UINT", "LONG", "ULONG", "FLOAT"), 4),
    **dict.fromkeys(("LONG_LONG", "ULONG_LONG", "DOUBLE"), 8),
}
_BITS_OF_NRRD = re.compile(r"u?int(8|16|32|64)(_t)?")
_BYTES_OF_NRRD = {"char": 1, "short": 2, "int": 4, "long long": 8, "longlong": 8, "float": 4, "double": 8}
_GZIP = ("gzip", "gz")


def find_voxel_files(path: Path) -> tuple[Path, ...]:
    """Return the existing files of the voxels of a header.

    Args:
        path: File with the ending of MetaImage or NRRD.

    Returns:
        The files in their order. Empty if the voxels follow the header, or the header is damaged.
    """
    try:
        return tuple(file for file in _data_files(read_itk_header(path)) if file.is_file())
    except (InputError, ValueError):  # a name with a NUL character
        return ()


def check_voxels(fields: ItkFields) -> list[str]:
    """Check compressed voxels, and count surplus bytes.

    Args:
        fields: Fields of the header.

    Returns:
        A warning for each file with bytes after the voxels.

    Raises:
        InputError: Compressed data is damaged or incomplete.
    """
    expected = _num_bytes(fields)
    is_compressed, is_raw = _encoding(fields)
    if expected is None or not (is_compressed or is_raw):
        return []
    files = _data_files(fields)
    part = expected // max(1, len(files))
    skips = any(fields.values.get(name, "0") != "0" for name in ("line skip", "byte skip", "HeaderSize"))
    warnings = []
    for file in files or (fields.path,):
        begin = 0 if files else fields.num_bytes
        if not file.is_file() or (skips and (is_raw or "line skip" in fields.values)):
            continue  # SimpleITK refuses missing files
        surplus = (
            _check_stream(fields, file, begin=begin, expected=part)
            if is_compressed
            else file.stat().st_size - begin - part
        )
        if surplus > 0 and not skips:
            warnings.append(f"{file}: expected no bytes after the voxels, got {surplus}. They are ignored.")
    return warnings


def _data_files(fields: ItkFields) -> list[Path]:
    """Return the files of the voxels. Empty: they follow the header."""
    return [fields.path.parent / name for name in fields.data_names]


def _num_bytes(fields: ItkFields) -> int | None:
    """Return the bytes of all voxels. `None`: unknown type."""
    if fields.is_nrrd:
        size = _nrrd_bytes(fields.values.get("type", ""))
    else:
        kind = fields.values.get("ElementType", "").removeprefix("MET_").removesuffix("_ARRAY")
        size = _BYTES_OF_METAIMAGE.get(kind)
    channels = "1" if fields.is_nrrd else fields.values.get("ElementNumberOfChannels", "1")
    if size is None or not channels.isdecimal():
        return None
    return math.prod(fields.sizes) * int(channels) * size


def _nrrd_bytes(kind: str) -> int | None:
    """Return the bytes of an NRRD type, such as `uint16`."""
    kind = kind.lower()
    if found := _BITS_OF_NRRD.fullmatch(kind):
        return int(found[1]) // 8
    name = kind.removeprefix("unsigned ").removeprefix("signed ")
    name = name.removesuffix(" int").removeprefix("u") if name != "int" else name
    return _BYTES_OF_NRRD.get(name)


def _encoding(fields: ItkFields) -> tuple[bool, bool]:
    """Return whether voxels are compressed, and whether they are plain."""
    if fields.is_nrrd:
        encoding = fields.values.get("encoding", "").lower()
        return encoding in _GZIP, encoding == "raw"
    values = fields.values
    if values.get("BinaryData", "False")[:1] not in ("T", "t", "1"):
        return False, False
    is_compressed = values.get("CompressedData", "False")[:1] in ("T", "t", "1")
    return is_compressed, not is_compressed


def _check_stream(fields: ItkFields, file: Path, *, begin: int, expected: int) -> int:
    """Decompress the voxels of a file, and count surplus bytes.

    Raises:
        InputError: The data is damaged or incomplete.
    """
    length = _compressed_bytes(fields, file, begin=begin)
    try:
        with file.open("rb") as stream:
            stream.seek(begin)
            count, is_complete, used = _inflate(stream, length, most=expected + _MOST_SURPLUS, fields=fields)
    except zlib.error as error:
        raise InputError(
            f"{file}: damaged: the compressed data, or its checksum, is wrong. Copy or download it again."
        ) from error
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}). Check the disk.") from error
    if count < expected:
        raise InputError(
            f"{file}: truncated: expected {counted(expected, 'byte')} of voxels after decompression, got {count}. Copy "
            "or download it again."
        )
    if not is_complete:
        raise InputError(
            f"{file}: truncated: expected a checksum after the compressed data, got the end of the data. Copy or "
            "download it again."
        )
    return count - expected + file.stat().st_size - begin - used


def _compressed_bytes(fields: ItkFields, file: Path, *, begin: int) -> int:
    """Return the number of compressed bytes of a file.

    Raises:
        InputError: A MetaImage header does not state it, or the file is shorter.
    """
    available = file.stat().st_size - begin
    if fields.is_nrrd:
        return available
    stated = fields.values.get("CompressedDataSize", "")
    length = int(stated) if stated.isdecimal() else 0
    if not length and file == fields.path:
        raise InputError(
            f"{file}: expected the size of the compressed data in CompressedDataSize, got {stated or 'none'}. Save the "
            "image again."
        )
    if length > available:
        raise InputError(
            f"{file}: truncated: expected {length} bytes of compressed data by CompressedDataSize, got {available}. "
            "Copy or download it again."
        )
    return length or available


def _inflate(stream: BinaryIO, length: int, *, most: int, fields: ItkFields) -> tuple[int, bool, int]:
    """Decompress zlib or gzip data without keeping it.

    Args:
        stream: File at the first compressed byte.
        length: Number of compressed bytes.
        most: Number of decompressed bytes after which reading ends.
        fields: Fields of the header. NRRD data may have several gzip members.

    Returns:
        Number of decompressed bytes, whether the data ended with its checksum, and the number of compressed bytes.
    """
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)
    count, left = 0, length
    while left and not inflater.eof and count <= most:
        data = stream.read(min(_PIECE_BYTES, left))
        if not data:
            break
        left -= len(data)
        count += len(inflater.decompress(data))
        while fields.is_nrrd and inflater.eof and inflater.unused_data.startswith(GZIP_MAGIC):
            data = inflater.unused_data
            inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)
            count += len(inflater.decompress(data))
    return count, inflater.eof or count > most, length - left - len(inflater.unused_data)
