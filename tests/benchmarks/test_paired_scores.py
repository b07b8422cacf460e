"""Comparison of two reports, case by case."""

import json
from pathlib import Path

import pytest
from scipy.stats import wilcoxon

from benchmarks.paired_scores import HEADER, compare_reports, main

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"
NUCLEI = [
    RESULTS / "nuclei-test" / name / "seed_0" / "test-best-instances.json"
    for name in ("xlstm-unet", "plain-unet")
]
POLYPS = [
    RESULTS / "polyps-test" / name / "seed_0" / "test-best.json" for name in ("msvm-unet", "plain-unet")
]


def copy(source, target, change):
    content = json.loads(source.read_text())
    change(content)
    target.write_text(json.dumps(content))
    return target


def test_scores_of_instances_are_compared_by_image():
    first, baseline = ([case["f1"] for case in json.loads(path.read_text())["cases"]] for path in NUCLEI)
    differences = [ours - theirs for ours, theirs in zip(first, baseline, strict=True)]
    head, f1, quality = compare_reports(*NUCLEI)

    assert head == HEADER
    assert f1 == (
        "F1",
        f"{sum(first) / 30:.4f}",
        f"{sum(baseline) / 30:.4f}",
        f"{sum(differences) / 30:+.4f}",
        str(sum(value > 0 for value in differences)),
        str(sum(value < 0 for value in differences)),
        "30",
        f"{wilcoxon(differences).pvalue:.3f}",
    )
    assert quality[0] == "panoptic quality"


def test_dice_is_the_mean_over_labels_of_a_case(tmp_path):
    def add_label(content):
        for case in content["cases"]:
            case["labels"]["other"] = case["labels"]["polyp"] | {"dice": 0.5}

    first = copy(POLYPS[0], tmp_path / "first.json", add_label)
    row = compare_reports(first, POLYPS[1])[1]

    assert row[:3] == ("Dice", f"{(0.8500652760 + 0.5) / 2:.4f}", "0.8371")


def test_the_table_of_the_page_is_what_the_command_prints(capsys):
    page = (RESULTS / "pictures.md").read_text(encoding="utf-8")
    for reports in (
        NUCLEI,
        [path.with_name("test-best.json") for path in NUCLEI],
        [path.with_name("validation.json") for path in NUCLEI],
        POLYPS,
        [path.with_name("validation.json") for path in POLYPS],
    ):
        assert main([str(path) for path in reports]) == 0
        for line in capsys.readouterr().out.strip().splitlines()[2:]:
            score, first, baseline, difference, better, worse, _, p_value = line.strip("| ").split(" | ")
            row = f"| {score} | {first} | {baseline} | {difference} | {better} | {worse} | {p_value} |"
            assert row in page, f"docs/results/pictures.md lacks {row}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content["cases"].pop(), "d4d6c683f249"),
        (lambda content: content.update(iou=0.7), "IoU 0.7"),
        (lambda content: content.update(cases="none"), "cases"),
    ],
)
def test_reports_that_differ_are_refused_in_one_line(tmp_path, capsys, change, message):
    assert main([str(NUCLEI[0]), str(copy(NUCLEI[1], tmp_path / "other.json", change))]) == 1
    assert message in capsys.readouterr().err


def test_a_report_of_instances_is_not_compared_with_one_of_labels(capsys):
    assert main([str(NUCLEI[0]), str(POLYPS[0])]) == 1
    assert "settings" in capsys.readouterr().err
