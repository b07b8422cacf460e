"""Read a DICOM series as a volume."""

from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Shaped

from scanseg.errors import InputError
from scanseg.imaging.dicom.container import opened
from scanseg.imaging.dicom.geometry import SliceStack, stack_slices
from scanseg.imaging.dicom.objects import explained, read_object
from scanseg.imaging.dicom.series import Series, find_series
from scanseg.imaging.dicom.slices import Slice
from scanseg.imaging.header import DicomHeader
from scanseg.imaging.image import Image

_MOST_VOXELS = 2**32
"""Maximum number of voxels of a volume."""


def read_series(path: Path) -> Image:
    """Read a series as a volume.

    Slices lie along z in the direction of their normal. Rescale slope and intercept of each slice are applied: to
    whole numbers if all of them are whole, else to float32.

    Args:
        path: Path of the series, see `find_series`.

    Raises:
        InputError: The series is missing, damaged or no volume of regular slices, see `stack_slices`.
    """
    series = find_series(path)
    stack = stack_slices(series)
    if np.prod(stack.grid.shape, dtype=np.float64) > _MOST_VOXELS:
        raise InputError(f"{path}: expected at most {_MOST_VOXELS} voxels, got shape {stack.grid.shape}.")
    try:
        array = np.zeros(stack.grid.shape, _choose_dtype(stack))
    except MemoryError as error:
        raise InputError(
            f"{path}: not enough memory for {stack.grid.shape} voxels. Close other programs that use it."
        ) from error
    with opened(series.source) as open_member:
        for index, each in enumerate(stack.slices):
            with open_member(each.member) as file:
                _read_pixels(file, series, each, array[index])
    return _to_image(series, stack, array[np.newaxis])


def read_series_geometry(path: Path) -> Image:
    """Read the headers of a series.

    Args:
        path: Path of the series.

    Returns:
        The image with its geometry and warnings. Its voxels are zeros that take no memory.

    Raises:
        InputError: As for `read_series`.
    """
    series = find_series(path)
    stack = stack_slices(series)
    return _to_image(series, stack, np.broadcast_to(np.uint8(0), (1, *stack.grid.shape)))


def _to_image(series: Series, stack: SliceStack, array: Shaped[np.ndarray, "1 z y x"]) -> Image:
    """Return the image of a series."""
    grid = stack.grid
    return Image(
        array,
        spacing=grid.spacing,
        origin=grid.origin,
        direction=grid.direction,
        header=DicomHeader(grid, series.source, series.uid),
        warnings=stack.warnings,
    )


def _choose_dtype(stack: SliceStack) -> np.dtype:
    """Return the type that holds the rescaled values of all slices."""
    lows, highs = list[float](), list[float]()
    for each in stack.slices:
        bits, is_signed = each.bits
        stored = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if is_signed else (0, 2**bits - 1)
        ends = [each.scaling[0] * value + each.scaling[1] for value in stored]
        lows.append(min(ends))
        highs.append(max(ends))
    if all(value.is_integer() for each in stack.slices for value in each.scaling):
        for dtype in (np.uint8, np.int16, np.uint16, np.int32):
            limits = np.iinfo(dtype)
            if limits.min <= min(lows) and max(highs) <= limits.max:
                return np.dtype(dtype)
    return np.dtype(np.float32)


def _read_pixels(file: BinaryIO, series: Series, each: Slice, target: Shaped[np.ndarray, "y x"]) -> None:
    """Read the pixels of a slice into the volume.

    Raises:
        InputError: The file is damaged.
    """
    where = series.where(each.member)
    dataset = read_object(file, where)
    with explained(where):
        pixels = dataset.pixel_array
        if pixels.shape != target.shape:
            raise ValueError(f"pixels of shape {pixels.shape} instead of {target.shape}")
        if each.scaling == (1.0, 0.0):
            values = pixels
        else:
            values = pixels * each.scaling[0] + each.scaling[1]
        if target.dtype.kind in "iu":
            limits = np.iinfo(target.dtype)
            if values.min() < limits.min or values.max() > limits.max:
                raise ValueError(f"values outside of {each.bits[0]} bits")
        target[...] = values
