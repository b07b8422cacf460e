import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from scanseg.errors import InputError
from scanseg.evaluation import distances, points
from scanseg.evaluation.distances import nearest_distances
from scanseg.evaluation.surface import surface_dice, surface_distances
from scanseg.evaluation.surfels import CORNERS, surfel_sizes

from . import brute_force


def hd95(prediction, reference, *, spacing):
    return surface_distances(prediction, reference, spacing=spacing).hd95


def size_function(spacing):
    sizes = surfel_sizes(spacing)
    corners = CORNERS if len(spacing) == 3 else tuple(itertools.product((0, 1), repeat=2))

    def size(offsets):
        return sizes[sum(1 << (len(corners) - 1 - corners.index(offset)) for offset in offsets)]

    return size


def choose_way(monkeypatch, way):
    for name in ("VOXELS_PER_POINT", "VOXELS_PER_NEAR_POINT"):
        monkeypatch.setattr(distances, name, 0 if way == "tree" else 10**9)


def blobs(rng, shape, *, sigma=1.2):
    noise = ndimage.gaussian_filter(rng.normal(size=shape), sigma)
    return noise > np.quantile(noise, 0.75)


CASES = {
    "3d": ((7, 8, 9), (1.0, 1.0, 1.0)),
    "3d anisotropic": ((5, 9, 8), (3.3, 0.7, 1.1)),
    "3d one slice": ((1, 9, 8), (5.0, 0.8, 0.8)),
    "2d": ((14, 12), (1.0, 1.0)),
    "2d anisotropic": ((12, 13), (2.2, 0.6)),
}


@pytest.mark.parametrize("way", ["tree", "transform"])
@pytest.mark.parametrize("name", CASES)
def test_equals_brute_force(name, way, rng, monkeypatch):
    choose_way(monkeypatch, way)
    shape, spacing = CASES[name]
    for _ in range(4):
        prediction, reference = blobs(rng, shape), blobs(rng, shape)
        assert hd95(prediction, reference, spacing=spacing) == pytest.approx(
            brute_force.hausdorff_95(prediction, reference, spacing), abs=1e-9
        )
        for tolerance in (0.0, 1.0, 2.0):
            assert surface_dice(
                prediction, reference, spacing=spacing, tolerance_mm=tolerance
            ) == pytest.approx(
                brute_force.surface_dice(prediction, reference, spacing, tolerance, size_function(spacing)),
                abs=1e-9,
            )


@pytest.mark.parametrize("way", ["tree", "transform"])
@pytest.mark.parametrize("shape", [(11, 9, 14), (30, 26)])
def test_masks_with_flecks_equal_brute_force(shape, way, rng, monkeypatch):
    choose_way(monkeypatch, way)
    monkeypatch.setattr(points, "_SLAB_VOXELS", 300)  # several slabs
    spacing = (2.0, 0.5, 0.9)[-len(shape) :]
    reference = np.zeros(shape, bool)
    reference[tuple(slice(3, 7) for _ in shape)] = True
    prediction = np.roll(reference, 1, axis=0) ^ (rng.random(shape) < 0.02)
    for masks in ((prediction, reference), (reference, prediction)):
        found = surface_distances(*masks, spacing=spacing)
        borders = [brute_force.border_voxels(mask) for mask in masks]
        assert found.from_prediction == pytest.approx(brute_force.nearest(*borders, spacing), abs=1e-12)
        assert found.from_reference == pytest.approx(brute_force.nearest(*borders[::-1], spacing), abs=1e-12)
        for tolerance in (0.0, 0.5, 1.03, 4.0, math.inf):
            nsd = brute_force.surface_dice(*masks, spacing, tolerance, size_function(spacing))
            assert surface_dice(*masks, spacing=spacing, tolerance_mm=tolerance) == pytest.approx(
                nsd, abs=1e-12
            )


def test_flecks_far_from_the_reference_are_not_searched_for_a_tolerance(monkeypatch):
    prediction, reference = np.zeros((2, 60, 60, 60), bool)
    reference[:6, :6, :6] = prediction[:6, :6, 1:7] = True
    prediction[20::4, 20::4, 20::4] = True
    searched = []

    def count_and_search(own, others, **settings):
        searched.append(len(own) + len(others))
        return nearest_distances(own, others, **settings)

    monkeypatch.setattr(distances, "nearest_distances", count_and_search)
    nsd = surface_dice(prediction, reference, spacing=(1, 1, 1), tolerance_mm=2)
    # 1000 flecks of 8 surfels each, beside 218 surfels of each box.
    assert 0 < nsd < 0.3
    assert searched == [2 * 218, 2 * 218]


def test_boxes_at_opposite_corners_share_no_surface():
    prediction, reference = np.zeros((2, 20, 20), bool)
    prediction[:3, :3] = reference[-3:, -3:] = True
    assert surface_dice(prediction, reference, spacing=(1, 1), tolerance_mm=5) == 0
    # The box of the tolerance holds a point of the reference, but not its sphere.
    prediction[:3, -3:] = prediction[-3:, :3] = True
    reference[:] = False
    reference[10, 10] = True
    assert surface_dice(prediction, reference, spacing=(1, 1), tolerance_mm=7) == 0


def test_one_voxel_each():
    prediction, reference = np.zeros((2, 6, 6, 6), bool)
    prediction[1, 1, 1] = reference[4, 5, 1] = True
    spacing = (2.0, 0.5, 1.0)
    assert hd95(prediction, reference, spacing=spacing) == pytest.approx(math.hypot(6, 2))
    assert surface_dice(prediction, reference, spacing=spacing, tolerance_mm=1) == 0
    assert surface_dice(prediction, reference, spacing=spacing, tolerance_mm=7) == 1


def test_percentile_by_hand():
    # A row of 20 pixels against one of 21: the 41 distances are forty 0 and one 1; place 38 of the sorted is 0.
    prediction, reference = np.zeros((2, 1, 30), bool)
    prediction[0, :20] = reference[0, :21] = True
    assert hd95(prediction, reference, spacing=(1, 1)) == 0
    # One of 24: distances 1 2 3 4 beside forty 0; place 0.95 * 43 = 40.85 lies between 1 and 2.
    reference[0, :24] = True
    assert hd95(prediction, reference, spacing=(1, 1)) == pytest.approx(1.85)


def test_surface_dice_by_hand():
    # Two squares of 4 pixels side, one moved by 2 along x. Their outlines pass 16 points between pixels: 12 along
    # edges, of length 1, and 4 at corners, of length sqrt(1/2). On both edges along x they share 3 points, of
    # which one is a corner of the one square and one of the other.
    prediction, reference = np.zeros((2, 8, 12), bool)
    prediction[2:6, 2:6] = True
    reference[2:6, 4:8] = True
    corner = math.sqrt(0.5)
    shared, outline = 2 * (1 + 1 + corner), 12 + 4 * corner
    assert surface_dice(prediction, reference, spacing=(1, 1), tolerance_mm=0) == pytest.approx(
        shared / outline
    )
    assert surface_dice(prediction, reference, spacing=(1, 1), tolerance_mm=2) == 1


def test_a_mask_is_like_itself_also_at_the_border(rng):
    mask = np.ones((4, 5, 6), bool)
    mask[1:3, 2, 3] = False
    assert hd95(mask, mask, spacing=(1, 2, 3)) == 0
    assert surface_dice(mask, mask, spacing=(1, 2, 3), tolerance_mm=0) == 1


def test_cropping_changes_nothing(rng):
    small = [blobs(rng, (6, 7, 8)) for _ in range(2)]
    large = [np.pad(mask, ((3, 5), (0, 9), (2, 0))) for mask in small]
    spacing = (2.0, 1.0, 0.5)
    assert hd95(*small, spacing=spacing) == hd95(*large, spacing=spacing)
    assert surface_dice(*small, spacing=spacing, tolerance_mm=1) == pytest.approx(
        surface_dice(*large, spacing=spacing, tolerance_mm=1), abs=1e-12
    )


def test_a_distance_equal_to_the_tolerance_is_within_despite_rounding():
    # 3 * 0.1 is 0.30000000000000004.
    prediction, reference = np.zeros((2, 20, 20), bool)
    prediction[5:10, 2:15] = True
    reference[8:13, 2:15] = True
    assert surface_dice(prediction, reference, spacing=(0.1, 0.1), tolerance_mm=0.3) == 1


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_symmetric_and_scaling(seed):
    rng = np.random.default_rng(seed)
    prediction, reference = blobs(rng, (5, 6, 7)), blobs(rng, (5, 6, 7))
    spacing = rng.uniform(0.5, 3, 3)
    forth = hd95(prediction, reference, spacing=spacing)
    assert hd95(reference, prediction, spacing=spacing) == pytest.approx(forth)
    assert hd95(prediction, reference, spacing=2 * spacing) == pytest.approx(2 * forth)
    near = surface_dice(prediction, reference, spacing=spacing, tolerance_mm=1)
    assert 0 <= near <= surface_dice(prediction, reference, spacing=spacing, tolerance_mm=2) <= 1
    assert surface_dice(reference, prediction, spacing=spacing, tolerance_mm=1) == pytest.approx(near)


def test_faults_are_reported_together():
    with pytest.raises(InputError, match=r"int64.*\(2, 2\).*spacing: .* got \(1, 0\).*empty"):
        hd95(np.zeros((2, 2), int), np.zeros((2, 3), int), spacing=(1, 0))
    with pytest.raises(InputError, match=r"tolerance_mm: .* got -1"):
        surface_dice(np.ones((2, 2), bool), np.ones((2, 2), bool), spacing=(1, 1), tolerance_mm=-1)
