"""Likeness of the mean label map and its mirror images."""

import numpy as np
import pytest

from scanseg.dataset.fingerprint import compute_fingerprint
from scanseg.dataset.mirror_likeness import cover_cells, measure_likeness
from scanseg.dataset.raw import open_dataset
from scanseg.runtime import RunContext
from scanseg.specs import DatasetSpec

SPEC = DatasetSpec(
    name="set",
    channel_names=("MRI",),
    labels={"background": 0, "front": 1, "back": 2},
    file_ending=".nii.gz",
)


def one_map():
    """Two labels, alike along x, half alike along y, unlike along z."""
    label_map = np.zeros((32, 64, 48), np.uint8)
    label_map[0:8, 16:40, 12:36] = 1
    label_map[24:32, 16:40, 12:36] = 2
    return label_map


def test_is_the_overlap_of_the_mean_label_map_and_its_mirror_image():
    shares = [cover_cells(one_map(), SPEC)] * 10

    found = measure_likeness(shares, ["RAS"] * 10, orientation="RAS")

    # y: 24 voxels from 16 to 40, and their mirror image from 24 to 48, overlap in 16
    assert found == pytest.approx((0.0, 16 / 24, 1.0), abs=1e-3)


def test_is_that_of_the_least_alike_label():
    label_map = one_map()
    label_map[24:32, 16:40, 0:12] = 2  # label 2 from x = 0 to 36: its mirror image overlaps in 24 of 36

    found = measure_likeness([cover_cells(label_map, SPEC)] * 10, [None] * 10, orientation=None)

    assert found is not None
    assert found[2] == pytest.approx(24 / 36, abs=1e-3)


def test_is_taken_from_the_mean_and_not_from_single_cases():
    left, right = one_map(), one_map()
    left[:, :, 24:], right[:, :, :24] = 0, 0
    sides = [cover_cells(left, SPEC), cover_cells(right, SPEC)] * 5

    assert measure_likeness(sides, [None] * 10, orientation=None)[2] == pytest.approx(1, abs=1e-3)
    assert measure_likeness(sides[::2] * 2, [None] * 10, orientation=None)[2] == 0


def test_cases_are_brought_to_one_orientation():
    straight = one_map()
    straight[0:8, :, :18] = 0  # label 1 more on one side
    turned = straight.transpose(2, 1, 0)[:, :, ::-1]  # its axes x, y, z are IAR, not RAS

    shares = [cover_cells(straight, SPEC)] * 5 + [cover_cells(turned, SPEC)] * 5
    codes = ["RAS"] * 5 + ["IAR"] * 5

    expected = measure_likeness(shares[:5] * 2, ["RAS"] * 10, orientation="RAS")
    assert measure_likeness(shares, codes, orientation="RAS") == expected
    assert measure_likeness(shares, ["RAS"] * 10, orientation="RAS") != expected


def test_few_cases_or_no_label_have_none():
    share = cover_cells(one_map(), SPEC)

    assert measure_likeness([share] * 9, [None] * 9, orientation=None) is None
    assert measure_likeness([share * 0] * 10, [None] * 10, orientation=None) is None


def test_a_label_of_no_case_does_not_count():
    label_map = one_map()
    label_map[label_map == 2] = 0

    assert measure_likeness([cover_cells(label_map, SPEC)] * 10, [None] * 10, orientation=None)[2] == 1


def test_sizes_that_the_grid_does_not_divide():
    label_map = np.zeros((1, 301, 7), np.uint8)
    label_map[:, 100:201, 3] = 1

    (front, back) = cover_cells(label_map, SPEC)

    assert front.shape == (16, 16, 16)
    assert not back.any()
    assert front.mean(dtype=float) == pytest.approx(101 / 301 / 7, rel=0.15)
    np.testing.assert_allclose(front, front[:, ::-1], atol=0.26)


def test_the_fingerprint_has_it(make_dataset, volume_writer):
    folder = make_dataset(10)
    for number in range(10):
        label_map = np.zeros((5, 12, 10), np.uint8)
        label_map[:, :6, 2:8] = 1
        volume_writer(folder / f"labelsTr/case_{number}.nii.gz", label_map)
        volume_writer(folder / f"imagesTr/case_{number}_0000.nii.gz", np.ones((5, 12, 10), np.int16))

    found = compute_fingerprint(open_dataset(folder), context=RunContext(num_workers=0))

    assert found.mirror_likeness == pytest.approx((1, 0, 1), abs=0.01)
