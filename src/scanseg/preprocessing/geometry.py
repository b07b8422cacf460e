"""The way from the source's grid to the grid that is resampled, and back."""

import numpy as np
from jaxtyping import Shaped

from scanseg.imaging import SLICE_SPACING_MM, lift
from scanseg.specs import CaseGeometry, PreprocessingSpec

Spacing = tuple[float, float, float]


def lifted_spacing(geometry: CaseGeometry) -> Spacing:
    """Return the source's spacing in mm along the permuted axes z, y, x; z is 999 for two axes.

    Args:
        geometry: Where the case lies.
    """
    lifted = (SLICE_SPACING_MM,) * (3 - geometry.num_axes) + geometry.source_spacing
    z, y, x = (lifted[axis] for axis in geometry.axis_order)
    return z, y, x


def target_spacing(geometry: CaseGeometry, preprocessing: PreprocessingSpec) -> Spacing:
    """Return the spacing in mm along z, y, x to which a case is resampled by its spacing.

    Args:
        geometry: Where the case lies.
        preprocessing: How it is preprocessed; what it leaves open is as in the source.
    """
    source = lifted_spacing(geometry)
    if preprocessing.spacing is None:
        return source
    z, y, x = preprocessing.spacing
    return (source[0] if z is None else z), y, x


def separates_z(geometry: CaseGeometry, preprocessing: PreprocessingSpec) -> bool:
    """Whether a case is resampled, there and back, slice by slice.

    So it is for images of two axes, for slices resized to `slice_size`, and where z is the thickest axis by
    more than `anisotropy_threshold`: in the source's spacing or, where that is not anisotropic, in the
    target's. nnU-Net treats any one thickest axis so; here `axis_order` has made it z.

    Args:
        geometry: Where the case lies.
        preprocessing: How it is preprocessed.
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
    """Permute and crop an array on the source's grid as preprocessing does, before resampling.

    Args:
        array: Shape `source_shape`, or (channel, *source_shape).
        geometry: Where the case lies.

    Returns:
        A view of shape `crop_shape`, or (channel, *crop_shape).
    """
    _check_trailing(array, geometry.source_shape)
    lifted = lift(array, geometry.num_axes)
    permuted = permute(lifted, geometry.axis_order)
    z, y, x = _crop_slices(geometry)
    return permuted[..., z, y, x]


def place_in_source(
    array: Shaped[np.ndarray, "*channel_and_crop"], geometry: CaseGeometry, *, fill: float = 0
) -> Shaped[np.ndarray, "*channel_and_source"]:
    """Bring an array on the cropped grid back to the source's grid; the inverse of `crop_from_source`.

    Args:
        array: Shape `crop_shape`, or (channel, *crop_shape).
        geometry: Where the case lies.
        fill: Value of the voxels that cropping cut away.

    Returns:
        A new array of shape `source_shape`, or (channel, *source_shape), of the same type.
    """
    _check_trailing(array, geometry.crop_shape)
    channels = array.shape[:-3]
    result = np.full((*channels, *geometry.source_shape), fill, dtype=array.dtype)
    crop_from_source(result, geometry)[...] = array
    return result


def permute(array: np.ndarray, axis_order: tuple[int, int, int]) -> np.ndarray:
    """Bring the three spatial axes into an order.

    Args:
        array: Shape (z, y, x), with any axes before these.
        axis_order: Axis that becomes each axis.

    Returns:
        A view.
    """
    before = array.ndim - 3
    return array.transpose(*range(before), *(before + axis for axis in axis_order))


def _crop_slices(geometry: CaseGeometry) -> list[slice]:
    """The part kept along each permuted axis."""
    return [
        slice(start, start + size)
        for start, size in zip(geometry.crop_start, geometry.crop_shape, strict=True)
    ]


def _check_trailing(array: np.ndarray, shape: tuple[int, ...]) -> None:
    """Refuse an array that does not lie on the grid."""
    if array.shape[-len(shape) :] != shape or array.ndim > len(shape) + 1:
        raise ValueError(f"shape {array.shape} is neither {shape} nor (channel, *{shape})")
