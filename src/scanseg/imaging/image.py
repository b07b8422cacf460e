"""Images with their geometry, as stored in their files."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped

from scanseg.imaging.header import DicomHeader, ItkHeader, NiftiHeader, PictureHeader

SPACING_TOLERANCE = 1e-3
"""Largest relative difference of equal spacings."""
ORIGIN_TOLERANCE = 0.1
"""Largest difference of equal origins, in voxels."""
DIRECTION_TOLERANCE = 1e-3
"""Largest difference of equal direction cosines."""


@dataclass(frozen=True, eq=False)
class Image:
    """A 2D or 3D image with its channels and its geometry."""

    array: Shaped[np.ndarray, "channel *spatial"]
    """Intensities or labels. The spatial axes are z, y, x or y, x."""
    spacing: tuple[float, ...]
    """Millimetres per voxel along each spatial axis, in array order. 1 if the file holds no spacing."""
    origin: tuple[float, ...]
    """Position of the first voxel in mm, in ITK's order x, y, z."""
    direction: tuple[float, ...]
    """Direction cosines, row by row, in ITK's order x, y, z. The identity matrix for raster images."""
    header: NiftiHeader | ItkHeader | PictureHeader | DicomHeader | None = None
    """Position fields of the file, which maps on the same grid repeat. `None`: the file has none.

    The array of a picture is the displayed one. Its label maps are stored as the picture is, with the same tag.
    """
    warnings: tuple[str, ...] = ()
    """Contradictions in the header of the file that did not prevent reading, each with the name of the file."""

    @property
    def num_axes(self) -> int:
        """Number of spatial axes: 2 or 3."""
        return self.array.ndim - 1

    @property
    def num_channels(self) -> int:
        """Number of channels."""
        return int(self.array.shape[0])

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along each spatial axis."""
        return tuple(int(size) for size in self.array.shape[1:])


def compare_geometry(image: Image, other: Image) -> list[str]:
    """Describe the differences between the grids of two images.

    Grids are equal if their shapes are equal, their spacings differ by at most 0.1 %, their origins by at most a
    tenth of a voxel, and their direction cosines by at most 0.001.

    Args:
        image: The first image.
        other: The second image.

    Returns:
        One phrase with both values for each difference. Empty if the grids are equal.
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
    """Round values for a message."""
    return tuple(round(float(value), 4) for value in values)
