"""Images on the axes of the viewer: right, anterior, superior (RAS).

The viewer gets NIfTI files whose axes already have this order, so an array of the page is an array of this module.
Label
maps that the page sends back are turned to the axes of their image.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from scanseg.imaging import Image

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_KEPT_TYPES = ("u1", "i2", "u2", "i4", "f4")
"""Types of voxels that the viewer reads."""


@dataclass(frozen=True, eq=False)
class Canonical:
    """Turn arrays of an image to the viewer's axes, and back."""

    orientation: np.ndarray
    """Order and direction of the axes, as of nibabel."""
    affine: Float[np.ndarray, "4 4"]
    """From voxels of the viewer to mm."""
    shape: tuple[int, int, int]
    """Voxels along the axes of the viewer."""
    source_shape: tuple[int, ...]
    """Voxels along the axes of the image."""

    @classmethod
    def of(cls, image: Image) -> "Canonical":
        """Return the axes of an image.

        Args:
            image: Volume or picture. A picture lies upright, with its first row at the top.
        """
        from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

        shape = tuple(reversed(image.shape)) if image.num_axes == 3 else (*reversed(image.shape), 1)
        affine = _affine_of(image, shape)
        orientation = io_orientation(affine)
        turned = apply_orientation(np.broadcast_to(np.uint8(0), shape), orientation)
        return cls(orientation, affine @ inv_ornt_aff(orientation, shape), turned.shape, image.shape)

    def turn(self, array: Shaped[np.ndarray, "*spatial"]) -> Shaped[np.ndarray, "x y z"]:
        """Return an array of the image on the axes of the viewer.

        Args:
            array: Array of shape (z, y, x) or (y, x).
        """
        from nibabel.orientations import apply_orientation

        volume = array if array.ndim == 3 else array[np.newaxis]
        return apply_orientation(volume.T, self.orientation)

    def turn_back(self, array: Shaped[np.ndarray, "x y z"]) -> Shaped[np.ndarray, "*spatial"]:
        """Return an array of the viewer on the axes of the image.

        Args:
            array: Array of shape (x, y, z).
        """
        from nibabel.orientations import apply_orientation, axcodes2ornt, ornt_transform

        inverse = ornt_transform(axcodes2ornt("RAS"), self.orientation)
        return np.ascontiguousarray(apply_orientation(array, inverse).T.reshape(self.source_shape))

    def to_nifti(self, array: Shaped[np.ndarray, "x y z"]) -> bytes:
        """Return an array of the viewer as a NIfTI file.

        Args:
            array: Array of shape (x, y, z), or (x, y, z, 3) of uint8 for colours.
        """
        from nibabel.nifti1 import Nifti1Image

        image = Nifti1Image(_viewable(array), self.affine)
        image.header.set_slope_inter(1, 0)
        image.header.set_xyzt_units("mm")
        return image.to_bytes()

    def to_nifti_colours(self, image: Image) -> bytes:
        """Return a colour picture as a NIfTI file.

        Args:
            image: Picture of three channels of uint8.
        """
        turned = np.stack([self.turn(channel) for channel in image.array], axis=-1)
        return self.to_nifti(turned)


def _affine_of(image: Image, shape: tuple[int, ...]) -> Float[np.ndarray, "4 4"]:
    """Return the affine of an image from (x, y, z) to RAS."""
    spacing = np.array([*reversed(image.spacing), 1.0][:3])
    affine = np.eye(4)
    if image.num_axes == 2:
        affine[0, 0], affine[1, 1] = spacing[0], -spacing[1]
        affine[1, 3] = spacing[1] * (shape[1] - 1)
        return affine
    affine[:3, :3] = np.reshape(image.direction, (3, 3)) * spacing
    affine[:3, 3] = image.origin
    return _LPS_TO_RAS @ affine


def _viewable(array: Any) -> np.ndarray:
    """Return an array in a type that the viewer reads."""
    if array.ndim == 4:
        colours = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
        return np.ascontiguousarray(array).view(colours)[..., 0]
    if array.dtype.str[1:] in _KEPT_TYPES:
        return array
    return array.astype(np.uint8 if array.dtype == bool else np.float32)
