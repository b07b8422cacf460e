"""Bring arrays to another number of voxels, with the outer borders of both grids in the same place."""

from typing import Literal

import numpy as np
from jaxtyping import Float32, Real, UInt8

SplineOrder = Literal[0, 1, 3]


def resample_image(
    array: Real[np.ndarray, "channel z y x"],
    shape: tuple[int, int, int],
    *,
    order: SplineOrder,
    separate_z: bool,
) -> Float32[np.ndarray, "channel new_z new_y new_x"]:
    """Interpolate an image by splines.

    Args:
        array: Intensities.
        shape: Voxels wanted along z, y, x.
        order: Spline order: 0 nearest, 1 linear, 3 cubic.
        separate_z: Interpolate within slices by `order`, and take the nearest slice along z.
    """
    raise NotImplementedError


def resample_label_map(
    label_map: UInt8[np.ndarray, "z y x"],
    shape: tuple[int, int, int],
    *,
    order: Literal[0, 1],
    separate_z: bool,
) -> UInt8[np.ndarray, "new_z new_y new_x"]:
    """Interpolate a label map: each label linearly, then the label with most weight.

    Args:
        label_map: Labels, of any integer type.
        shape: Voxels wanted along z, y, x.
        order: 0: nearest; 1: linear for each label, then the label with most weight, the higher of two equal.
        separate_z: Interpolate within slices by `order`, and take the nearest slice along z.

    Returns:
        Labels of the same type.
    """
    raise NotImplementedError
