"""Target spacing, axis order and resulting median shape."""

from dataclasses import dataclass

import numpy as np

from scanseg.specs import Fingerprint

ANISOTROPY_THRESHOLD = 3.0
"""Ratio of spacings from which an axis is much coarser than the others."""

Triple = tuple[float, float, float]
"""Values along z, y, x."""


@dataclass(frozen=True)
class TargetGrid:
    """Grid of a network's input."""

    axis_order: tuple[int, int, int]
    """Source axis of z, y, x. The coarsest axis is the first."""
    spacing: Triple
    """Millimetres per voxel along the permuted axes."""
    median_shape: Triple
    """Median number of voxels of cases after resampling, along the permuted axes."""
    num_voxels: float
    """Approximate number of voxels of the data set after resampling."""


def choose_grid(fingerprint: Fingerprint) -> TargetGrid:
    """Choose the target spacing of resampling.

    It is the median over cases. Along an axis that is much coarser and has far fewer voxels than the others, it is the
    10th percentile, since otherwise most cases would lose detail.

    Args:
        fingerprint: Spacings and shapes of the cases.
    """
    spacings = np.array([case.spacing for case in fingerprint.cases])
    shapes = np.array([case.shape for case in fingerprint.cases])
    target, size = np.median(spacings, axis=0), np.median(shapes, axis=0)
    worst = int(np.argmax(target))
    others = [axis for axis in range(3) if axis != worst]
    coarser = target[worst] > ANISOTROPY_THRESHOLD * target[others].max()
    shorter = size[worst] * ANISOTROPY_THRESHOLD < size[others].min()
    if coarser and shorter:
        finer = float(np.percentile(spacings[:, worst], 10))
        target[worst] = max(finer, target[others].max() + 1e-5) if finer < target[others].max() else finer
    order = (worst, *others)
    resampled = np.maximum(np.round(spacings / target * shapes)[:, order], 1)  # as preprocessing does
    median = np.median(resampled, axis=0)
    return TargetGrid(
        axis_order=(order[0], order[1], order[2]),
        spacing=_triple(target[list(order)]),
        median_shape=_triple(median),
        num_voxels=float(median.prod()) * len(fingerprint.cases),
    )


def _triple(values: np.ndarray) -> Triple:
    """Return three values as a tuple of floats."""
    return float(values[0]), float(values[1]), float(values[2])
