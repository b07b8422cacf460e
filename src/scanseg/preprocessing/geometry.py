"""Mapping between the source grid and the permuted, cropped grid."""

import numpy as np
from jaxtyping import Shaped

from scanseg.imaging import SLICE_SPACING_MM, as_volume
from scanseg.specs import CaseGeometry, PreprocessingSpec

Spacing = tuple[float, float, float]


def lifted_spacing(geometry: CaseGeometry) -> Spacing:
    """Return the source spacing in mm along the permuted axes.

    The order is z, y, x. The spacing along z is 999 for images of two axes.

    Args:
        geometry: Geometry of the case.
    """
    lifted = (SLICE_SPACING_MM,) * (3 - geometry.num_axes) + geometry.source_spacing
    z, y, x = (lifted[axis] for axis in geometry.axis_order)
    return z, y, x


def target_spacing(geometry: CaseGeometry, preprocessing: PreprocessingSpec) -> Spacing:
    """Return the spacing in mm along z, y, x after resampling.

    Args:
        geometry: Geometry of the case.
        preprocessing: Preprocessing of the plan. Unset spacings keep those of the source.
    """
    source = lifted_spacing(geometry)
    if preprocessing.spacing is None:
        return source
    z, y, x = preprocessing.spacing
    return (source[0] if z is None else z), y, x


def separates_z(geometry: CaseGeometry, preprocessing: PreprocessingSpec) -> bool:
    """Return whether a case is resampled slice by slice, in both directions.

    This holds for images of two axes, for slices resized to `slice_size`, and if the spacing along z exceeds that of
    the other axes by more than the factor `anisotropy_threshold`. The last condition applies to the source spacing or,
    if that is not anisotropic, to the target spacing. nnU-Net applies it to any single axis. Here `axis_order` has made
    that axis z.

    Args:
        geometry: Geometry of the case.
        preprocessing: Preprocessing of the plan.
    """
    if geometry.num_axes == 2 or preprocessing.slice_size is not None:
        return True
    if preprocessing.spacing is None:
        return False
    source, threshold = lifted_spacing(geometry), preprocessing.anisotropy_threshold
    target = target_spacing(geometry, preprocessing)
    z, y, x = source if max(source) / min(source) > threshold else target
    return z > max(y, x) and z / min(y, x) > threshold


def crop_from_source(
    array: Shaped[np.ndarray, "*channel_and_source"], geometry: CaseGeometry
) -> Shaped[np.ndarray, "*channel_and_crop"]:
    """Permute and crop an array on the source grid.

    Preprocessing does this before resampling.

    Args:
        array: Array of shape `source_shape`, or (channel, *source_shape).
        geometry: Geometry of the case.

    Returns:
        A view of shape `crop_shape`, or (channel, *crop_shape).
    """
    _check_trailing(array, geometry.source_shape)
    lifted = as_volume(array, geometry.num_axes)
    permuted = flip(permute(lifted, geometry.axis_order), geometry.flips)
    z, y, x = _crop_slices(geometry)
    return permuted[..., z, y, x]


def place_in_source(
    array: Shaped[np.ndarray, "*channel_and_crop"], geometry: CaseGeometry, *, fill: float = 0
) -> Shaped[np.ndarray, "*channel_and_source"]:
    """Map an array on the cropped grid back to the source grid.

    This is the inverse of `crop_from_source`.

    Args:
        array: Array of shape `crop_shape`, or (channel, *crop_shape).
        geometry: Geometry of the case.
        fill: Value of the voxels outside the crop.

    Returns:
        A new array of shape `source_shape`, or (channel, *source_shape), of the same type.
    """
    _check_trailing(array, geometry.crop_shape)
    channels = array.shape[:-3]
    result = np.full((*channels, *geometry.source_shape), fill, dtype=array.dtype)
    crop_from_source(result, geometry)[...] = array
    return result


def permute(array: np.ndarray, axis_order: tuple[int, int, int]) -> np.ndarray:
    """Permute the three spatial axes.

    Args:
        array: Array (..., z, y, x).
        axis_order: Old axis of each new axis.

    Returns:
        A view.
    """
    before = array.ndim - 3
    return array.transpose(*range(before), *(before + axis for axis in axis_order))


def flip(array: np.ndarray, flips: tuple[bool, bool, bool]) -> np.ndarray:
    """Reverse spatial axes.

    Args:
        array: Shape (z, y, x), with any axes before these.
        flips: Whether each axis is reversed.

    Returns:
        A view.
    """
    z, y, x = (slice(None, None, -1) if is_reversed else slice(None) for is_reversed in flips)
    return array[..., z, y, x]


def _crop_slices(geometry: CaseGeometry) -> list[slice]:
    """Return the slice of the crop along each permuted axis."""
    return [
        slice(start, start + size)
        for start, size in zip(geometry.crop_start, geometry.crop_shape, strict=True)
    ]


def _check_trailing(array: np.ndarray, shape: tuple[int, ...]) -> None:
    """Raise an error unless the array has the shape of the grid."""
    if array.shape[-len(shape) :] != shape or array.ndim > len(shape) + 1:
        raise ValueError(f"expected shape {shape} or (channel, *{shape}), got {array.shape}")
