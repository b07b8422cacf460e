"""Limit of the size of arrays, checked before memory is allocated."""

import math
from collections.abc import Sequence

from scanseg.errors import InputError

MOST_VOXELS = 2**32
"""Largest number of voxels of an array: 16 GiB in float32.

A whole body of 2 m at 0.5 mm has 4000 x 800 x 1000 voxels, which is less.
"""


def check_voxels(shape: Sequence[int], cause: str) -> None:
    """Check that an array is small enough before it is allocated.

    Args:
        shape: Requested shape in voxels, with channels if it has any.
        cause: Object that requests the shape, for the message: a file, or a case with its spacings.

    Raises:
        InputError: A size is not positive, or the array has too many voxels.
    """
    voxels = math.prod(shape)
    if min(shape, default=1) < 1 or voxels > MOST_VOXELS:
        sizes = " x ".join(f"{size:.4g}" if abs(size) > MOST_VOXELS else str(size) for size in shape)
        raise InputError(
            f"{cause}: expected sizes of at least 1 and at most {MOST_VOXELS:.2g} voxels, got {sizes}. Check the "
            f"spacing and the shape."
        )
