import numpy as np
import pytest
import torch
from scipy import ndimage

from scanseg.batches.augmentation.predicted import perturb_labels
from scanseg.specs import CascadeSpec


@pytest.fixture
def channels():
    """Two labels: a ball and a box."""
    z, y, x = np.mgrid[:16, :20, :24]
    ball = (z - 8) ** 2 + (y - 9) ** 2 + (x - 6) ** 2 < 25
    box = (x > 12) & (x < 20) & (y > 4) & (y < 14)
    return torch.from_numpy(np.stack([ball, box]).astype(np.float32))


def changed(channels, seed, **settings):
    return perturb_labels(channels, CascadeSpec(**settings), rng=np.random.default_rng(seed))


def test_labels_do_not_overlap_and_are_zeros_and_ones(channels):
    sizes = set()
    for seed in range(30):
        result = changed(channels, seed, change_probability=1.0, change_radius=4)
        assert set(result.unique().tolist()) <= {0.0, 1.0}
        assert result.sum(0).max() <= 1
        sizes.add(int(result[0].sum()))
    assert min(sizes) < channels[0].sum() < max(sizes)


def test_probability_0_changes_no_label(channels):
    before = channels.clone()
    assert torch.equal(changed(channels, 0, change_probability=0.0, drop_probability=0.0), channels)
    changed(channels, 0, change_probability=1.0, drop_probability=1.0)
    assert torch.equal(channels, before)


def test_changes_equal_morphology_with_boxes(channels):
    found = set()
    mask = channels[:1]
    structure = np.ones((3, 3, 3), dtype=bool)
    array = mask[0].numpy() > 0
    expected = {
        "grow": ndimage.binary_dilation(array, structure),
        "shrink": ndimage.binary_erosion(array, structure, border_value=1),
        "open": ndimage.binary_opening(array, structure),
        "close": ndimage.binary_closing(array, structure),
    }
    for seed in range(40):
        result = changed(mask, seed, change_probability=1.0, change_radius=1, drop_probability=0.0)
        names = {name for name, each in expected.items() if (each == (result[0].numpy() > 0)).all()}
        assert names
        found |= names
    assert found == set(expected)


def test_one_small_component_is_removed(channels):
    both = channels.sum(0, keepdim=True)
    result = changed(both, 0, change_probability=0.0, drop_probability=1.0, largest_dropped=1.0)
    assert [float(part) for part in (result * channels).sum(dim=(1, 2, 3))].count(0.0) == 1
    ball = channels[:1]
    kept = changed(ball, 0, change_probability=0.0, drop_probability=1.0, largest_dropped=0.001)
    assert torch.equal(kept, ball)
