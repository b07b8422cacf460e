"""Strict reading of NIfTI-1 headers.

Source: the NIfTI-1 header, https://nifti.nimh.nih.gov/nifti-1.
"""

import io
import logging
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float64

from scanseg.errors import InputError
from scanseg.imaging.streams import Stream

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Header

Rule = Literal["sform", "qform", "pixdim"]

_HEADER_BYTES = 348
_NIFTI2_HEADER_BYTES = 540
_VOXELS_BEGIN = 352
"""Bytes before the voxels of a file without extensions."""
_MAX_EXTENSION_BYTES = 1 << 28
_VECTOR_INTENT = 1007
_RGB_CODES = {128: 3, 2304: 4}
"""Codes of colours of 8 bits, and their number of channels."""
_UNREADABLE = {0: "unknown", 1: "single bits", 1536: "float128", 2048: "complex256"}
"""Codes of voxel types that are never read."""
_COMPLEX_CODES = (32, 1792)
_SILENT = logging.Logger("scanseg.nifti", level=logging.CRITICAL + 1)
"""Logger for nibabel's checks, which otherwise write to the terminal."""


@dataclass(frozen=True, eq=False)
class ParsedHeader:
    """Valid header of a single-file NIfTI-1 image."""

    shape: tuple[int, ...]
    """Voxels along x, y or x, y, z."""
    num_channels: int
    dtype: np.dtype[Any]
    """Type of the numbers in the file, with its byte order."""
    is_colour: bool
    """Channels are the last axis in memory. Otherwise they are the first one."""
    offset: int
    """Bytes before the first voxel."""
    scale: tuple[float, float] | None
    """Slope and intercept of the intensities. `None`: stored values are the intensities."""
    rule: Rule
    """Fields that give the affine."""
    affine: Float64[np.ndarray, "4 4"]
    """Voxel indices x, y, z to mm in the order right, anterior, superior, as nibabel returns it."""
    qform: Float64[np.ndarray, "4 4"] | None
    """Affine of the qform. `None`: its code is 0, or its quaternion is longer than 1."""
    raw: "Nifti1Header"
    """Fields as stored."""

    @property
    def num_bytes(self) -> int:
        """Bytes of all voxels."""
        return math.prod(self.shape) * self.num_channels * self.dtype.itemsize


def read_header(path: Path, stream: Stream) -> ParsedHeader:
    """Read and check a header, including its extensions.

    Args:
        path: The file, for messages.
        stream: Stream at the begin of the file. Afterwards it is at the first voxel.

    Raises:
        InputError: A field is invalid, the header is of another format, or the file ends early.
    """
    from nibabel.nifti1 import Nifti1Header

    block = _read(path, stream, _VOXELS_BEGIN)
    order = _find_byte_order(path, block)
    _check_magic(path, block)
    raw = Nifti1Header(block[:_HEADER_BYTES], endianness=order, check=False)
    shape, num_channels, is_colour = _read_shape(path, raw)
    dtype = _read_dtype(path, raw)
    offset = _read_offset(path, raw)
    scale = _read_scale(path, raw, is_colour=is_colour)
    rule = _check_position(path, raw, len(shape))
    fixed = raw.copy()
    try:
        fixed.check_fix(logger=_SILENT)
        affine = np.asarray(fixed.get_best_affine(), dtype=np.float64)
    except Exception as error:  # nibabel raises errors of several kinds
        raise InputError(f"{path}: expected a valid header, got a fault: {error}. Fix the header.") from error
    _read_extensions(path, stream, block, offset=offset, swapped=raw.endianness != Nifti1Header().endianness)
    return ParsedHeader(
        shape=shape,
        num_channels=num_channels,
        dtype=dtype,
        is_colour=is_colour,
        offset=offset,
        scale=scale,
        rule=rule,
        affine=affine,
        qform=_read_qform(fixed),
        raw=raw,
    )


def _read(path: Path, stream: Stream, num_bytes: int) -> bytes:
    """Read a part of the file before its voxels."""
    if num_bytes > stream.max_bytes:
        raise _truncated(path, num_bytes, stream.max_bytes)
    target = np.empty(num_bytes, dtype=np.uint8)
    got = stream.fill(target)
    if got < num_bytes:
        raise _truncated(path, num_bytes, got)
    return target.tobytes()


def _truncated(path: Path, expected: int, got: int) -> InputError:
    """Return the error of a file that ends before its voxels."""
    return InputError(
        f"{path}: truncated: expected {expected} bytes before its voxels, got at most {got}. Copy or download it "
        "again."
    )


def _find_byte_order(path: Path, block: bytes) -> Literal["<", ">"]:
    """Return the byte order, in which the header size is 348."""
    sizes = {int.from_bytes(block[:4], "little", signed=True), int.from_bytes(block[:4], "big", signed=True)}
    if _NIFTI2_HEADER_BYTES in sizes:
        raise InputError(
            f"{path}: expected NIfTI-1, got NIfTI-2. Save it as NIfTI-1, such as with "
            "nibabel.Nifti1Image.from_image(nibabel.load(FILE)).to_filename(FILE)."
        )
    if _HEADER_BYTES not in sizes:
        raise InputError(
            f"{path}: damaged, or in another format than its ending: expected a header of {_HEADER_BYTES} bytes, got "
            f"{int.from_bytes(block[:4], 'little', signed=True)}. Copy or download it again."
        )
    return "<" if int.from_bytes(block[:4], "little") == _HEADER_BYTES else ">"


def _check_magic(path: Path, block: bytes) -> None:
    """Check that header and voxels are in one NIfTI-1 file."""
    magic = block[344:348]
    if magic == b"ni1\0":
        raise InputError(
            f"{path}: expected one file with header and voxels, got the header of a .hdr/.img pair. Save it as a "
            "single .nii file."
        )
    if magic != b"n+1\0":
        raise InputError(
            f"{path}: damaged, or in another format such as Analyze 7.5: expected the magic 'n+1', got "
            f"{magic.decode('latin-1')!r}. Save it as NIfTI-1."
        )


def _read_shape(path: Path, raw: "Nifti1Header") -> tuple[tuple[int, ...], int, bool]:
    """Return spatial shape, number of channels, and true for colours.

    The shape is in the order x, y, z.
    """
    num_dims, *dims = (int(size) for size in raw["dim"])
    if not 1 <= num_dims <= 7:
        raise InputError(f"{path}: dim: expected 1 to 7 axes, got {num_dims}. Fix the header.")
    sizes = dims[:num_dims]
    if min(sizes) < 1:
        raise InputError(f"{path}: dim: expected sizes above 0, got {tuple(sizes)}. Fix the header.")
    while len(sizes) > 3 and sizes[-1] == 1:
        sizes.pop()
    colours = _RGB_CODES.get(int(raw["datatype"]), 0)
    if len(sizes) in (2, 3):
        return tuple(sizes), colours or 1, bool(colours)
    if len(sizes) == 4 and not colours:
        return tuple(sizes[:3]), sizes[3], False
    if len(sizes) == 5 and sizes[3] == 1 and int(raw["intent_code"]) == _VECTOR_INTENT and not colours:
        return tuple(sizes[: 2 if sizes[2] == 1 else 3]), sizes[4], False
    raise InputError(
        f"{path}: expected 2 or 3 spatial axes and at most one channel axis, got shape {tuple(dims[:num_dims])} "
        f"(file order){' of colours' if colours else ''}. Save each time point or volume as a file of its own."
    )


def _read_dtype(path: Path, raw: "Nifti1Header") -> np.dtype[Any]:
    """Return the type of the numbers in the file."""
    code, bits = int(raw["datatype"]), int(raw["bitpix"])
    if code in _COMPLEX_CODES:
        raise InputError(
            f"{path}: expected real values, got complex ones. Save the magnitude, or the real and imaginary parts as "
            "channels."
        )
    from nibabel.nifti1 import data_type_codes

    if code in _UNREADABLE or code not in data_type_codes.value_set():
        raise InputError(
            f"{path}: datatype: expected integers or floats of 8 to 64 bits, got "
            f"{_UNREADABLE.get(code, f'the unknown code {code}')}. Save it as another type, such as float32."
        )
    dtype = raw.get_data_dtype()
    if bits != dtype.itemsize * 8:
        raise InputError(
            f"{path}: bitpix: expected {dtype.itemsize * 8} for datatype {code}, got {bits}. Fix the header."
        )
    return np.dtype(np.uint8) if code in _RGB_CODES else dtype


def _read_offset(path: Path, raw: "Nifti1Header") -> int:
    """Return the number of bytes before the voxels."""
    offset = float(raw["vox_offset"])
    if not (_VOXELS_BEGIN <= offset <= _MAX_EXTENSION_BYTES and offset.is_integer()):
        raise InputError(
            f"{path}: vox_offset: expected a whole number from {_VOXELS_BEGIN} to {_MAX_EXTENSION_BYTES}, got "
            f"{offset:g}. Fix the header."
        )
    return int(offset)


def _read_scale(path: Path, raw: "Nifti1Header", *, is_colour: bool) -> tuple[float, float] | None:
    """Return slope and intercept. `None`: no scaling."""
    slope, intercept = float(raw["scl_slope"]), float(raw["scl_inter"])
    if slope == 0 or math.isnan(slope):  # as nibabel: no scaling
        return None
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise InputError(
            f"{path}: expected finite numbers in scl_slope and scl_inter, got {slope:g} and {intercept:g} (NaN is not "
            "a number). Fix the header."
        )
    if (slope, intercept) == (1, 0):
        return None
    if is_colour:
        raise InputError(
            f"{path}: expected colours without scaling, got scl_slope {slope:g} and scl_inter {intercept:g}. Set them "
            "to 1 and 0."
        )
    return slope, intercept


def _check_position(path: Path, raw: "Nifti1Header", num_axes: int) -> Rule:
    """Check the position fields, and return the ones to use."""
    codes = {name: int(raw[f"{name}_code"]) for name in ("sform", "qform")}
    _check_codes(path, codes)
    _check_finite(path, raw, codes)
    if codes["sform"]:
        return "sform"
    sizes = raw["pixdim"][1 : num_axes + 1]
    if not (sizes != 0).all():
        raise InputError(
            f"{path}: expected spacings above 0 mm in pixdim, got {_texts(sizes)}. Fix the header."
        )
    if not codes["qform"]:
        return "pixdim"
    squared = sum(float(raw[f"quatern_{name}"]) ** 2 for name in "bcd")
    if squared > 1 + float(raw.quaternion_threshold):
        raise InputError(
            f"{path}: qform: expected a quaternion of length at most 1, got {squared**0.5:.7g}. Fix the header."
        )
    return "qform"


def _check_codes(path: Path, codes: Mapping[str, int]) -> None:
    """Check the codes of sform and qform."""
    from nibabel.nifti1 import xform_codes

    known = xform_codes.value_set()
    for name, code in codes.items():
        if code not in known:
            raise InputError(
                f"{path}: {name}_code: expected one of {sorted(known)}, got {code}. Fix the header."
            )


def _check_finite(path: Path, raw: "Nifti1Header", codes: Mapping[str, int]) -> None:
    """Check the fields that place the image for NaN and infinities.

    Forms of code 0 are not used, so they are not checked.
    """
    fields = {"pixdim": raw["pixdim"][:4]}
    if codes["sform"]:
        fields["sform"] = np.concatenate([raw["srow_x"], raw["srow_y"], raw["srow_z"]])
    if codes["qform"]:
        names = [*(f"quatern_{name}" for name in "bcd"), *(f"qoffset_{name}" for name in "xyz")]
        fields["qform"] = np.array([raw[name] for name in names])
    for name, values in fields.items():
        if not np.isfinite(values).all():
            raise InputError(
                f"{path}: {name}: expected finite numbers, got {_texts(values)} (NaN is not a number). Fix the header."
            )


def _texts(values: np.ndarray) -> str:
    """Return numbers as short text."""
    return ", ".join(f"{float(value):g}" for value in values)


def _read_qform(fixed: "Nifti1Header") -> Float64[np.ndarray, "4 4"] | None:
    """Return the affine of the qform, or `None` if it has none."""
    if not int(fixed["qform_code"]):
        return None
    try:
        return np.asarray(fixed.get_qform(), dtype=np.float64)
    except ValueError:  # the quaternion is longer than 1, and the sform is used
        return None


def _read_extensions(path: Path, stream: Stream, block: bytes, *, offset: int, swapped: bool) -> None:
    """Read up to the first voxel, and check the extensions."""
    from nibabel.nifti1 import Nifti1Extensions

    content = _read(path, stream, offset - _VOXELS_BEGIN)
    if block[_HEADER_BYTES] == 0:
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Nifti1Extensions.from_fileobj(io.BytesIO(content), len(content), swapped)
    except Exception as error:  # nibabel raises errors of several kinds
        raise InputError(
            f"{path}: expected valid header extensions, got damaged ones. Remove them."
        ) from error
