"""Counts over voxels, and unusual predictions, compared with numbers computed by hand."""

import numpy as np
import pytest
from scipy import ndimage

from scanseg.errors import InputError
from scanseg.imaging import write_probabilities
from scanseg.reports import runs
from scanseg.reports.agreement import measure_agreement
from scanseg.reports.cases import measure_reliability, read_sampled
from scanseg.reports.evidence import (
    MOST_SAMPLES,
    EntropyCounts,
    Reliability,
    Shape,
    count_confusion,
    find_box,
    measure_shapes,
    sample_voxels,
)
from scanseg.reports.outliers import find_outliers, modified_scores
from scanseg.reports.runs import Runs
from scanseg.specs import DatasetSpec
from tests.factories import image_of


def dataset(labels: dict, order: tuple[int, ...] | None = None) -> DatasetSpec:
    return DatasetSpec(
        name="d", channel_names=("a",), labels=labels, regions_class_order=order, file_ending=".png"
    )


def test_the_calibration_error_is_the_weighted_distance_of_confidence_and_correctness():
    confidence = np.array([0.9, 0.9, 0.9, 0.9, 0.6, 0.6])
    correct = np.array([True, True, True, False, False, True])
    counts = Reliability.of(confidence, correct)
    # |0.75 - 0.9| for 4 voxels, |0.5 - 0.6| for 2 voxels
    assert counts.error == pytest.approx((4 * 0.15 + 2 * 0.1) / 6)
    both = counts + Reliability.of(np.array([1.0]), np.array([True]))
    assert both.counts.sum() == 7
    assert both.counts[-1] == 1  # a confidence of 1 is in the last bin
    confidences, shares = both.curve()
    assert np.nanmax(confidences) == 1
    assert np.isnan(shares[0])


def test_no_voxels_have_no_calibration_error():
    assert np.isnan(Reliability().error)


def test_confidence_of_labels_is_the_largest_probability():
    probabilities = np.array([[0.7, 0.2, 0.1], [0.2, 0.7, 0.3], [0.1, 0.1, 0.6]])
    spec = dataset({"background": 0, "a": 1, "b": 2, "ignore": 3})
    counts = measure_reliability(probabilities, np.array([0, 2, 3], np.uint8), spec)
    assert counts.counts.sum() == 2  # the ignored voxel is left out
    assert counts.correct.sum() == 1
    assert counts.confidence.sum() == pytest.approx(1.4)


def test_confidence_of_regions_is_that_of_each_decision():
    spec = dataset({"background": 0, "whole": (1, 2), "core": (2,)}, order=(1, 2))
    counts = measure_reliability(np.array([[0.9, 0.4], [0.2, 0.8]]), np.array([2, 0], np.uint8), spec)
    # voxel 1 (both regions): 0.9 right, 0.2 wrong (confidence 0.8); voxel 2 (none): 0.4 right (0.6), 0.8 wrong
    assert counts.confidence.sum() == pytest.approx(0.9 + 0.8 + 0.6 + 0.8)
    assert counts.correct.sum() == 2


def test_errors_are_counted_in_bins_of_entropy():
    counts = EntropyCounts.of(np.array([0.05, 0.05, 0.95, 1.0]), np.array([False, True, True, True]))
    assert counts.errors()[0] == 0.5
    assert (counts + counts).errors()[-1] == 1
    assert np.isnan(counts.errors()[4])


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4)])
def test_confusion_counts_pairs_of_values(shape):
    rng = np.random.default_rng(0)
    prediction, reference = (rng.choice([0, 1, 5, 9], size=shape).astype(np.uint8) for _ in range(2))
    found = count_confusion(prediction, reference, (0, 1, 5), ignore_label=9)
    expected = [
        [int(((reference == row) & (prediction == column)).sum()) for column in (0, 1, 5)]
        for row in (0, 1, 5)
    ]
    assert found.tolist() == expected


def test_boxes_have_a_margin_inside_the_image():
    mask, other = np.zeros((30, 40), np.uint8), np.zeros((30, 40), np.uint8)
    mask[10, 20], other[12, 1] = 1, 1
    assert find_box([mask, other], margin=3) == (slice(7, 16), slice(0, 24))
    assert find_box([np.zeros_like(mask)]) == (slice(None), slice(None))


def test_small_boxes_are_sampled_completely_and_large_ones_in_part():
    box = (slice(2, 4), slice(1, 3))
    assert np.array(sample_voxels((9, 9), box)).T.tolist() == [[2, 1], [2, 2], [3, 1], [3, 2]]
    rows, columns = sample_voxels((1000, 1000), (slice(100, 900), slice(None)))
    assert len(rows) == MOST_SAMPLES
    assert (rows.min(), rows.max()) == (100, 899)
    assert (np.diff(rows) >= 0).all()
    assert 490 < columns.mean() < 510


def test_probabilities_of_sampled_voxels_equal_the_array(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.random((3, 4, 5, 6)).astype(np.float16)
    path = tmp_path / "case.npz"
    write_probabilities(path, values, like=image_of(np.zeros((1, 4, 5, 6), np.float32)))
    places = sample_voxels((4, 5, 6), (slice(1, 4), slice(0, 2), slice(3, 6)))
    found = read_sampled(path, places, shape=(3, 4, 5, 6))
    np.testing.assert_array_equal(found, values[(slice(None), *places)].astype(np.float32))
    with pytest.raises(InputError, match="expected probabilities of shape"):
        read_sampled(path, places, shape=(2, 4, 5, 6))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match="damaged file"):
        read_sampled(path, places, shape=(3, 4, 5, 6))


def test_shapes_have_size_parts_and_position():
    label_map = np.zeros((10, 10), np.uint8)
    label_map[0:2, 0:2], label_map[8:10, 8:10], label_map[5, 5] = 1, 1, 2
    shapes = measure_shapes(label_map, {"a": (1,), "both": (1, 2), "none": (7,)})
    assert shapes["a"] == Shape(8, 2, pytest.approx((0.5, 0.5)))
    assert shapes["both"].num_components == 3
    assert shapes["none"] is None


@pytest.mark.parametrize("density", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("shape", [(30, 20, 27), (1, 40, 30), (60, 70), (3, 1)])
def test_shapes_of_flecks_equal_counts_over_voxels(shape, density, rng):
    label_map = rng.integers(1, 4, size=shape).astype(np.uint8) * (rng.random(shape) < density)
    label_map[(0,) * len(shape)] = label_map[(-1,) * len(shape)] = 1
    for values in ((1,), (1, 3)):
        mask = np.isin(label_map, values)
        shape_found = measure_shapes(label_map, {"label": values})["label"]
        centre = (np.array(ndimage.center_of_mass(mask)) + 0.5) / shape
        num_components = ndimage.label(mask, np.ones((3,) * len(shape)))[1]
        assert shape_found == Shape(int(mask.sum()), num_components, pytest.approx(tuple(centre)))


def test_components_are_counted_by_runs_unless_these_are_dense(rng, monkeypatch):
    monkeypatch.setattr(runs.ndimage, "label", lambda *_: pytest.fail("voxels were labelled"))
    mask = np.zeros((6, 30, 40), bool)
    mask[1:4, 3:9, 5:35] = mask[5, 29, 39] = mask[0, 2, 4] = True
    assert Runs.of(mask).count_components() == 2
    with pytest.raises(pytest.fail.Exception, match="labelled"):
        Runs.of(rng.random((6, 30, 40)) < 0.5).count_components()


def test_agreement_is_bias_with_limits():
    agreement = measure_agreement(np.array([[10.0, 11.0], [20.0, 19.0], [30.0, 33.0]]))
    assert agreement.bias == 1.0
    assert agreement.limits == pytest.approx((1 - 1.96 * 2, 1 + 1.96 * 2))
    assert measure_agreement(np.array([[10.0, 11.0]])).limits is None


def test_modified_scores_are_robust_deviations():
    scores = modified_scores([1, 2, 3, 4, 100], least_spread=0.1)
    assert scores[-1] == pytest.approx(97 / 1.4826)
    assert modified_scores([5, 5, 5, 6], least_spread=2.0).tolist() == [0, 0, 0, 0.5]


def shapes_of(sizes: list[int | None]) -> dict:
    return {
        f"case_{number}": {"liver": None if size is None else Shape(size, 1, (0.5, 0.5, 0.5))}
        for number, size in enumerate(sizes)
    }


def volumes(shapes: dict) -> dict:
    return dict.fromkeys(shapes, 0.001)


def test_unusual_volumes_and_absent_labels_are_found():
    shapes = shapes_of([1000, 1010, 990, 1005, 20, None, 995])
    found = find_outliers(shapes, voxel_ml=volumes(shapes))
    assert [(each.case, each.label) for each in found] == [("case_5", "liver"), ("case_4", "liver")]
    assert "no voxel, but 6 of 7" in found[0].reason
    assert found[1].reason == "volume 0.02 ml, median 0.9975 ml"


def test_unusual_components_and_positions_are_found():
    shapes = {f"case_{n}": {"a": Shape(100, 1, (0.5, 0.5 + 0.001 * n))} for n in range(8)}
    shapes["case_2"] = {"a": Shape(100, 9, (0.5, 0.5))}
    shapes["case_3"] = {"a": Shape(100, 1, (0.9, 0.5))}
    found = find_outliers(shapes, voxel_ml=dict.fromkeys(shapes))
    reasons = {each.case: each.reason for each in found}
    assert reasons == {
        "case_2": "9 components, median 1",
        "case_3": "centre at 90 % of y, median 50 %",
    }


def test_few_equal_cases_are_not_unusual():
    assert find_outliers(shapes_of([1000] * 8), voxel_ml=volumes(shapes_of([0] * 8))) == []
    few = shapes_of([1000, 20])
    assert find_outliers(few, voxel_ml=volumes(few)) == []


def test_volumes_unlike_training_are_found_even_in_one_case():
    one = shapes_of([100])
    (found,) = find_outliers(one, voxel_ml=volumes(one), trained={"liver": (1.0, 2.0)})
    assert "unlike the references of training (1 to 2 ml)" in found.reason
    assert find_outliers(shapes_of([900]), voxel_ml=volumes(one), trained={"liver": (1.0, 2.0)}) == []
