"""Evaluation names the files that it leaves out, and hints at masks of 255."""

import json

import numpy as np
import pytest

from scanseg.errors import InputError
from scanseg.evaluation import evaluate, find_unit
from scanseg.progress import ProgressUpdate
from scanseg.runtime import RunContext
from scanseg.specs import Report
from tests.factories import write_labels


@pytest.fixture
def folders(tmp_path):
    array = np.zeros((4, 6, 6), np.uint8)
    array[1:3, 2:4, 2:4] = 1
    for folder in ("predictions", "references"):
        for name in ("a", "b"):
            write_labels(tmp_path / folder / f"{name}.nii.gz", array)
    return tmp_path / "predictions", tmp_path / "references"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("notes.txt", "1 file of unknown ending left out: notes.txt"),
        ("c.gipl", "1 file of unknown ending left out: c.gipl"),
        ("c.nii.bak", "1 file of unknown ending left out: c.nii.bak"),
        (".c.nii.gz", "1 hidden file left out: .c.nii.gz"),
        ("._d.nii.gz", "1 hidden file left out: ._d.nii.gz"),
    ],
)
@pytest.mark.parametrize("index", [0, 1])
def test_files_that_are_no_label_maps_are_named(folders, name, words, index):
    (folders[index] / name).touch()
    updates: list[ProgressUpdate] = []
    report = evaluate(*folders, context=RunContext(num_workers=0, progress=updates.append))
    assert report.warnings == (f"{folders[index]}: {words}",)
    assert [update.warnings for update in updates if update.warnings] == [report.warnings]
    assert Report.model_validate_json(report.to_json()) == report


@pytest.mark.parametrize("name", ["prediction.json", "a.npz", "._a.nii.gz", ".DS_Store", "Thumbs.db"])
def test_files_beside_label_maps_are_not_mentioned(folders, name):
    (folders[0] / name).touch()
    (folders[0] / "entropy").mkdir()
    report = evaluate(*folders, context=RunContext(num_workers=0))
    assert report.warnings == ()
    assert "warnings" not in json.loads(report.to_json())


@pytest.mark.parametrize("described", [True, False])
@pytest.mark.parametrize("index", [0, 1])
def test_a_mask_of_255_gets_a_hint(folders, index, described):
    array = np.zeros((4, 6, 6), np.uint8)
    array[1:3, 2:4, 2:4] = 255
    write_labels(folders[index] / "b.nii.gz", array)
    if described:
        labels = {"background": 0, "x": 1}
        content = {"channel_names": {"0": "MR"}, "labels": labels, "file_ending": ".nii.gz"}
        (folders[1] / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"case b: .*b\.nii\.gz.*255.*Replace 255 by 1"):
        evaluate(*folders, context=RunContext(num_workers=0))


def test_many_unknown_values_are_shortened(folders):
    array = np.arange(144, dtype=np.uint8).reshape(4, 6, 6)
    write_labels(folders[0] / "b.nii.gz", array)
    content = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "x": 1}, "file_ending": ".nii.gz"}
    (folders[1] / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(
        InputError, match=r"the values \[2, .*, 11, \.\.\. 142 values up to 143\], which"
    ) as caught:
        evaluate(*folders, context=RunContext(num_workers=0))
    assert len(str(caught.value).replace(str(folders[0].parent), "")) < 500


@pytest.mark.parametrize(
    ("file_ending", "spacing", "unit"),
    [
        (".png", (1.0, 1.0), "pixels"),
        (".PNG", (1.0, 1.0), "pixels"),
        (".tif", (0.5, 0.5), "mm"),
        (".nii.gz", (1.0, 1.0, 1.0), "mm"),
    ],
)
def test_distances_in_pictures_are_in_pixels(file_ending, spacing, unit):
    assert find_unit(file_ending, [spacing]) == unit
