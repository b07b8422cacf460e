"""Read and write NIfTI-1 files.

The position of an image comes from the sform if its code is above 0, otherwise from the qform if its code is above 0,
otherwise from `pixdim`. nibabel, FSL and most viewers use the same rule.
"""

import gzip
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from jaxtyping import Float64, Shaped, UInt8

from scanseg.errors import InputError
from scanseg.imaging.header import ImageGrid, NiftiHeader
from scanseg.imaging.image import DIRECTION_TOLERANCE, ORIGIN_TOLERANCE, SPACING_TOLERANCE, Image
from scanseg.imaging.nifti_header import ParsedHeader, read_header
from scanseg.imaging.right_angles import straighten_axes
from scanseg.imaging.streams import Stream, open_stream
from scanseg.runtime import physical_memory

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Header

_COMPRESSION_LEVEL = 4
_PIECE_BYTES = 1 << 22
_MAX_VOXELS = 32767
"""Largest size of an axis in NIfTI-1."""
_SCALED_VOXELS = 1 << 20
"""Voxels that are scaled at once."""
_PIXDIM_TOLERANCE = SPACING_TOLERANCE / 2
"""Largest relative difference between `pixdim` and the affine's spacing. Two such images still have equal spacings."""
_MILLIMETRE = 2
_UNITS = {1: "metres", 3: "micrometres"}
"""Units of space other than millimetres (2) and unknown (0)."""
_LPS = np.diag((-1.0, -1.0, 1.0))
"""Change of axes between right, anterior, superior (NIfTI) and left, posterior, superior (ITK)."""


def read_nifti(path: Path) -> Image:
    """Read a NIfTI-1 file.

    The last of four axes is the channel axis, and so are the components of vectors and colours. Integers and float32
    with a slope become float32.

    Args:
        path: A `.nii` or `.nii.gz` file.

    Returns:
        The image in the type of the file, with the header and its warnings.

    Raises:
        InputError: The header is invalid, the voxels are missing or damaged, the voxel type is complex, the axes are
            sheared, or the file is NIfTI-2.
    """
    with open_stream(path) as stream:
        header = read_header(path, stream)
        voxels, num_surplus = _read_voxels(path, header, stream)
    array = _to_array(voxels, header)
    return _to_image(path, array, header, num_surplus=num_surplus)


def count_nifti_channels(path: Path) -> int:
    """Count the channels of a NIfTI-1 file from its header.

    Args:
        path: The file.

    Raises:
        InputError: The header is invalid.
    """
    with open_stream(path) as stream:
        return read_header(path, stream).num_channels


def write_nifti(path: Path, array: Shaped[np.ndarray, "*spatial"], like: Image) -> None:
    """Write an array with the position of an image.

    If the image comes from a NIfTI file and has its grid, the position fields of that file are repeated: sform and
    qform with their codes, `pixdim` and `xyzt_units`. Otherwise both forms are written with code 1 (scanner), in mm.

    Args:
        path: The file. It is compressed if its name ends in `.gz`.
        array: Labels or intensities of shape (z, y, x) or (y, x).
        like: Image on whose grid the array lies.

    Raises:
        InputError: NIfTI-1 cannot hold the type or the shape.
        OSError: The file cannot be written.
    """
    from nibabel.nifti1 import Nifti1Header
    from nibabel.spatialimages import HeaderDataError

    header = Nifti1Header()
    try:
        header.set_data_dtype(array.dtype.newbyteorder("="))
    except HeaderDataError as error:
        raise InputError(
            f"{path}: expected integers or floats that NIfTI can hold, got {array.dtype}. Use float32."
        ) from error
    if max(array.shape) > _MAX_VOXELS:
        raise InputError(
            f"{path}: expected at most {_MAX_VOXELS} voxels along each axis for NIfTI, got shape {array.shape}. Use "
            ".nrrd or .mha."
        )
    header["dim"] = (array.ndim, *array.shape[::-1], *(1,) * (7 - array.ndim))
    header["scl_slope"], header["scl_inter"] = 1, 0
    grid = ImageGrid(like.shape, like.spacing, like.origin, like.direction)
    if isinstance(like.header, NiftiHeader) and like.header.grid.equals(grid):
        _repeat_position(header, like.header)
    else:
        _set_position(header, like)
    voxels = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    with path.open("wb") as file:
        if not path.name.lower().endswith(".gz"):
            _write(file, header, voxels)
            return
        with gzip.GzipFile("", "wb", compresslevel=_COMPRESSION_LEVEL, fileobj=file, mtime=0) as compressed:
            _write(compressed, header, voxels)


def _read_voxels(path: Path, header: ParsedHeader, stream: Stream) -> tuple[UInt8[np.ndarray, "byte"], int]:
    """Read the bytes of all voxels, and count the bytes after them.

    The size is checked before memory is allocated.
    """
    expected = header.offset + header.num_bytes
    if expected > stream.max_bytes:
        raise _truncated(path, expected, f"at most {stream.max_bytes}")
    memory = physical_memory()
    if header.num_bytes > memory:
        raise InputError(
            f"{path}: expected at most the {memory} bytes of this computer's memory, got {header.num_bytes} bytes of "
            f"voxels by its header (shape {header.shape}, {header.num_channels} channels). Split the image, or fix "
            "the header."
        )
    voxels = np.empty(header.num_bytes, dtype=np.uint8)
    got = stream.fill(voxels)
    if got < header.num_bytes:
        raise _truncated(path, expected, str(header.offset + got))
    return voxels, stream.count_rest()


def _truncated(path: Path, expected: int, got: str) -> InputError:
    """Return the error of a file that ends before its last voxel."""
    return InputError(
        f"{path}: truncated: expected {expected} bytes from its header, got {got}. Copy or download it again."
    )


def _to_array(
    voxels: UInt8[np.ndarray, "byte"], header: ParsedHeader
) -> Shaped[np.ndarray, "channel *spatial"]:
    """Return the voxels in native byte order, with their scaling applied."""
    array = voxels.view(header.dtype)
    if not header.dtype.isnative:
        array = array.byteswap(inplace=True).view(header.dtype.newbyteorder("="))
    if header.scale is not None:
        array = _scaled(array, *header.scale)
    shape = header.shape[::-1]
    if header.is_colour:
        return np.ascontiguousarray(np.moveaxis(array.reshape(*shape, header.num_channels), -1, 0))
    return array.reshape(header.num_channels, *shape)


def _scaled(
    array: Shaped[np.ndarray, "voxel"], slope: float, intercept: float
) -> Shaped[np.ndarray, "voxel"]:
    """Return slope * value + intercept, computed in float64.

    Float64 stays float64, and other types become float32.
    """
    scaled = array if array.dtype == np.float64 else np.empty(array.shape, dtype=np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for begin in range(0, array.size, _SCALED_VOXELS):
            part = slice(begin, begin + _SCALED_VOXELS)
            scaled[part] = array[part].astype(np.float64) * slope + intercept
    return scaled


def _to_image(
    path: Path, array: Shaped[np.ndarray, "channel *spatial"], header: ParsedHeader, *, num_surplus: int
) -> Image:
    """Combine an array with its geometry, header fields and warnings."""
    num_axes = len(header.shape)
    columns = _LPS @ header.affine[:3, :num_axes]
    sizes, direction, angle_warning = straighten_axes(path, columns)
    warnings = [*_contradictions(path, header, sizes)]
    if angle_warning is not None:
        warnings.append(angle_warning)
    if num_surplus:
        warnings.append(f"{path}: expected no bytes after the voxels, got {num_surplus}. They are ignored.")
    pixdim = np.abs(header.raw["pixdim"][1 : num_axes + 1].astype(np.float64))
    agreeing = np.allclose(pixdim, sizes, rtol=_PIXDIM_TOLERANCE, atol=0)
    grid = ImageGrid(
        shape=header.shape[::-1],
        spacing=_numbers(pixdim if agreeing else sizes)[::-1],
        origin=_numbers((_LPS @ header.affine[:3, 3])[:num_axes]),
        direction=_numbers(_in_plane(direction).ravel()),
    )
    return Image(
        array=array,
        spacing=grid.spacing,
        origin=grid.origin,
        direction=grid.direction,
        header=_position_fields(header.raw, grid),
        warnings=tuple(warnings),
    )


def _numbers(values: Float64[np.ndarray, "value"]) -> tuple[float, ...]:
    """Return numbers without negative zeros."""
    return tuple(float(value) + 0.0 for value in values)


def _in_plane(direction: Float64[np.ndarray, "3 axis"]) -> Float64[np.ndarray, "axis axis"]:
    """Return direction cosines as a square matrix.

    Those of a 2D image without rotation out of the plane x, y are the first two rows. Otherwise they are the identity.
    """
    num_axes = direction.shape[1]
    square = direction[:num_axes]
    is_orthonormal = np.allclose(square.T @ square, np.eye(num_axes), atol=DIRECTION_TOLERANCE)
    return square if is_orthonormal else np.eye(num_axes)


def _contradictions(path: Path, header: ParsedHeader, sizes: Float64[np.ndarray, "axis"]) -> list[str]:
    """Return a warning for each contradiction about the position."""
    raw, rule, num_axes = header.raw, header.rule, len(header.shape)
    warnings = []
    used = f"The {rule} is used." if rule != "pixdim" else "The voxel sizes of pixdim are used."
    if rule == "sform" and int(raw["qform_code"]):
        warnings += _form_difference(path, header)
    if rule == "pixdim":
        warnings.append(
            f"{path}: expected a position in the header, got none (sform_code and qform_code are 0). {used} The origin "
            "is the centre of the image, and x runs to the left."
        )
    pixdim = raw["pixdim"][1 : num_axes + 1].astype(np.float64)
    if not np.allclose(pixdim, sizes, rtol=_PIXDIM_TOLERANCE, atol=0):
        warnings.append(
            f"{path}: expected the spacing {_rounded(sizes)} of the {rule} in pixdim (x, y, z), got "
            f"{_rounded(pixdim)}. {used if rule == 'sform' else 'The sign is ignored.'}"
        )
    unit = int(raw["xyzt_units"]) & 7
    if unit not in (0, _MILLIMETRE):
        warnings.append(
            f"{path}: expected millimetres in xyzt_units, got {_UNITS.get(unit, f'the unknown unit {unit}')}. The "
            "numbers of the header are used as millimetres, as in nibabel."
        )
    return warnings


def _form_difference(path: Path, header: ParsedHeader) -> list[str]:
    """Return a warning if sform and qform differ.

    The tolerances of equal grids apply.
    """
    if header.qform is None:
        return [
            f"{path}: expected a rotation in the qform, got a quaternion longer than 1. The sform is used."
        ]
    shape = (*header.shape, 1)[:3]
    sform, qform = header.affine[:3], header.qform[:3]
    sizes = [np.linalg.norm(affine[:, :3], axis=0) for affine in (sform, qform)]
    shift = np.abs(sform[:, 3] - qform[:, 3]).max()
    turn = np.abs(sform[:, :3] / sizes[0] - qform[:, :3] / sizes[1])[:, : len(header.shape)].max()
    own, other = (each[: len(header.shape)] for each in sizes)
    equal_sizes = np.allclose(own, other, rtol=SPACING_TOLERANCE, atol=0)
    if equal_sizes and shift <= ORIGIN_TOLERANCE * sizes[0].min() and turn <= DIRECTION_TOLERANCE:
        return []
    corners = np.array([*np.ndindex(2, 2, 2)]) * (np.array(shape) - 1)
    homogeneous = np.concatenate([corners, np.ones((8, 1))], axis=1)
    distance = np.linalg.norm(homogeneous @ (sform - qform).T, axis=1).max()
    return [
        f"{path}: expected equal positions in sform and qform, got corners of the image that are up to {distance:.3g} "
        "mm apart. The sform is used."
    ]


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    """Round values for a message."""
    return tuple(float(f"{value:.5g}") for value in values)


def _position_fields(raw: "Nifti1Header", grid: ImageGrid) -> NiftiHeader:
    """Return the position fields of a header as plain numbers."""
    return NiftiHeader(
        grid=grid,
        pixdim=tuple(float(value) for value in raw["pixdim"]),
        xyzt_units=int(raw["xyzt_units"]),
        qform_code=int(raw["qform_code"]),
        sform_code=int(raw["sform_code"]),
        quaternion=(float(raw["quatern_b"]), float(raw["quatern_c"]), float(raw["quatern_d"])),
        offset=(float(raw["qoffset_x"]), float(raw["qoffset_y"]), float(raw["qoffset_z"])),
        sform=tuple(tuple(float(value) for value in raw[f"srow_{name}"]) for name in "xyz"),
    )


def _repeat_position(header: "Nifti1Header", source: NiftiHeader) -> None:
    """Copy the position fields of another file into a header."""
    header["pixdim"] = source.pixdim
    header["xyzt_units"] = source.xyzt_units
    header["qform_code"], header["sform_code"] = source.qform_code, source.sform_code
    for name, value in zip("bcd", source.quaternion, strict=True):
        header[f"quatern_{name}"] = value
    for name, value, row in zip("xyz", source.offset, source.sform, strict=True):
        header[f"qoffset_{name}"] = value
        header[f"srow_{name}"] = row


def _set_position(header: "Nifti1Header", image: Image) -> None:
    """Write the geometry of an image into sform and qform.

    Both have code 1 (scanner), in mm.
    """
    num_axes = image.num_axes
    spacing = np.array(image.spacing[::-1])
    affine = np.eye(4)
    affine[:num_axes, :num_axes] = np.reshape(image.direction, (num_axes, num_axes)) * spacing
    affine[:num_axes, 3] = image.origin
    affine[:2] *= -1
    header.set_qform(affine, code=1)
    header.set_sform(affine, code=1)
    header["pixdim"][1 : num_axes + 1] = spacing
    header.set_xyzt_units("mm", "sec")


def _write(file: "BinaryIO | gzip.GzipFile", header: "Nifti1Header", voxels: np.ndarray[Any, Any]) -> None:
    """Write header and voxels."""
    header.write_to(file)
    content = voxels.reshape(-1).view(np.uint8).data
    for begin in range(0, len(content), _PIECE_BYTES):
        file.write(content[begin : begin + _PIECE_BYTES])


def read_nifti_geometry(path: Path) -> Image:
    """Read the header of a NIfTI-1 file.

    Args:
        path: A `.nii` or `.nii.gz` file.

    Returns:
        The image with its geometry and warnings. Its voxels are zeros that take no memory.

    Raises:
        InputError: The header is invalid.
    """
    with open_stream(path) as stream:
        header = read_header(path, stream)
    array = np.broadcast_to(np.uint8(0), (header.num_channels, *header.shape[::-1]))
    return _to_image(path, array, header, num_surplus=0)
