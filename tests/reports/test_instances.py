"""Reports of instances: scores by overlap, table of images, pictures of the worst."""

import json
import re

import numpy as np
import pytest
from PIL import Image as Picture

import scanseg
from scanseg.errors import UsageError
from scanseg.evaluation import evaluate_instances_by_iou
from scanseg.imaging import write_instance_map
from scanseg.reports.instances import find_matched
from scanseg.runtime import RunContext
from tests.factories import image_of
from tests.reports.test_reports import joined, read

SIZE = 40


def squares(*corners, size=6):
    """Return an instance map of squares."""
    instances = np.zeros((SIZE, SIZE), np.int32)
    for number, (y, x) in enumerate(corners, start=1):
        instances[y : y + size, x : x + size] = number
    return instances


REFERENCE = squares((5, 5), (5, 11), (25, 25), (25, 8))
"""Two of them touch."""
PREDICTIONS = {
    "perfect": REFERENCE,
    "shifted": squares((6, 5), (6, 11), (26, 25), (26, 8)),  # overlap 30 of 42: 0.714
    "half": squares((5, 5), (25, 25), (15, 15)),
    "none": squares((15, 30)),
    "empty": squares(),
}


@pytest.fixture
def folders(tmp_path):
    """Write predictions, references and images."""
    predictions, references, images = (tmp_path / name for name in ("predictions", "references", "images"))
    for folder in (predictions, references, images):
        folder.mkdir()
    for name, instances in PREDICTIONS.items():
        like = image_of(np.zeros((1, SIZE, SIZE), np.uint8))
        write_instance_map(predictions / f"{name}.png", instances, like=like)
        write_instance_map(references / f"{name}.png", REFERENCE, like=like)
        grey = 40 + 150 * (REFERENCE > 0)
        Picture.fromarray(grey.astype(np.uint8)).save(images / f"{name}_0000.png")
    content = {"channel_names": {"0": "gray"}, "labels": {"background": 0, "cell": 1}, "numTraining": 1}
    (predictions / "dataset.json").write_text(json.dumps({**content, "file_ending": ".png"}))
    return predictions, references, images


def test_scores_by_overlap(folders):
    reports = evaluate_instances_by_iou(
        *folders[:2], ious=(0.5, 0.75), instances="numbers", context=RunContext(num_workers=0)
    )
    found = [{case.case: case.f1 for case in report.cases} for report in reports]
    assert found[0] == {"perfect": 1, "shifted": 1, "half": pytest.approx(4 / 7), "none": 0, "empty": 0}
    assert found[1] == {**found[0], "shifted": 0}
    assert [report.iou for report in reports] == [0.5, 0.75]


def test_a_page_with_table_and_worst_pictures(folders, tmp_path, command):
    predictions, references, images = folders
    output = tmp_path / "report.html"
    words = ("report", predictions, "--references", references, "--images", images, "-o", output)
    outcome = command(*words, "--instances", "numbers", "--num-workers", 0)
    assert outcome.code == 0, outcome.stderr
    content = read(output)
    assert content.headings == ["Scores", "Cases", "All images"]
    text = joined(content)
    assert "Worst: empty" in text
    assert "Worst, number 2: none" in text
    assert "Best: shifted" in text
    # 4 + 4 + 2 of 20 instances are found, and 2 are false
    assert re.search(r"0\.5 [0-9.]+ 0\.6250 0\.8333 0\.5000 [0-9.]+ 10 2 10", text)
    assert re.search(r"0\.75 [0-9.]+ 0\.3750 0\.5000 0\.3000 [0-9.]+ 6 6 14", text)
    rows = text[text.index("Images from the lowest F1") :]
    order = [rows.index(name) for name in ("empty", "none", "half", "perfect", "shifted")]
    assert order == sorted(order)
    assert content.tags.count("img") == 1 + 2 * 5


def test_matched_instances_overlap_enough():
    matched = find_matched(PREDICTIONS["shifted"], REFERENCE, iou=0.7)
    assert matched.tolist() == [False, True, True, True, True]
    assert not find_matched(PREDICTIONS["shifted"], REFERENCE, iou=0.72).any()
    assert find_matched(PREDICTIONS["half"], REFERENCE, iou=0.5).tolist() == [False, True, True, False]
    assert find_matched(PREDICTIONS["empty"], REFERENCE, iou=0.5).tolist() == [False]


def test_wrong_usage_is_one_error(folders, tmp_path, command):
    predictions, references, _ = folders
    with pytest.raises(UsageError, match="expected references to score instances"):
        scanseg.report(predictions, tmp_path / "a.html", instances="numbers", progress=False)
    outcome = command("report", predictions, "-o", tmp_path / "a.html", "--iou", 0.7)
    assert outcome.code == 2
    assert "expected --instances too" in outcome.stderr
    words = ("evaluate", predictions, references, "-o", tmp_path / "a.json", "--instances", "numbers")
    outcome = command(*words, "--report", tmp_path / "a.html")
    assert outcome.code == 2
    assert "run scanseg report with --instances" in outcome.stderr
