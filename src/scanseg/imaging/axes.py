"""Treat 2D images as volumes of one slice."""

import numpy as np

SLICE_SPACING_MM = 999.0
"""Spacing along z of a 2D image, as in nnU-Net, in mm."""


def as_volume(array: np.ndarray, num_axes: int) -> np.ndarray:
    """Add a z axis of one slice to a 2D array.

    Args:
        array: Shape (..., y, x) or (..., z, y, x).
        num_axes: Number of spatial axes: 2 or 3.

    Returns:
        A view of shape (..., z, y, x).
    """
    return array if num_axes == 3 else array[..., np.newaxis, :, :]
