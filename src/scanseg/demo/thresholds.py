"""Segmentation without a network, by two thresholds of the training slabs."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Integer

_NUM_CANDIDATES = 64
_EVERY = 7
"""Step between the voxels that the search for thresholds uses."""


def best_thresholds(
    images: Sequence[Float[np.ndarray, "z y x"]], label_maps: Sequence[Integer[np.ndarray, "z y x"]]
) -> tuple[float, float]:
    """Find the two thresholds with the highest mean Dice.

    The mean is over the labels 1 and 2.

    Args:
        images: Intensities (z, y, x) of each image.
        label_maps: Label map (z, y, x) of each image. Label 0 is darkest, label 2 brightest.

    Returns:
        The lower and the upper threshold.
    """
    intensities = np.concatenate([image.ravel()[::_EVERY] for image in images])
    labels = np.concatenate([label_map.ravel()[::_EVERY] for label_map in label_maps])
    candidates = np.quantile(intensities, np.linspace(0, 1, _NUM_CANDIDATES + 2)[1:-1])
    bins = np.digitize(intensities, candidates)
    counts = np.stack(
        [np.bincount(bins[labels == label], minlength=len(candidates) + 1) for label in range(3)]
    )
    above = counts.sum(1, keepdims=True) - np.cumsum(counts, axis=1)
    best, chosen = -1.0, (0, 1)
    for low in range(len(candidates)):
        for high in range(low + 1, len(candidates)):
            predicted = (above[:, low] - above[:, high], above[:, high])
            dice = [
                2 * predicted[label - 1][label] / (predicted[label - 1].sum() + counts[label].sum())
                for label in (1, 2)
            ]
            if np.mean(dice) > best:
                best, chosen = float(np.mean(dice)), (low, high)
    return float(candidates[chosen[0]]), float(candidates[chosen[1]])


def apply_thresholds(
    image: Float[np.ndarray, "z y x"], thresholds: tuple[float, float]
) -> Integer[np.ndarray, "z y x"]:
    """Label each voxel with the number of thresholds that it reaches.

    Args:
        image: Intensities (z, y, x).
        thresholds: Lower and upper threshold.
    """
    return np.digitize(image, thresholds).astype(np.uint8)
