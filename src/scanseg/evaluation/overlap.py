"""Voxel counts and overlap (Dice) of labels."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, UInt8

SLAB_VOXELS = 1 << 22
"""Voxels counted at a time, which bounds the memory."""


@dataclass(frozen=True)
class Overlap:
    """Numbers of voxels of one label in a prediction and its reference."""

    prediction: int
    reference: int
    both: int
    """Number of voxels with the label in both."""

    @property
    def dice(self) -> float:
        """Twice the common voxels divided by the sum of both.

        At least one mask must not be empty.
        """
        return 2 * self.both / (self.prediction + self.reference)


def count_overlaps(
    prediction: UInt8[np.ndarray, "*spatial"],
    reference: UInt8[np.ndarray, "*spatial"],
    *,
    labels: Mapping[str, tuple[int, ...]],
) -> dict[str, Overlap]:
    """Count the voxels of all labels in one pass.

    Args:
        prediction: Label map of shape `spatial`.
        reference: Label map of the same shape.
        labels: Values of each label or region, by name.

    Returns:
        Voxel counts of each label, by name.
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
    """Count each pair of values below `size`."""
    counts = np.zeros(size * size, dtype=np.int64)
    rows = max(1, SLAB_VOXELS // max(1, prediction[:1].size))
    for start in range(0, len(prediction), rows):
        pairs = prediction[start : start + rows].astype(np.uint16) * np.uint16(size)
        pairs += reference[start : start + rows]
        counts += np.bincount(pairs.ravel(), minlength=size * size)
    return counts.reshape(size, size)
