"""Bounding box and mask of the nonzero voxels of an image."""

import numpy as np
from jaxtyping import Bool, Shaped
from scipy import ndimage

Triple = tuple[int, int, int]


def find_nonzero_box(array: Shaped[np.ndarray, "channel z y x"]) -> tuple[Triple, Triple]:
    """Find the smallest box outside of which every channel is 0.

    Args:
        array: Image of shape (channel, z, y, x).

    Returns:
        First voxel and number of voxels along z, y, x. The box is the whole image if every voxel is 0.
    """
    nonzero = _nonzero_anywhere(array)
    start, size = [0, 0, 0], list(nonzero.shape)
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        planes = np.flatnonzero(nonzero.any(axis=others))
        if planes.size:
            start[axis], size[axis] = int(planes[0]), int(planes[-1] - planes[0]) + 1
    return (start[0], start[1], start[2]), (size[0], size[1], size[2])


def find_nonzero_mask(array: Shaped[np.ndarray, "channel z y x"]) -> Bool[np.ndarray, "z y x"]:
    """Find the voxels with a nonzero channel, with holes filled.

    As in nnU-Net, a hole is a connected part of the zero voxels that does not reach the border of the array
    (connected by faces). An image of one slice has no holes, because every voxel lies at the border.

    Args:
        array: Image of shape (channel, z, y, x).

    Returns:
        Mask of shape (z, y, x).
    """
    zero = ~_nonzero_anywhere(array)
    parts, num_parts = ndimage.label(zero)
    if not num_parts:
        return ~zero
    outside = np.zeros(num_parts + 1, dtype=bool)
    for axis in range(3):
        outside[np.take(parts, (0, -1), axis=axis)] = True
    outside[0] = False
    return ~outside[parts]


def _nonzero_anywhere(array: np.ndarray) -> np.ndarray:
    """Return the mask of voxels with a nonzero channel."""
    nonzero = array[0] != 0
    for channel in array[1:]:
        nonzero |= channel != 0
    return nonzero
