"""Volumes and overlap of labels: Dice."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, UInt8

SLAB_VOXELS = 1 << 22
"""Voxels that are counted at a time; bounds the memory."""


@dataclass(frozen=True)
class Overlap:
    """Voxels of one label in a prediction and its reference."""

    prediction: int
    reference: int
    both: int
    """Voxels that have the label in both."""

    @property
    def dice(self) -> float:
        """Twice the common voxels by the sum of voxels; one of the masks must not be empty."""
        return 2 * self.both / (self.prediction + self.reference)


def count_overlaps(
    prediction: UInt8[np.ndarray, "*spatial"],
    reference: UInt8[np.ndarray, "*spatial"],
    *,
    labels: Mapping[str, tuple[int, ...]],
) -> dict[str, Overlap]:
    """Count the voxels of every label in one pass over the label maps.

    Args:
        prediction: Values of every voxel.
        reference: Values of every voxel, of the same shape.
        labels: Name of each label, or region, to the values that make it up.
    """
    size = 1 + max(max(values) for values in labels.values())
    size = max(size, 1 + int(prediction.max(initial=0)), 1 + int(reference.max(initial=0)))
    counts = _count_pairs(prediction, reference, size=size)
    overlaps = {}
    for name, values in labels.items():
        chosen = sorted(set(values))
        overlaps[name] = Overlap(
            prediction=int(counts[chosen].sum()),
            reference=int(counts[:, chosen].sum()),
            both=int(counts[np.ix_(chosen, chosen)].sum()),
        )
    return overlaps


def _count_pairs(
    prediction: UInt8[np.ndarray, "*spatial"], reference: UInt8[np.ndarray, "*spatial"], *, size: int
) -> Int[np.ndarray, "predicted referred"]:
    """Return how often each pair of values below `size` occurs."""
    counts = np.zeros(size * size, dtype=np.int64)
    rows = max(1, SLAB_VOXELS // max(1, prediction[:1].size))
    for start in range(0, len(prediction), rows):
        pairs = prediction[start : start + rows].astype(np.uint16) * np.uint16(size)
        pairs += reference[start : start + rows]
        counts += np.bincount(pairs.ravel(), minlength=size * size)
    return counts.reshape(size, size)
