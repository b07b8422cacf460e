"""Treat an image with two spatial axes as a volume of one slice."""

import numpy as np

SLICE_SPACING_MM = 999.0
"""Spacing along z that an image of two axes is given, as in nnU-Net."""


def lift(array: np.ndarray, num_axes: int) -> np.ndarray:
    """Give an array of two spatial axes a z axis of one slice.

    Args:
        array: Spatial axes last, any others before them.
        num_axes: Spatial axes: 2 or 3.

    Returns:
        A view with three spatial axes.
    """
    return array if num_axes == 3 else array[..., np.newaxis, :, :]
