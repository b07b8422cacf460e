"""Segmentation without a network, by thresholds of the training images."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Integer

_NUM_CANDIDATES = 96
_EVERY = 7
"""Step between the voxels that the search for thresholds uses."""


def best_thresholds(
    images: Sequence[Float[np.ndarray, "z y x"]],
    label_maps: Sequence[Integer[np.ndarray, "z y x"]],
    *,
    num_labels: int,
) -> tuple[float, ...]:
    """Find the thresholds with the highest mean Dice of the labels.

    The Dice of a label depends on its lower and its upper threshold only. So dynamic programming finds the best of all
    combinations of candidates.

    Args:
        images: Intensities (z, y, x) of each image.
        label_maps: Label map (z, y, x) of each image. Label 0 is darkest, the last label brightest.
        num_labels: Number of labels without the background.

    Returns:
        One threshold for each label, in rising order.
    """
    intensities = np.concatenate([image.ravel()[::_EVERY] for image in images])
    labels = np.concatenate([label_map.ravel()[::_EVERY] for label_map in label_maps])
    candidates = np.quantile(intensities, np.linspace(0, 1, _NUM_CANDIDATES + 2)[1:-1])
    bins = np.digitize(intensities, candidates)
    counts = np.stack(
        [np.bincount(bins[labels == label], minlength=len(candidates) + 1) for label in range(num_labels + 1)]
    )
    above = np.flip(np.flip(counts, 1).cumsum(1), 1)[:, 1:]  # voxels of each label above each candidate
    beyond = np.concatenate([above, np.zeros_like(above[:, :1])], axis=1)  # no upper threshold: none above it
    best = np.zeros(len(candidates) + 1)  # best sum over the labels so far, by their upper threshold
    best[:-1] = -np.inf
    choices = []
    for label in range(num_labels, 0, -1):
        inside = above[:, :, None] - beyond[:, None, :]
        total = inside.sum(0) + counts[label].sum()
        dice = 2 * inside[label] / np.maximum(total, 1)
        is_ordered = np.arange(len(candidates))[:, None] < np.arange(len(candidates) + 1)
        sums = np.where(is_ordered, dice + best, -np.inf)
        choices.append(sums.argmax(1))
        best = np.append(sums.max(1), -np.inf)
    chosen = [int(best.argmax())]
    for choice in choices[:0:-1]:
        chosen.append(int(choice[chosen[-1]]))
    return tuple(float(candidates[number]) for number in chosen)


def apply_thresholds(
    image: Float[np.ndarray, "z y x"], thresholds: Sequence[float]
) -> Integer[np.ndarray, "z y x"]:
    """Label each voxel with the number of thresholds that it reaches.

    Args:
        image: Intensities (z, y, x).
        thresholds: Thresholds in rising order.
    """
    return np.digitize(image, thresholds).astype(np.uint8)
