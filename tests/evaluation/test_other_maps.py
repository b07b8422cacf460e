"""Label maps given as instance maps, and the reverse."""

import json

import numpy as np
import pytest

from scanseg.imaging import write_instance_map, write_label_map
from scanseg.specs import InstanceReport
from tests.factories import image_of

IMAGE = image_of(np.zeros((1, 30, 40)))


@pytest.fixture
def folders(tmp_path):
    """Folders of a label map of interior and boundary, and of its instance map with three numbers."""
    label_map, numbers = np.zeros((2, 30, 40), np.uint8)
    for number, left in enumerate((5, 15, 25), start=1):
        numbers[5:12, left : left + 7] = number
        label_map[5:12, left : left + 7] = 2
        label_map[6:11, left + 1 : left + 6] = 1
    for name in ("labels", "numbers"):
        (tmp_path / name).mkdir()
    write_label_map(tmp_path / "labels" / "a.png", label_map, like=IMAGE)
    write_instance_map(tmp_path / "numbers" / "a.png", numbers, like=IMAGE)
    return tmp_path / "labels", tmp_path / "numbers"


def test_instance_maps_are_no_references_of_label_maps(folders, command, tmp_path):
    folders[1].rename(tmp_path / "instancesTs")
    (tmp_path / "labelsTs").mkdir()
    outcome = command("evaluate", folders[0], tmp_path / "instancesTs", "-o", tmp_path / "x.json")
    assert outcome.code == 2
    assert "add --instances grown for predictions of interior and boundary" in outcome.stderr
    assert f"use {tmp_path / 'labelsTs'}." in outcome.stderr


@pytest.mark.parametrize("highest", [9, 255, 300])
def test_numbers_of_instances_among_label_maps_lead_to_instances(folders, command, tmp_path, highest):
    labels = {"background": 0, "interior": 1, "boundary": 2}
    described = {"channel_names": {"0": "R"}, "labels": labels, "numTraining": 2, "file_ending": ".png"}
    (folders[0] / "dataset.json").write_text(json.dumps(described))
    numbers = np.arange(30 * 40).reshape(30, 40) % (highest + 1)
    write_instance_map(folders[1] / "a.png", numbers, like=IMAGE)
    outcome = command("evaluate", *folders, "-o", tmp_path / "x.json", "--num-workers", 0)
    assert outcome.code == 1
    assert "If each instance has its own number, score instances by --instances." in outcome.stderr


def test_maps_of_the_other_kind_are_doubted(folders, command, tmp_path):
    def warnings(*words):
        outcome = command("evaluate", *words, "-o", tmp_path / "x.json", "--overwrite", "--num-workers", 0)
        assert outcome.code == 0, outcome.stderr
        found = [line for line in outcome.stderr.splitlines() if line.startswith("warning: ")]
        assert [f"warning: {text}" for text in InstanceReport.read(tmp_path / "x.json").warnings] == found
        return "\n".join(found)

    labels, numbers = folders
    assert warnings(labels, numbers, "--instances", "grown") == ""
    assert warnings(numbers, numbers, "--instances", "numbers") == ""
    assert "choose --instances grown or components" in warnings(labels, numbers, "--instances", "numbers")
    assert "choose --instances numbers" in warnings(numbers, numbers, "--instances", "components")
    assert "are no references" in warnings(numbers, labels, "--instances", "numbers")


def test_numbers_above_255_are_no_label_map(folders, command, tmp_path):
    numbers = np.arange(30 * 40).reshape(30, 40)
    write_instance_map(folders[1] / "a.png", numbers, like=IMAGE)
    words = ("evaluate", folders[1], folders[1], "--num-workers", 0, "--instances", "components")
    outcome = command(*words, "-o", tmp_path / "x.json")
    assert outcome.code == 1
    assert "If each instance has its own number, choose --instances numbers." in outcome.stderr
