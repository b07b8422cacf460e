import math

import numpy as np
import pytest
from scipy import ndimage

from scanseg.errors import InputError
from scanseg.evaluation import score_case
from scanseg.evaluation.overlap import count_overlaps
from scanseg.evaluation.surface import surface_dice, surface_distances

from . import brute_force

LABELS = {"liver": (1,), "spleen": (2,)}


def label_maps(rng, shape=(6, 9, 10), num_labels=3):
    """Return two smooth random label maps."""
    noise = ndimage.gaussian_filter(rng.normal(size=(2, *shape)), (0, *(1.0,) * len(shape)))
    edges = np.quantile(noise, np.linspace(0.4, 1, num_labels + 1)[:-1])
    return np.digitize(noise, edges).astype(np.uint8)


def test_scores_equal_brute_force(rng):
    prediction, reference = label_maps(rng)
    spacing = (2.5, 1.0, 0.8)
    scores = score_case(prediction, reference, spacing=spacing, labels=LABELS, tolerance_mm=1.0)
    assert list(scores) == ["liver", "spleen"]
    for name, (value,) in LABELS.items():
        masks = prediction == value, reference == value
        assert scores[name].dice == pytest.approx(brute_force.dice(*masks), abs=1e-12)
        assert scores[name].hd95 == pytest.approx(brute_force.hausdorff_95(*masks, spacing), abs=1e-9)
        assert scores[name].nsd == surface_dice(*masks, spacing=spacing, tolerance_mm=1.0)
        assert scores[name].volume_ml == pytest.approx(masks[0].sum() * 0.002)
        assert scores[name].reference_volume_ml == pytest.approx(masks[1].sum() * 0.002)


def test_regions_overlap(rng):
    prediction, reference = label_maps(rng)
    labels = {"whole": (1, 2, 3), "core": (2, 3), "outer": (1, 3), "twice": (3, 3)}
    scores = score_case(prediction, reference, spacing=(1, 1, 1), labels=labels)
    for name, values in labels.items():
        masks = np.isin(prediction, values), np.isin(reference, values)
        assert scores[name].dice == pytest.approx(brute_force.dice(*masks))
        assert scores[name].hd95 == surface_distances(*masks, spacing=(1, 1, 1)).hd95


def test_images_of_two_axes_have_distances_in_pixels_and_no_volume(rng):
    prediction, reference = label_maps(rng, shape=(20, 24))
    scores = score_case(prediction, reference, spacing=(1, 1), labels=LABELS)["liver"]
    masks = prediction == 1, reference == 1
    assert scores.hd95 == pytest.approx(brute_force.hausdorff_95(*masks, (1, 1)))
    assert scores.volume_ml is None
    assert scores.reference_volume_ml is None


def test_without_surfaces(rng):
    prediction, reference = label_maps(rng)
    reference[reference == 2] = 0
    scores = score_case(prediction, reference, spacing=(1, 1, 1), labels=LABELS, surface=False)
    full = score_case(prediction, reference, spacing=(1, 1, 1), labels=LABELS)
    assert [score.dice for score in scores.values()] == [score.dice for score in full.values()]
    assert all(score.hd95 is None and score.asd is None and score.nsd is None for score in scores.values())


def test_skip_ignores_empty_pairs_and_gives_misses_the_worst_score():
    prediction, reference = np.zeros((2, 3, 3, 3), np.uint8)
    prediction[0], reference[1] = 1, 2
    labels = {"false": (1,), "missed": (2,), "nowhere": (3,)}
    scores = score_case(prediction, reference, spacing=(1, 1, 1), labels=labels)
    assert (scores["nowhere"].dice, scores["nowhere"].hd95, scores["nowhere"].nsd) == (None, None, None)
    assert (scores["false"].dice, scores["false"].hd95, scores["false"].nsd) == (0, math.inf, 0)
    assert (scores["missed"].dice, scores["missed"].hd95, scores["missed"].nsd) == (0, math.inf, 0)
    assert scores["nowhere"].volume_ml == 0
    assert scores["false"].volume_ml == pytest.approx(0.009)
    assert scores["false"].reference_volume_ml == 0


def test_background_alone_is_not_counted():
    empty = np.zeros((4, 4), np.uint8)
    scores = score_case(empty, empty, spacing=(1, 1), labels=LABELS)
    assert [score.dice for score in scores.values()] == [None, None]


def test_ignored_voxels_count_nowhere():
    prediction, reference = np.zeros((2, 4, 10), np.uint8)
    prediction[:, :6] = 1
    reference[:, :4] = 1
    reference[:, 4:6] = 9
    scores = score_case(prediction, reference, spacing=(1, 1), labels={"liver": (1,)}, ignore_label=9)[
        "liver"
    ]
    assert (scores.dice, scores.hd95, scores.nsd) == (1, 0, 1)
    wrong = score_case(prediction, reference, spacing=(1, 1), labels={"liver": (1,)})["liver"]
    assert wrong.dice == pytest.approx(2 * 16 / (24 + 16))


def test_tolerance_of_one_label(rng):
    prediction, reference = label_maps(rng)
    arguments = {"spacing": (2.0, 1.0, 1.0), "labels": LABELS}
    narrow = score_case(prediction, reference, tolerance_mm=0.5, **arguments)
    wide = score_case(prediction, reference, tolerance_mm=3.0, **arguments)
    mixed = score_case(
        prediction, reference, tolerance_mm=0.5, label_tolerances_mm={"spleen": 3.0}, **arguments
    )
    assert mixed == {"liver": narrow["liver"], "spleen": wide["spleen"]}
    assert narrow["spleen"].nsd < wide["spleen"].nsd


@pytest.mark.parametrize("dtype", [np.int16, np.int64, np.uint16])
def test_any_integers(rng, dtype):
    prediction, reference = label_maps(rng)
    arguments = {"spacing": (1, 1, 1), "labels": LABELS}
    assert score_case(prediction.astype(dtype), reference, **arguments) == score_case(
        prediction, reference, **arguments
    )


def test_arguments_are_not_changed(rng):
    prediction, reference = label_maps(rng)
    before = prediction.copy(), reference.copy()
    score_case(prediction, reference, spacing=(1, 1, 1), labels=LABELS, ignore_label=3)
    np.testing.assert_array_equal(prediction, before[0])
    np.testing.assert_array_equal(reference, before[1])


def test_faults_are_reported_together():
    with pytest.raises(InputError) as caught:
        score_case(
            np.zeros((2, 3, 4), np.float32),
            np.full((2, 3, 5), 300),
            spacing=(1, -1, 1),
            labels={"liver": (0,), "spleen": ()},
            label_tolerances_mm={"lung": 1, "liver": -2},
        )
    for part in (
        "(2, 3, 4)",
        "float32",
        "300 to 300",
        "(1, -1, 1)",
        "'liver'",
        "'spleen'",
        "'lung'",
        "-2 mm",
    ):
        assert part in str(caught.value)


def test_no_labels():
    with pytest.raises(InputError, match="labels are empty"):
        score_case(np.zeros((2, 2), int), np.zeros((2, 2), int), spacing=(1, 1), labels={})


def test_counts_in_slabs(rng, monkeypatch):
    from scanseg.evaluation import overlap

    prediction, reference = label_maps(rng)
    whole = count_overlaps(prediction, reference, labels=LABELS)
    monkeypatch.setattr(overlap, "SLAB_VOXELS", 100)
    assert count_overlaps(prediction, reference, labels=LABELS) == whole
    assert whole["liver"].both == int(((prediction == 1) & (reference == 1)).sum())
