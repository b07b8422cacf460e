"""Position fields of images, which maps on the same grid repeat."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

_TOLERANCE = 1e-6
"""Largest relative difference of numbers that are equal apart from rounding."""


@dataclass(frozen=True)
class ImageGrid:
    """The grid of an image, as `Image` holds it."""

    shape: tuple[int, ...]
    """Voxels along each spatial axis, in array order."""
    spacing: tuple[float, ...]
    """Millimetres per voxel, in array order."""
    origin: tuple[float, ...]
    """Position of the first voxel in mm, in the order x, y, z."""
    direction: tuple[float, ...]
    """Direction cosines, row by row, in the order x, y, z."""

    def equals(self, other: "ImageGrid") -> bool:
        """Return true if both grids are equal apart from rounding.

        Args:
            other: The other grid.
        """
        return self.shape == other.shape and all(
            np.allclose(own, others, rtol=_TOLERANCE, atol=_TOLERANCE)
            for own, others in (
                (self.spacing, other.spacing),
                (self.origin, other.origin),
                (self.direction, other.direction),
            )
        )


@dataclass(frozen=True)
class PictureHeader:
    """Orientation tag of a picture: from stored pixels to the displayed picture."""

    orientation: int
    """Value of the tag from 2 to 8."""


@dataclass(frozen=True)
class NiftiHeader:
    """Position fields of a NIfTI header, as stored."""

    grid: ImageGrid
    """Grid that the fields describe. On other grids the fields do not apply."""
    pixdim: tuple[float, ...]
    """The sign of the qform's third axis, and the voxel sizes of seven axes."""
    xyzt_units: int
    """Codes of the units of space and time."""
    qform_code: int
    sform_code: int
    quaternion: tuple[float, float, float]
    """`quatern_b`, `quatern_c` and `quatern_d`."""
    offset: tuple[float, float, float]
    """`qoffset_x`, `qoffset_y` and `qoffset_z`."""
    sform: tuple[tuple[float, ...], ...]
    """`srow_x`, `srow_y` and `srow_z`, with four numbers each."""


@dataclass(frozen=True)
class ItkHeader:
    """Spacing and direction cosines of an NRRD or MetaImage file, as stored."""

    grid: ImageGrid
    """Grid that the fields describe. On other grids the fields do not apply."""
    spacing: tuple[float, ...]
    """Millimetres per voxel, in ITK's order x, y, z."""
    direction: tuple[float, ...]
    """Direction cosines, row by row, in ITK's order x, y, z. They are not quite at right angles."""


@dataclass(frozen=True)
class DicomHeader:
    """Series of a volume, on whose slices a DICOM Segmentation lies."""

    grid: ImageGrid
    """Grid of the series. On other grids no segmentation can be written."""
    source: Path
    """Folder or zip file."""
    uid: str
    """Series instance UID."""
