"""Resample arrays to another shape, with the outer borders aligned.

This is the alignment of `skimage.transform.resize`, which nnU-Net uses, and of
`scipy.ndimage.zoom(grid_mode=True, mode="nearest")`. Spline interpolation is a product with one matrix per axis. The
matrices are scipy's interpolations of the unit vectors. Applying them is far faster than evaluating the splines voxel
by voxel. As in `resize`, cubic interpolation stays within the range of its input.
"""

from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Float32, Integer, Real
from scipy import ndimage

SplineOrder = Literal[0, 1, 3]
TIE = 1e-6
"""Weights with a smaller difference are equal."""


def resample_image(
    array: Real[np.ndarray, "channel z y x"],
    shape: tuple[int, int, int],
    *,
    order: SplineOrder,
    separate_z: bool,
) -> Float32[np.ndarray, "channel new_z new_y new_x"]:
    """Resample an image by spline interpolation.

    Args:
        array: Intensities of shape (channel, z, y, x).
        shape: New number of voxels along z, y, x.
        order: Spline order: 0 nearest, 1 linear, 3 cubic. There is no smoothing before downsampling.
        separate_z: Interpolate within slices by `order`, and take the nearest slice along z.

    Returns:
        A new array. The input itself if it is float32 and has the new shape.
    """
    result = array.astype(np.float32, copy=False)
    if result.shape[1:] == tuple(shape):
        return result
    if order != 0:
        axes = (2, 3) if separate_z else (1, 2, 3)
        result = _interpolate_within_range(result, shape, axes=axes, order=order)
    for axis in (1, 2, 3):
        result = _take_nearest(result, axis, shape[axis - 1])
    return np.ascontiguousarray(result)


def resample_label_map(
    label_map: Integer[np.ndarray, "z y x"],
    shape: tuple[int, int, int],
    *,
    order: Literal[0, 1],
    separate_z: bool,
) -> Integer[np.ndarray, "new_z new_y new_x"]:
    """Resample a label map.

    Linear interpolation treats each label separately. A voxel gets the label with the largest weight, and the higher
    of two labels with equal weights. nnU-Net gives a voxel the label whose weight is 0.5 or more, else background.
    Both rules differ only at voxels where more than two labels meet.

    Args:
        label_map: Label values of shape (z, y, x), 0 and above, of any integer type.
        shape: New number of voxels along z, y, x.
        order: 0: nearest voxel. 1: linear interpolation of each label.
        separate_z: Interpolate within slices by `order`, and take the nearest slice along z.

    Returns:
        A new array of the same type. The input itself if it has the new shape.
    """
    if label_map.shape == tuple(shape):
        return label_map
    if order == 0:
        result = label_map
        for axis in range(3):
            result = _take_nearest(result, axis, shape[axis])
        return np.ascontiguousarray(result)
    if separate_z:
        in_plane = _heaviest_label(label_map, (label_map.shape[0], shape[1], shape[2]))
        return np.ascontiguousarray(_take_nearest(in_plane, 0, shape[0]))
    return _heaviest_label(label_map, shape)


def _heaviest_label(label_map: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Return the label with the largest linear weight in each voxel.

    Each label is interpolated within its bounding box only.
    """
    if label_map.shape == shape:
        return label_map
    result = np.zeros(shape, dtype=label_map.dtype)
    heaviest = np.zeros(shape, dtype=np.float32)
    total = np.zeros(shape, dtype=np.float32)
    for label, box in enumerate(ndimage.find_objects(label_map), start=1):
        if box is None:
            continue
        weight = (label_map[box] == label).astype(np.float32)
        target = []
        for axis, inside in enumerate(box):
            matrix = _matrix(label_map.shape[axis], shape[axis], 1)[:, inside]
            reached = np.flatnonzero(matrix.any(axis=1))
            if reached.size == 0:
                break
            rows = slice(int(reached[0]), int(reached[-1]) + 1)
            weight = _apply(matrix[rows], weight, axis)
            target.append(rows)
        if len(target) < weight.ndim:
            continue  # the label reaches no voxel of the new grid
        region = tuple(target)
        wins = weight > np.maximum(heaviest[region] - TIE, 0)
        result[region][wins] = label
        np.maximum(heaviest[region], weight, out=heaviest[region])
        total[region] += weight
    result[1 - total > heaviest + TIE] = 0
    return result


def _interpolate_within_range(
    array: np.ndarray, shape: tuple[int, int, int], *, axes: tuple[int, ...], order: Literal[1, 3]
) -> np.ndarray:
    """Interpolate along some axes, and clip cubic results to the input's range.

    Axes that shrink come first: fewer products. The range is that of the input along these axes.
    """
    result = array
    for axis in sorted(axes, key=lambda axis: shape[axis - 1] / array.shape[axis]):
        size, new_size = array.shape[axis], shape[axis - 1]
        if size != new_size:
            result = _apply(_matrix(size, new_size, order), result, axis)
    if order == 1 or result is array:
        return result
    return np.clip(result, array.min(axis=axes, keepdims=True), array.max(axis=axes, keepdims=True))


def _apply(matrix: np.ndarray, array: np.ndarray, axis: int) -> np.ndarray:
    """Multiply one axis by a matrix (new, old), in few large products."""
    before, after = array.shape[:axis], array.shape[axis + 1 :]
    if axis == array.ndim - 1:
        return (array.reshape(-1, array.shape[axis]) @ matrix.T).reshape(*before, len(matrix))
    stacked = array.reshape(*before, array.shape[axis], -1)
    return (matrix @ stacked).reshape(*before, len(matrix), *after)


@lru_cache(maxsize=128)
def _matrix(size: int, new_size: int, order: Literal[1, 3]) -> np.ndarray:
    """Return the interpolation weights of shape (new, old) along one axis."""
    if size == 1:
        return np.ones((new_size, 1), dtype=np.float32)
    if size == new_size:
        return np.eye(size, dtype=np.float32)
    units = np.eye(size)
    columns = ndimage.zoom(units, (new_size / size, 1), order=order, mode="nearest", grid_mode=True)
    matrix = columns.astype(np.float32)
    matrix.setflags(write=False)
    return matrix


def _take_nearest(array: np.ndarray, axis: int, new_size: int) -> np.ndarray:
    """Take the nearest voxel along one axis. Ties take the higher."""
    size = array.shape[axis]
    if size == new_size:
        return array
    centres = size / new_size * (np.arange(new_size) + 0.5) - 0.5
    return np.take(array, np.clip(np.floor(centres + 0.5).astype(int), 0, size - 1), axis=axis)
