"""Surface metrics of two masks: HD95, mean distance (ASD), surface Dice (NSD).

Neither mask may be empty. The rules in `scanseg.evaluation.rules` define the scores of empty masks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from scanseg.errors import InputError
from scanseg.evaluation.distances import are_near, nearest_distances
from scanseg.evaluation.points import Points, padded_slabs
from scanseg.evaluation.surfels import find_surfels, surfel_sizes

ROUNDING = 1e-9
"""Relative margin for rounding when a distance is compared with a tolerance.

With it, 3 voxels of 0.1 mm are within 0.3 mm.
"""


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """Distances between the surfaces of two masks, in the spacing's unit."""

    from_prediction: Float[np.ndarray, " point"]
    """Distance of each surface voxel of the prediction to the surface of the reference."""
    from_reference: Float[np.ndarray, " point"]
    """Distance of each surface voxel of the reference to the surface of the prediction."""

    @property
    def hd95(self) -> float:
        """95th percentile of the pooled distances of both surfaces."""
        return float(np.percentile(np.concatenate([self.from_prediction, self.from_reference]), 95))

    @property
    def asd(self) -> float:
        """Mean of the pooled distances of both surfaces (MedPy's `assd` since 0.5)."""
        return float(np.concatenate([self.from_prediction, self.from_reference]).mean())


def surface_distances(
    prediction: Bool[np.ndarray, "*spatial"],
    reference: Bool[np.ndarray, "*spatial"],
    *,
    spacing: Sequence[float],
) -> SurfaceDistances:
    """Compute the distances of the surfaces of two masks to each other.

    MedPy's definition: the surface of a mask consists of the voxels that an erosion by one voxel along the axes
    removes, including voxels at the array's border.

    Args:
        prediction: Mask of two or three axes, not empty.
        reference: Mask of the same shape, not empty.
        spacing: Millimetres per voxel along the axes. 1: distances are in voxels.

    Raises:
        InputError: The masks cannot be compared.
    """
    _check(prediction, reference, spacing)
    borders = _find_border(prediction), _find_border(reference)
    return SurfaceDistances(
        from_prediction=nearest_distances(*borders, spacing=spacing),
        from_reference=nearest_distances(*borders[::-1], spacing=spacing),
    )


def surface_dice(
    prediction: Bool[np.ndarray, "*spatial"],
    reference: Bool[np.ndarray, "*spatial"],
    *,
    spacing: Sequence[float],
    tolerance_mm: float,
) -> float:
    """Compute the surface Dice (NSD) of two masks.

    It is the fraction of both surfaces within a tolerance of the other surface. Source: Nikolov et al. 2018,
    arXiv:1809.04430. Surfaces consist of surfels (`scanseg.evaluation.surfels`) at the corners between voxels, each
    weighted by its area, in 2D by its length.

    Args:
        prediction: Mask of two or three axes, not empty.
        reference: Mask of the same shape, not empty.
        spacing: Millimetres per voxel along the axes.
        tolerance_mm: Largest distance in mm at which surfaces agree.

    Returns:
        Fraction of the surfaces, 0 to 1.

    Raises:
        InputError: The masks cannot be compared, or the tolerance is negative.
    """
    _check(prediction, reference, spacing)
    if not tolerance_mm >= 0:
        raise InputError(f"tolerance_mm: expected at least 0, got {tolerance_mm}")
    sizes = surfel_sizes(spacing)
    surfels = find_surfels(prediction), find_surfels(reference)
    limit = tolerance_mm * (1 + ROUNDING)
    near, total = 0.0, 0.0
    for (points, codes), (others, _) in zip(surfels, surfels[::-1], strict=True):
        weights = sizes[codes]
        total += float(weights.sum())
        near += float(weights[are_near(points, others, spacing=spacing, tolerance_mm=limit)].sum())
    return near / total


def _check(
    prediction: Bool[np.ndarray, "*spatial"],
    reference: Bool[np.ndarray, "*spatial"],
    spacing: Sequence[float],
) -> None:
    faults = []
    if prediction.dtype != bool or reference.dtype != bool:
        faults.append(f"masks: expected bool, got {prediction.dtype} and {reference.dtype}")
    if prediction.shape != reference.shape or prediction.ndim not in (2, 3):
        faults.append(
            f"masks: expected equal shapes of two or three axes, got {prediction.shape} and {reference.shape}"
        )
    if len(spacing) != reference.ndim or not all(0 < size < np.inf for size in spacing):
        faults.append(
            f"spacing: expected a positive number of mm for each of {reference.ndim} axes, got {tuple(spacing)}"
        )
    if not prediction.any() or not reference.any():
        faults.append("an empty mask has no surface, apply a rule for empty masks first")
    if faults:
        raise InputError("; ".join(faults))


def _find_border(mask: Bool[np.ndarray, "*spatial"]) -> Points:
    """Return the voxels of a mask with a face neighbour outside it.

    Voxels beyond the array are outside.
    """
    positions = []
    centre = (slice(1, -1),) * mask.ndim
    for slab in padded_slabs(mask, overlap=2):
        own = slab.mask[centre]
        inner = own.copy()
        for axis in range(mask.ndim):
            for window in (slice(None, -2), slice(2, None)):
                inner &= slab.mask[(*centre[:axis], window, *centre[axis + 1 :])]
        places = np.flatnonzero(own & ~inner)
        positions.append(slab.positions(places, within=own.shape, shape=mask.shape))
    return Points(np.concatenate(positions), mask.shape)
