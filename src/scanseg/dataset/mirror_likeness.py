"""Likeness of the labels of a data set and their mirror images."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float16, Integer

from scanseg.imaging import find_reorientation
from scanseg.specs import DatasetSpec

LARGEST_NUM_CASES = 200
"""Number of cases from which the mean label map is computed at most."""
SMALLEST_NUM_CASES = 10
"""Number of cases that a mean label map needs."""
_NUM_CELLS = 16
"""Cells of the common grid along each axis."""
_SAMPLES_PER_CELL = 4
"""Sampled voxels of each cell along each axis."""


def cover_cells(
    label_map: Integer[np.ndarray, "z y x"], spec: DatasetSpec
) -> Float16[np.ndarray, "label 16 16 16"]:
    """Return the share of each label in each cell.

    The grid divides every axis of the image into 16 cells. Each cell is sampled at 4 voxels along each axis.

    Args:
        label_map: Label map. A 2D image has one voxel along z.
        spec: Description of the data set.
    """
    num_samples = _NUM_CELLS * _SAMPLES_PER_CELL
    voxels = [((np.arange(num_samples) + 0.5) * size / num_samples).astype(int) for size in label_map.shape]
    sampled = label_map[np.ix_(*voxels)]
    cells = (_NUM_CELLS, _SAMPLES_PER_CELL) * 3
    return np.stack(
        [
            np.isin(sampled, values).reshape(cells).mean(axis=(1, 3, 5)).astype(np.float16)
            for values in spec.foreground.values()
        ]
    )


def measure_likeness(
    shares: Sequence[Float16[np.ndarray, "label 16 16 16"]],
    orientations: Sequence[str | None],
    *,
    orientation: str | None,
) -> tuple[float, float, float] | None:
    """Return how alike the mean label map and its mirror images are.

    It is the soft Dice of the mean share of a label and its mirror image, from 0 to 1, for the least alike label.

    Args:
        shares: Results of `cover_cells`.
        orientations: Axis codes of x, y, z of each of them. `None`: a 2D image.
        orientation: Axis codes to which all are brought.

    Returns:
        The likeness along z, y, x. `None`: too few cases, or no label in any of them.
    """
    if len(shares) < SMALLEST_NUM_CASES:
        return None
    mean = np.zeros(shares[0].shape)
    for share, source in zip(shares, orientations, strict=True):
        mean += _reorient(share, source, orientation)
    found = [each for each in mean if each.any()]
    if not found:
        return None
    z, y, x = (min(_soft_dice(each, axis) for each in found) for axis in range(3))
    return z, y, x


def _reorient(share: np.ndarray, source: str | None, target: str | None) -> np.ndarray:
    """Bring the shares of a case to an orientation."""
    if source is None or target is None or source == target:
        return share
    order, flips = find_reorientation(source, target)
    turned = share.transpose(0, *(axis + 1 for axis in order))
    return np.flip(turned, tuple(axis + 1 for axis, flipped in enumerate(flips) if flipped))


def _soft_dice(share: Float[np.ndarray, "z y x"], axis: int) -> float:
    """Return the part of a mean label that overlaps its mirror image.

    This is twice the sum of the minimum over the sum of both, which are equal.
    """
    return round(float(np.minimum(share, np.flip(share, axis)).sum() / share.sum()), 3)
