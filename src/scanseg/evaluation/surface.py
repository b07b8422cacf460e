"""Distances between the surfaces of two masks: HD95, mean distance (ASD) and surface Dice (NSD).

Neither mask may be empty; what an empty mask scores is a rule (`scanseg.evaluation.rules`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from scanseg.errors import InputError
from scanseg.evaluation.distances import nearest_distances
from scanseg.evaluation.surfels import surfel_codes, surfel_sizes

ROUNDING = 1e-9
"""Relative room for rounding when a distance is compared with a tolerance: 3 voxels of 0.1 mm are within 0.3 mm."""


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """Distances of the surface voxels of two masks from the other's surface, in the unit of the spacing."""

    from_prediction: Float[np.ndarray, " point"]
    from_reference: Float[np.ndarray, " point"]

    @property
    def hd95(self) -> float:
        """95th percentile of the distances of both surfaces, pooled before the percentile is taken."""
        return float(np.percentile(np.concatenate([self.from_prediction, self.from_reference]), 95))

    @property
    def asd(self) -> float:
        """Mean of all distances, both directions pooled (MedPy's `assd` since 0.5)."""
        return float(np.concatenate([self.from_prediction, self.from_reference]).mean())


def surface_distances(
    prediction: Bool[np.ndarray, "*spatial"],
    reference: Bool[np.ndarray, "*spatial"],
    *,
    spacing: Sequence[float],
) -> SurfaceDistances:
    """Measure the distances of both surfaces from each other.

    MedPy's definition: a surface is the voxels of a mask that erosion by one voxel along the axes removes (voxels at
    the array's border among them).

    Args:
        prediction: Mask of two or three axes, not empty.
        reference: Mask of the same shape, not empty.
        spacing: Millimetres per voxel along the axes; 1 for distances in voxels.

    Raises:
        InputError: The masks cannot be compared.
    """
    _check(prediction, reference, spacing)
    borders = _border(prediction), _border(reference)
    return SurfaceDistances(
        from_prediction=nearest_distances(*borders, spacing=spacing),
        from_reference=nearest_distances(*borders[::-1], spacing=spacing),
    )


def hausdorff_95(
    prediction: Bool[np.ndarray, "*spatial"],
    reference: Bool[np.ndarray, "*spatial"],
    *,
    spacing: Sequence[float],
) -> float:
    """Return the 95th percentile of the distances of both surfaces from each other (`surface_distances`), in mm."""
    return surface_distances(prediction, reference, spacing=spacing).hd95


def surface_dice(
    prediction: Bool[np.ndarray, "*spatial"],
    reference: Bool[np.ndarray, "*spatial"],
    *,
    spacing: Sequence[float],
    tolerance_mm: float,
) -> float:
    """Return the part of both surfaces that lies within a tolerance of the other (surface Dice, NSD).

    Source: Nikolov et al. 2018, arXiv:1809.04430: surfaces are made of surfels (`scanseg.evaluation.surfels`) at the
    corners between voxels, each weighed by its area, in 2D by its length.

    Args:
        prediction: Mask of two or three axes, not empty.
        reference: Mask of the same shape, not empty.
        spacing: Millimetres per voxel along the axes.
        tolerance_mm: Largest distance, in mm, that is still an agreement.

    Returns:
        Part of the surfaces, 0 to 1.

    Raises:
        InputError: The masks cannot be compared, or the tolerance is negative.
    """
    _check(prediction, reference, spacing)
    if not tolerance_mm >= 0:
        raise InputError(f"tolerance_mm {tolerance_mm} must not be negative")
    sizes = surfel_sizes(spacing)
    codes = surfel_codes(prediction), surfel_codes(reference)
    surfels = [(code != 0) & (code != len(sizes) - 1) for code in codes]
    limit = tolerance_mm * (1 + ROUNDING)
    near, total = 0.0, 0.0
    for code, points, others in zip(codes, surfels, surfels[::-1], strict=True):
        weights = sizes[code[points]]
        total += float(weights.sum())
        near += float(weights[nearest_distances(points, others, spacing=spacing) <= limit].sum())
    return near / total


def _check(
    prediction: Bool[np.ndarray, "*spatial"],
    reference: Bool[np.ndarray, "*spatial"],
    spacing: Sequence[float],
) -> None:
    faults = []
    if prediction.dtype != bool or reference.dtype != bool:
        faults.append(f"masks are {prediction.dtype} and {reference.dtype}; they must be bool")
    if prediction.shape != reference.shape or prediction.ndim not in (2, 3):
        faults.append(
            f"masks have the shapes {prediction.shape} and {reference.shape}; they must be one, of two or three axes"
        )
    if len(spacing) != reference.ndim or not all(0 < size < np.inf for size in spacing):
        faults.append(
            f"spacing {tuple(spacing)} must be a positive number of mm for each of {reference.ndim} axes"
        )
    if not prediction.any() or not reference.any():
        faults.append("an empty mask has no surface; apply a rule for empty masks first")
    if faults:
        raise InputError("; ".join(faults))


def _border(mask: Bool[np.ndarray, "*spatial"]) -> Bool[np.ndarray, "*spatial"]:
    """Return the voxels of a mask with a neighbour along an axis outside of it (beyond the array is outside)."""
    padded = np.pad(mask, 1)
    inner = mask.copy()
    for axis in range(mask.ndim):
        for start in (0, 2):
            window = [slice(1, -1)] * mask.ndim
            window[axis] = slice(start, start + mask.shape[axis])
            inner &= padded[tuple(window)]
    return mask & ~inner
