"""An image as it came from its file: channels, voxels, and where they lie."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped

SPACING_TOLERANCE = 1e-3
"""Largest relative difference of spacings that counts as equal."""
ORIGIN_TOLERANCE = 0.1
"""Largest difference of origins, in voxels, that counts as equal."""
DIRECTION_TOLERANCE = 1e-3
"""Largest difference of direction cosines that counts as equal."""


@dataclass(frozen=True, eq=False)
class Image:
    """An image of two or three axes with its channels and its place in space."""

    array: Shaped[np.ndarray, "channel *spatial"]
    """Intensities or labels; the spatial axes are z, y, x or y, x."""
    spacing: tuple[float, ...]
    """Millimetres per voxel along each spatial axis, in array order; 1 where the file does not say."""
    origin: tuple[float, ...]
    """Position of the first voxel in mm, in ITK's order x, y, z."""
    direction: tuple[float, ...]
    """Direction cosines, row by row, in ITK's order x, y, z; the identity for raster images."""

    @property
    def num_axes(self) -> int:
        """Spatial axes: 2 or 3."""
        return self.array.ndim - 1

    @property
    def num_channels(self) -> int:
        """Channels of the image."""
        return int(self.array.shape[0])

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along each spatial axis."""
        return tuple(int(size) for size in self.array.shape[1:])


def compare_geometry(image: Image, other: Image) -> list[str]:
    """Say in words how the grid of one image differs from that of another.

    Equal means: the same shape, spacings within 0.1 %, origins within a tenth of a voxel, direction cosines
    within 0.001.

    Args:
        image: The first image.
        other: The second image.

    Returns:
        One phrase with both values for each difference; empty where the grids agree.
    """
    if image.shape != other.shape:
        return [f"shape {image.shape} and {other.shape}"]
    differences = []
    if not np.allclose(image.spacing, other.spacing, rtol=SPACING_TOLERANCE, atol=0):
        differences.append(f"spacing {_rounded(image.spacing)} and {_rounded(other.spacing)} mm")
    shift = np.abs(np.subtract(image.origin, other.origin)) / np.min(image.spacing)
    if shift.max() > ORIGIN_TOLERANCE:
        differences.append(f"origin {_rounded(image.origin)} and {_rounded(other.origin)} mm (x, y, z)")
    if not np.allclose(image.direction, other.direction, rtol=0, atol=DIRECTION_TOLERANCE):
        differences.append(f"direction {_rounded(image.direction)} and {_rounded(other.direction)}")
    return differences


def _rounded(values: tuple[float, ...]) -> tuple[float, ...]:
    """Values as a message shows them."""
    return tuple(round(float(value), 4) for value in values)
