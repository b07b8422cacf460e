"""Scores of hand-made masks under each rule, compared with values computed by hand."""

import math
from typing import get_args

import numpy as np
import pytest

from scanseg.cli.options import Rule
from scanseg.errors import UsageError
from scanseg.evaluation import (
    METRIC_RULES,
    evaluate,
    parse_tolerances,
    preset_tolerances,
    score_case,
)
from scanseg.evaluation.tolerances import TOLERANCE_PRESETS
from scanseg.runtime import RunContext
from scanseg.specs import DatasetSpec, RuleName, canonical_label
from tests.factories import write_labels

LABELS = {"hit": (1,), "missed": (2,), "false": (3,), "nowhere": (4,)}
SPACING = (4.0, 1.0, 1.0)


def hand_made():
    """Return label maps with a row of 4 voxels (3 found), a missed label, a false label and an absent label."""
    prediction, reference = np.zeros((2, 3, 6, 8), np.uint8)
    reference[0, 0, 0:4], prediction[0, 0, 1:4] = 1, 1
    reference[2, 3, 3] = 2
    prediction[2, 5, 5] = 3
    return prediction, reference


# Hit: Dice 2 * 3 / (3 + 4); all voxels are surface; the seven distances are six 0 and one 1, so that the 95th
# percentile lies at place 0.95 * 6 = 5.7 between 0 and 1; ASD is their mean.
HIT = (6 / 7, 0.7, 1 / 7)
INF = math.inf
EXPECTED = {
    "skip": {"missed": (0, INF, INF, 0), "false": (0, INF, INF, 0), "nowhere": (None, None, None, None)},
    "transunet": {
        "missed": (0, 0, None, None),
        "false": (1, 0, None, None),
        "nowhere": (0, 0, None, None),
    },
    "umamba": {
        "missed": (0, None, None, 0),
        "false": (0, None, None, 0),
        "nowhere": (1, None, None, 1),
    },
    "brats": {
        "missed": (0, 374, None, None),
        "false": (0, 374, None, None),
        "nowhere": (1, 0, None, None),
    },
    "brats-segmamba": {
        "missed": (0, 50, None, None),
        "false": (0, 50, None, None),
        "nowhere": (1, 0, None, None),
    },
}
# Means over the four labels of the one case; None is left out, infinite too.
MEANS = {
    "skip": ((6 / 7) / 3, 0.7),
    "transunet": ((6 / 7 + 1) / 4, 0.7 / 4),
    "umamba": ((6 / 7 + 1) / 4, 0.7),
    "brats": ((6 / 7 + 1) / 4, (0.7 + 374 + 374) / 4),
    "brats-segmamba": ((6 / 7 + 1) / 4, (0.7 + 50 + 50) / 4),
}


def test_every_rule_is_expected_here_and_in_the_command():
    assert set(METRIC_RULES) == set(EXPECTED) == set(get_args(RuleName)) == set(get_args(Rule))


@pytest.mark.parametrize("rule", EXPECTED)
def test_values_by_hand(rule):
    prediction, reference = hand_made()
    scores = score_case(prediction, reference, spacing=SPACING, labels=LABELS, rule=rule)
    hit = scores["hit"]
    assert (hit.dice, hit.hd95, hit.asd) == pytest.approx(HIT)
    for name, expected in EXPECTED[rule].items():
        score = scores[name]
        assert (score.dice, score.hd95, score.asd, score.nsd) == expected, name


@pytest.mark.parametrize("rule", EXPECTED)
def test_means_by_hand_from_the_command(rule, command, tmp_path):
    from scanseg.specs import Report

    folders = [tmp_path / "p", tmp_path / "r"]
    for folder, label_map in zip(folders, hand_made(), strict=True):
        write_labels(folder / "a.nii.gz", label_map, spacing=SPACING)
    spec = {
        "name": "hand",
        "channel_names": {"0": "x"},
        "labels": {"background": 0, **{name: value for name, (value,) in LABELS.items()}},
        "file_ending": ".nii.gz",
    }
    import json

    (folders[1] / "dataset.json").write_text(json.dumps(spec))
    outcome = command(
        "evaluate",
        *folders,
        "--rule",
        rule,
        "-o",
        tmp_path / "report.json",
        "--tolerance",
        "3",
        "--tolerance",
        "hit=0",
        "--num-workers",
        "0",
    )
    assert outcome.code == 0, outcome.stderr
    assert METRIC_RULES[rule].description in outcome.stdout.replace("\n", " ")
    report = Report.read(tmp_path / "report.json")
    assert report.rule == rule
    assert report.tolerances_mm == {"hit": 0.0, "missed": 3.0, "false": 3.0, "nowhere": 3.0}
    means = report.summary.mean_over_labels
    assert (means.dice, means.hd95) == pytest.approx(MEANS[rule])
    assert report.summary.mean_over_cases.dice == pytest.approx(MEANS[rule][0])


def test_distances_in_voxels_by_hand():
    prediction, reference = np.zeros((2, 3, 4, 4), np.uint8)
    prediction[0, 1, 1], reference[2, 1, 1] = 1, 1
    arguments = {"spacing": SPACING, "labels": {"a": (1,)}}
    assert score_case(prediction, reference, **arguments)["a"].hd95 == 8
    in_voxels = score_case(prediction, reference, distance_unit="voxels", **arguments)["a"]
    assert (in_voxels.hd95, in_voxels.asd, in_voxels.nsd) == (2, 2, 0)
    assert (
        score_case(prediction, reference, distance_unit="voxels", tolerance_mm=8, **arguments)["a"].nsd == 1
    )


@pytest.mark.parametrize("name", ["aorta", "IVC", "inferior vena cava", "Esophagus", "postcava"])
def test_umamba_scores_tubes_in_the_references_slices_but_the_last(name):
    # The reference has slices 1 to 4; 1, 2, 3 count. The prediction has slices 0 to 3, beyond the reference at 0.
    prediction, reference = np.zeros((2, 8, 5, 5), np.uint8)
    prediction[0:4, 2, 2:4] = 1
    reference[1:5, 2, 2:4] = 1
    arguments = {"spacing": (1, 1, 1), "labels": {name: (1,)}}
    whole = score_case(prediction, reference, **arguments)[name]
    assert whole.dice == pytest.approx(6 / 8)
    tube = score_case(prediction, reference, rule="umamba", **arguments)[name]
    assert (tube.dice, tube.hd95, tube.nsd) == (1, 0, 1)
    assert tube.volume_ml == pytest.approx(0.008)
    other = score_case(prediction, reference, spacing=(1, 1, 1), labels={"liver": (1,)}, rule="umamba")[
        "liver"
    ]
    assert other.dice == whole.dice


def test_umamba_tube_at_its_limits():
    prediction, reference = np.zeros((2, 6, 4, 4), np.uint8)
    prediction[5, 1, 1] = 1
    arguments = {"spacing": (1, 1, 1), "labels": {"aorta": (1,)}, "rule": "umamba"}
    assert score_case(prediction, reference, **arguments)["aorta"].dice == 0
    assert score_case(reference, reference, **arguments)["aorta"].dice == 1
    reference[1:4, 1, 1] = 1
    found_outside = score_case(prediction, reference, **arguments)["aorta"]
    assert (found_outside.dice, found_outside.nsd) == (0, 0)
    one_slice = np.zeros_like(reference)
    one_slice[2, 1, 1] = 1
    assert score_case(one_slice, one_slice, **arguments)["aorta"].dice is None
    flat = {"spacing": (1, 1), "labels": {"aorta": (1,)}, "rule": "umamba"}
    assert score_case(one_slice[2], one_slice[2], **flat)["aorta"].dice == 1


def test_names_of_labels():
    assert canonical_label("Right_Kidney") == canonical_label("kidney-right")
    assert (
        canonical_label("RAG") == canonical_label("right adrenal gland") == canonical_label("right adrenal")
    )
    assert canonical_label("left kidney") != canonical_label("right kidney")


def test_tolerances_of_the_abdomen():
    found = preset_tolerances("abdomen", ["Liver", "Kidney_R", "postcava", "RAG", "bladder"])
    assert found == {"Liver": 5.0, "postcava": 2.0, "RAG": 2.0}
    assert len(TOLERANCE_PRESETS["abdomen"]) == 13
    with pytest.raises(UsageError, match=r"expected a label among liver, .*, got lung\. Give tolerances"):
        preset_tolerances("abdomen", ["lung"])
    with pytest.raises(UsageError, match="'thorax' are unknown"):
        preset_tolerances("thorax", ["lung"])


def test_tolerances_as_words():
    assert parse_tolerances([]) == (2.0, {}, None)
    assert parse_tolerances(["3", "liver=5.5", "a=b=1", "abdomen"]) == (
        3.0,
        {"liver": 5.5, "a=b": 1.0},
        "abdomen",
    )
    with pytest.raises(UsageError) as caught:
        parse_tolerances(["x", "liver=y", "-1", "=2", "liver=1", "liver=2", "1", "2", "inf"])
    for part in ("'x'", "'liver=y'", "'-1'", "'=2'", "'liver' is given twice", "one tolerance", "'inf'"):
        assert part in str(caught.value)


def test_preset_gives_way_to_a_name(tmp_path):
    for folder in ("p", "r"):
        write_labels(tmp_path / folder / "a.nii.gz", np.ones((3, 4, 5), np.uint8))
    spec = DatasetSpec(
        name="abdomen",
        channel_names=("CT",),
        labels={"background": 0, "liver": 1, "Duodenum": 2, "lung": 3},
        file_ending=".nii.gz",
    )
    report = evaluate(
        tmp_path / "p",
        tmp_path / "r",
        labels=spec,
        tolerance_mm=4,
        label_tolerances_mm={"liver": 1.0},
        tolerance_preset="abdomen",
        context=RunContext(num_workers=0),
    )
    assert report.tolerances_mm == {"liver": 1.0, "Duodenum": 7.0, "lung": 4.0}
