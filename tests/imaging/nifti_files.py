"""NIfTI files with given position fields."""

from pathlib import Path

import nibabel as nib
import numpy as np

from scanseg.imaging import Image

SHAPE = (5, 4, 3)
"""Voxels along x, y, z."""
PLAIN = np.array([[-0.8, 0, 0, 30.5], [0, 0.9, 0, -20.25], [0, 0, 2.5, 7], [0, 0, 0, 1.0]])
"""Affine along the axes of the body."""


def turned(affine: np.ndarray, angle: float, *, axis: int = 2) -> np.ndarray:
    """Return an affine after a rotation about x, y or z, in radians."""
    first, second = (each for each in range(3) if each != axis)
    rotation = np.eye(4)
    rotation[first, first] = rotation[second, second] = np.cos(angle)
    rotation[first, second], rotation[second, first] = -np.sin(angle), np.sin(angle)
    return rotation @ affine


def save(
    path: Path,
    array: np.ndarray,
    *,
    sform: np.ndarray | None = PLAIN,
    sform_code: int = 1,
    qform: np.ndarray | None = None,
    qform_code: int | None = None,
    unit: str = "mm",
    pixdim: tuple[float, ...] | None = None,
) -> Path:
    """Save an array (x, y, z). The qform is the sform unless it is given."""
    image = nib.Nifti1Image(array, np.eye(4))
    image.set_qform(sform if qform is None else qform, sform_code if qform_code is None else qform_code)
    image.header.set_xyzt_units(unit, "sec")
    if pixdim is not None:
        image.header["pixdim"][1 : 1 + len(pixdim)] = pixdim
    image.set_sform(sform, sform_code)  # last, since it sets the affine that nibabel writes
    nib.save(image, path)
    return path


def affine_of(image: Image) -> np.ndarray:
    """Return the affine of an image's geometry, in mm in the order right, anterior, superior."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.direction, (3, 3)) * image.spacing[::-1]
    affine[:3, 3] = image.origin
    return np.diag((-1, -1, 1, 1)) @ affine
