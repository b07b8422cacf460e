"""The two best thresholds."""

import numpy as np
import pytest

from scanseg.demo.thresholds import apply_thresholds, best_thresholds


def dice(predicted, labels, label):
    return (
        2
        * ((predicted == label) & (labels == label)).sum()
        / ((predicted == label).sum() + (labels == label).sum())
    )


def test_clean_intensities_are_separated_exactly(rng):
    labels = rng.integers(3, size=(20, 21, 22))
    image = labels * 1.0 + 0.2 * rng.random(labels.shape)

    thresholds = best_thresholds([image[:10], image[10:]], [labels[:10], labels[10:]])

    assert (apply_thresholds(image, thresholds) == labels).mean() > 0.97


def test_no_others_are_better_on_noisy_intensities(rng):
    labels = rng.choice(3, size=(30, 30, 30), p=[0.5, 0.3, 0.2])
    image = labels + 0.6 * rng.standard_normal(labels.shape)

    def score(thresholds):
        predicted = apply_thresholds(image, thresholds)
        return np.mean([dice(predicted, labels, label) for label in (1, 2)])

    found = score(best_thresholds([image], [labels]))

    tried = [
        score((low, high)) for low in np.arange(0, 1.5, 0.1) for high in np.arange(1, 2.5, 0.1) if low < high
    ]
    assert found >= max(tried) - 0.01
    assert found == pytest.approx(max(tried), abs=0.02)
