"""Scores compared with MedPy (Dice, HD95, ASD) and DeepMind's surface-distance (NSD).

Both packages are test requirements only.
"""

import math
import time

import numpy as np
import pytest
from scipy import ndimage

from scanseg.evaluation import METRIC_RULES, score_case
from scanseg.evaluation.overlap import count_overlaps
from scanseg.evaluation.surface import surface_dice, surface_distances
from scanseg.imaging import read_label_map

pytestmark = pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")  # surface-distance

medpy = pytest.importorskip("medpy.metric.binary", reason="MedPy is a test requirement: pip install medpy")
deepmind = pytest.importorskip("surface_distance", reason="a test requirement: pip install surface-distance")


def blob(rng, shape, *, part=0.25, sigma=1.5):
    noise = ndimage.gaussian_filter(rng.normal(size=shape), sigma)
    return noise > np.quantile(noise, 1 - part)


def one_voxel(shape, place):
    mask = np.zeros(shape, bool)
    mask[place] = True
    return mask


def pairs(rng):
    """Yield pairs of masks with a spacing and a tolerance.

    Tolerances are off the grid of distances, because rounding would decide about equal values.
    """
    for spacing in ((1.0, 1.0, 1.0), (3.3, 0.71, 1.13), (0.5, 0.5, 7.7)):
        for shape in ((9, 14, 12), (1, 16, 12), (2, 7, 30)):
            yield blob(rng, shape), blob(rng, shape), spacing
        yield one_voxel((5, 6, 7), (0, 0, 0)), one_voxel((5, 6, 7), (4, 5, 6)), spacing
        yield one_voxel((5, 6, 7), (2, 3, 3)), blob(rng, (5, 6, 7)), spacing
        yield np.ones((4, 5, 6), bool), blob(rng, (4, 5, 6)), spacing
    for spacing in ((1.0, 1.0), (2.3, 0.6)):
        yield blob(rng, (25, 31)), blob(rng, (25, 31)), spacing
        yield one_voxel((8, 9), (0, 8)), one_voxel((8, 9), (7, 0)), spacing


def assert_agree(prediction, reference, spacing):
    labels = {"label": (1,)}
    scores = score_case(
        prediction.astype(np.uint8),
        reference.astype(np.uint8),
        spacing=spacing,
        labels=labels,
        tolerance_mm=1.05,
    )["label"]
    assert scores.dice == pytest.approx(medpy.dc(prediction, reference), abs=1e-6)
    assert scores.hd95 == pytest.approx(medpy.hd95(prediction, reference, spacing), abs=1e-6)
    assert scores.asd == pytest.approx(medpy.assd(prediction, reference, spacing), abs=1e-6)
    distances = surface_distances(prediction, reference, spacing=spacing)
    assert distances.from_prediction.mean() == pytest.approx(
        medpy.asd(prediction, reference, spacing), abs=1e-6
    )
    assert distances.from_reference.mean() == pytest.approx(
        medpy.asd(reference, prediction, spacing), abs=1e-6
    )
    theirs = deepmind.compute_surface_distances(reference, prediction, spacing)
    for tolerance in (0.55, 1.05, 2.05, 5.05):
        assert surface_dice(prediction, reference, spacing=spacing, tolerance_mm=tolerance) == pytest.approx(
            deepmind.compute_surface_dice_at_tolerance(theirs, tolerance), abs=1e-6
        )


def test_random_and_one_voxel_masks(rng):
    for prediction, reference, spacing in pairs(rng):
        assert_agree(prediction, reference, spacing)


def test_voxels_are_medpys_distances_without_spacing(rng):
    prediction, reference = blob(rng, (9, 14, 12)), blob(rng, (9, 14, 12))
    scores = score_case(
        prediction.astype(int),
        reference.astype(int),
        spacing=(3.3, 0.7, 1.1),
        labels={"label": (1,)},
        distance_unit="voxels",
    )["label"]
    assert scores.hd95 == pytest.approx(medpy.hd95(prediction, reference), abs=1e-6)
    assert scores.asd == pytest.approx(medpy.assd(prediction, reference), abs=1e-6)
    assert scores.nsd == surface_dice(prediction, reference, spacing=(3.3, 0.7, 1.1), tolerance_mm=2)


def test_empty_masks_as_the_other_implementations_have_them(rng, monkeypatch):
    monkeypatch.setattr(np, "Inf", np.inf, raising=False)  # surface-distance 0.1 has numpy 1's name
    empty, mask = np.zeros((5, 6, 7), bool), blob(rng, (5, 6, 7))
    for prediction, reference in ((empty, mask), (mask, empty)):
        scores = score_case(
            prediction.astype(int), reference.astype(int), spacing=(1, 1, 1), labels={"label": (1,)}
        )["label"]
        assert scores.dice == medpy.dc(prediction, reference) == 0
        theirs = deepmind.compute_surface_distances(reference, prediction, (1, 1, 1))
        assert scores.nsd == deepmind.compute_surface_dice_at_tolerance(theirs, 2) == 0
        assert scores.hd95 == math.inf
        with pytest.raises(RuntimeError):
            medpy.hd95(prediction, reference)
    # Both empty: DeepMind's surface Dice is 0 / 0, so a rule has to define the score.
    theirs = deepmind.compute_surface_distances(empty, empty, (1, 1, 1))
    with pytest.warns(RuntimeWarning, match="invalid value"):
        surface_dice_of_nothing = deepmind.compute_surface_dice_at_tolerance(theirs, 2)
    assert math.isnan(surface_dice_of_nothing)
    assert METRIC_RULES["skip"].both_empty.nsd is None


def real_label_maps(shared_data):
    """Yield the first label maps of real data sets, with their spacings."""
    for name, number in (("hippocampus", 2), ("acdc", 2), ("chaos-mr", 1), ("brats2015", 1)):
        for path in sorted((shared_data / name / "labelsTr").glob("*.nii.gz"))[:number]:
            image = read_label_map(path)
            yield path.name, image.array[0], image.spacing


def test_real_masks(shared_data):
    for name, label_map, spacing in real_label_maps(shared_data):
        worn = ndimage.median_filter(np.roll(label_map, (1, -2), axis=(1, 2)), size=(1, 3, 3))
        values = sorted(set(np.unique(label_map)) & set(np.unique(worn)) - {0})
        assert values, name
        for value in values:
            box = ndimage.find_objects(((label_map == value) | (worn == value)).astype(int))[0]
            assert_agree(worn[box] == value, label_map[box] == value, spacing)


def organs(shape, num_labels, *, shift):
    """Return a label map with large round organs: 12 million voxels in the shape below."""
    label_map = np.zeros(shape, np.uint8)
    rng = np.random.default_rng(3)
    for label in range(1, num_labels + 1):
        radius = rng.uniform((15, 20, 20), (90, 120, 120))
        middle = np.array([rng.uniform(60, size - 60) for size in shape]) + shift
        box = tuple(
            slice(max(0, int(m - r)), min(size, int(m + r) + 1))
            for m, r, size in zip(middle, radius, shape, strict=True)
        )
        axes = np.ogrid[box]
        inside = sum(((axis - m) / r) ** 2 for axis, m, r in zip(axes, middle, radius, strict=True)) <= 1
        label_map[box][inside] = label
    return label_map


@pytest.mark.slow  # scores of 79 million voxels
@pytest.mark.parametrize(("flecks", "limit"), [(0.0, 20), (0.02, 30)])
def test_a_large_case_takes_seconds(flecks, limit, rng):
    shape, num_labels = (300, 512, 512), 13
    prediction, reference = (organs(shape, num_labels, shift=shift) for shift in (0, 3))
    places = rng.integers(prediction.size, size=int(flecks * prediction.size))
    prediction.reshape(-1)[places] = rng.integers(num_labels + 1, size=len(places))
    labels = {str(value): (value,) for value in range(1, num_labels + 1)}
    assert all(overlap.both for overlap in count_overlaps(prediction, reference, labels=labels).values())
    start = time.process_time()  # one thread scores; other work on the machine does not count
    scores = score_case(prediction, reference, spacing=(2.5, 0.8, 0.8), labels=labels)
    seconds = time.process_time() - start
    assert all(score.hd95 > 0 and 0 < score.nsd < 1 for score in scores.values())
    assert seconds < limit, f"{seconds:.1f} s"
