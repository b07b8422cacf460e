"""The way from the source's grid to the grid that is resampled, and back."""

import numpy as np
from jaxtyping import Shaped

from scanseg.specs import CaseGeometry, PreprocessingSpec

SLICE_SPACING_MM = 999.0
"""Spacing along z that an image of two axes is given, as in nnU-Net."""


def lifted_spacing(geometry: CaseGeometry) -> tuple[float, float, float]:
    """Return the source's spacing in mm along the permuted axes z, y, x; z is 999 for two axes."""
    raise NotImplementedError


def separates_z(geometry: CaseGeometry, preprocessing: PreprocessingSpec) -> bool:
    """Whether a case is resampled, there and back, slice by slice.

    So it is for images of two axes, for slices resized to `slice_size`, and where z is the thickest axis by more
    than `anisotropy_threshold`, in the source's spacing or, where that is not anisotropic, the target's.

    Args:
        geometry: Where the case lies.
        preprocessing: How it is preprocessed.
    """
    raise NotImplementedError


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
    raise NotImplementedError


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
    raise NotImplementedError
