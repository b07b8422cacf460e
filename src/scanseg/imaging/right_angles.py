"""Directions of voxel axes that are not quite at right angles."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from scanseg.errors import InputError

MAX_ANGLE = 1.0
"""Largest deviation from right angles that is corrected, in degrees."""
_NOTED_ANGLE = 0.01
"""Largest deviation without a warning, in degrees."""
_ROUNDING = 1e-6
"""Largest cosine between axes that rounding to float32 explains."""


class StraightAxes(NamedTuple):
    """Voxel axes at right angles."""

    sizes: Float64[np.ndarray, "axis"]
    """Length of each voxel axis in mm: the norms of the columns."""
    direction: Float64[np.ndarray, "world axis"]
    """Unit vectors as columns, at right angles."""
    warning: str | None
    """Sentence that names the corrected angle. `None`: below 0.01 degrees."""


def straighten_axes(path: Path, columns: Float64[np.ndarray, "world axis"]) -> StraightAxes:
    """Return the nearest orthonormal directions of voxel axes.

    The polar factor of the unit vectors has the smallest squared distance to them. It keeps reflections.

    Args:
        path: The file, for messages.
        columns: Step in mm of one voxel along each axis, as columns.

    Raises:
        InputError: A step is zero or not finite, or two axes are more than one degree off a right angle.

    Source: N. J. Higham, "Computing the polar decomposition - with applications", SIAM J. Sci. Stat. Comput. 7 (1986).
    """
    sizes = np.linalg.norm(columns, axis=0)
    if not np.isfinite(columns).all() or (sizes == 0).any():
        raise InputError(
            f"{path}: expected voxel axes of finite length above 0 mm, got {np.round(sizes, 4).tolist()} mm. Fix the "
            "header."
        )
    units = columns / sizes
    cosine = float(np.abs(np.triu(units.T @ units, 1)).max(initial=0.0))
    angle = float(np.degrees(np.arcsin(min(cosine, 1.0))))
    if angle > MAX_ANGLE:
        raise InputError(
            f"{path}: expected voxel axes at right angles, got axes that are {angle:.3g} degrees off (sheared, such as "
            "with a tilted gantry). Resample the image to orthogonal axes, such as with "
            "nibabel.processing.resample_to_output or SimpleITK."
        )
    if cosine <= _ROUNDING:
        return StraightAxes(sizes, units, None)
    left, _, right = np.linalg.svd(units, full_matrices=False)
    warning = (
        f"{path}: expected voxel axes at right angles, got axes that are {angle:.2g} degrees off. The nearest right "
        "angles are used."
    )
    return StraightAxes(sizes, left @ right, warning if angle > _NOTED_ANGLE else None)
