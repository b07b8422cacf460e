"""The best thresholds."""

import itertools

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

    thresholds = best_thresholds([image[:10], image[10:]], [labels[:10], labels[10:]], num_labels=2)

    assert (apply_thresholds(image, thresholds) == labels).mean() > 0.97


def test_no_others_are_better_on_noisy_intensities(rng):
    labels = rng.choice(3, size=(30, 30, 30), p=[0.5, 0.3, 0.2])
    image = labels + 0.6 * rng.standard_normal(labels.shape)

    def score(thresholds):
        predicted = apply_thresholds(image, thresholds)
        return np.mean([dice(predicted, labels, label) for label in (1, 2)])

    found = score(best_thresholds([image], [labels], num_labels=2))

    tried = [
        score((low, high)) for low in np.arange(0, 1.5, 0.1) for high in np.arange(1, 2.5, 0.1) if low < high
    ]
    assert found >= max(tried) - 0.01
    assert found == pytest.approx(max(tried), abs=0.02)


@pytest.mark.parametrize("num_labels", [1, 2, 3])
def test_equal_the_best_of_all_combinations(rng, num_labels):
    labels = rng.integers(num_labels + 1, size=(7, 20, 21))
    image = labels + 0.5 * rng.standard_normal(labels.shape)
    # the function samples every seventh voxel of the flat arrays, and its candidates are quantiles of these
    voxels, kinds = image.ravel()[::7], labels.ravel()[::7]
    candidates = np.quantile(voxels, np.linspace(0, 1, 98)[1:-1])[::6]

    def score(thresholds):
        predicted = apply_thresholds(voxels, thresholds)
        return np.mean([dice(predicted, kinds, label) for label in range(1, num_labels + 1)])

    found = best_thresholds([image], [labels], num_labels=num_labels)

    assert len(found) == num_labels
    assert list(found) == sorted(found)
    assert score(found) >= max(map(score, itertools.combinations(candidates, num_labels)))
