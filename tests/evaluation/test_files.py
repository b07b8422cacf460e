"""Files of a report, and the unit of pictures."""

import csv
import json

import numpy as np
import pytest

import scanseg
from tests.factories import write_labels, write_picture


def square(shift, ndim=2):
    array = np.zeros((24,) * 2, np.uint8)
    array[4:12, 4 + shift : 12 + shift] = 1
    return array if ndim == 2 else array[np.newaxis].repeat(3, axis=0)


def read_rows(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def pictures(tmp_path):
    for name, shift in (("a", 0), ("b", 2)):
        write_picture(tmp_path / "predictions" / f"{name}.png", square(shift))
        write_picture(tmp_path / "references" / f"{name}.png", square(0))
    write_picture(tmp_path / "predictions" / "c.png", square(0) * 0)
    write_picture(tmp_path / "references" / "c.png", square(0))
    return tmp_path / "predictions", tmp_path / "references"


def test_pictures_are_reported_in_pixels_and_without_volumes(command, pictures, tmp_path):
    outcome = command("evaluate", *pictures, "-o", tmp_path / "report.json", "--num-workers", 0)
    assert outcome.code == 0, outcome.stderr
    assert "HD95 (pixels)" in outcome.stdout
    assert "mm" not in outcome.stdout.replace(str(tmp_path), "")
    assert "volume" not in outcome.stdout
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["distance_unit"] == "pixels"
    text = (tmp_path / "report.md").read_text()
    assert "| label | Dice | HD95 (pixels) | infinite HD95 | ASD (pixels) | NSD | cases |" in text
    assert "Distances are in pixels" in text


def test_cases_are_written_as_csv(command, pictures, tmp_path):
    words = ("evaluate", *pictures, "-o", tmp_path / "new" / "report.json", "--num-workers", 0)
    assert command(*words).code == 0
    rows = read_rows(tmp_path / "new" / "report.csv")
    assert [(row["case"], row["label"]) for row in rows] == [("a", "1"), ("b", "1"), ("c", "1")]
    assert float(rows[0]["dice"]) == 1.0
    assert float(rows[1]["dice"]) == 0.75
    assert float(rows[1]["hd95_pixels"]) == 2.0
    assert (rows[2]["hd95_pixels"], rows[0]["volume_ml"]) == ("inf", "")
    (tmp_path / "new" / "report.json").unlink()
    refused = command(*words)
    assert refused.code == 2
    assert "report.csv already exists" in refused.stderr
    assert command(*words, "--overwrite").code == 0


def test_volumes_stay_in_mm_and_ml(command, tmp_path):
    for folder, shift in (("predictions", 2), ("references", 0)):
        write_labels(tmp_path / folder / "a.nii.gz", square(shift, ndim=3), spacing=(1.0, 1.0, 1.0))
    words = ("evaluate", tmp_path / "predictions", tmp_path / "references", "--num-workers", 0)
    outcome = command(*words, "-o", tmp_path / "predictions" / "report.json")
    assert "HD95 (mm)" in outcome.stdout
    (row,) = read_rows(tmp_path / "predictions" / "report.csv")
    assert (float(row["hd95_mm"]), float(row["volume_ml"])) == (2.0, 0.192)
    again = command(*words, "-o", tmp_path / "other.json")
    assert "left out" not in again.stderr
    report = scanseg.evaluate(
        tmp_path / "predictions", tmp_path / "references", distance_unit="voxels", num_workers=0
    )
    assert report.distance_unit == "voxels"


def test_stacks_without_spacing_have_no_volumes(tmp_path):
    import tifffile

    for folder in ("predictions", "references"):
        (tmp_path / folder).mkdir()
        tifffile.imwrite(tmp_path / folder / "a.tif", square(0, ndim=3), photometric="minisblack")
    folders = (tmp_path / "predictions", tmp_path / "references")
    report = scanseg.evaluate(*folders, num_workers=0)
    assert (report.distance_unit, report.cases[0].labels["1"].volume_ml) == ("pixels", None)
    for folder in folders:
        (folder / "a.json").write_text('{"spacing": [2, 1, 1]}')
    report = scanseg.evaluate(*folders, num_workers=0)
    assert (report.distance_unit, report.cases[0].labels["1"].volume_ml) == ("mm", 0.384)


def test_instances_are_written_as_csv(command, pictures, tmp_path):
    outcome = command(
        *("evaluate", *pictures, "--instances", "numbers", "-o", tmp_path / "f1.json", "--num-workers", 0)
    )
    assert outcome.code == 0, outcome.stderr
    rows = read_rows(tmp_path / "f1.csv")
    assert [(row["found"], row["missed"]) for row in rows] == [("1", "0"), ("1", "0"), ("0", "1")]
    assert "| images | mean F1 |" in (tmp_path / "f1.md").read_text()
