"""`--skip-existing` keeps label maps of unchanged images only, and unfinished files go."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from scanseg.errors import InputError
from scanseg.imaging import read_label_map
from scanseg.specs import PredictionRecord
from tests.factories import write_labels


@pytest.fixture
def predicted(make_predictor, tmp_path, rng):
    """Folders of three images and of their label maps."""
    for case in ("a", "b", "c"):
        write_labels(tmp_path / f"images/{case}_0000.nii.gz", rng.integers(0, 2, (5, 6, 7)).astype(np.uint8))
    make_predictor().predict_folder(tmp_path / "images", tmp_path / "out")
    return tmp_path / "images", tmp_path / "out"


def replace_image(images, rng):
    array = rng.integers(0, 2, (5, 6, 7)).astype(np.uint8)
    write_labels(images / "b_0000.nii.gz", array)
    return array


@pytest.mark.parametrize("age", [0, 3600, 1e9])
def test_a_changed_image_is_predicted_again(make_predictor, predicted, rng, age):
    images, output = predicted
    array = replace_image(images, rng)
    changed = (output / "b.nii.gz").stat().st_mtime - age
    os.utime(images / "b_0000.nii.gz", (changed, changed))
    record = make_predictor().predict_folder(images, output, skip_existing=True)
    assert [case.skipped for case in record.cases] == [True, False, True]
    np.testing.assert_array_equal(read_label_map(output / "b.nii.gz").array[0], array)
    again = make_predictor().predict_folder(images, output, skip_existing=True)
    assert [case.skipped for case in again.cases] == [True] * 3


def test_a_changed_image_stays_changed_after_an_interrupted_run(make_predictor, predicted, rng):
    """The record of the interrupted run keeps the entries of the skipped cases."""
    images, output = predicted
    replace_image(images, rng)

    def stop(update):
        if update.task == "predicting":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_predictor().predict_folder(images, output, skip_existing=True, progress=stop)
    assert [case.case for case in PredictionRecord.read(output / "prediction.json").cases] == ["a", "c"]
    record = make_predictor().predict_folder(images, output, skip_existing=True)
    assert [case.skipped for case in record.cases] == [True, False, True]


def test_records_of_older_versions_are_continued(make_predictor, predicted):
    images, output = predicted
    content = json.loads((output / "prediction.json").read_text())
    for case in content["cases"]:
        del case["sources"]
    (output / "prediction.json").write_text(json.dumps(content))
    (output / "c.nii.gz").unlink()
    record = make_predictor().predict_folder(images, output, skip_existing=True)
    assert [case.skipped for case in record.cases] == [True, True, False]


@pytest.mark.parametrize("content", ["", "{", '{"format": 2}', "[" * 1000])
def test_a_damaged_record_is_named(make_predictor, predicted, content):
    images, output = predicted
    (output / "prediction.json").write_text(content)
    with pytest.raises(InputError, match=r"prediction\.json: "):
        make_predictor().predict_folder(images, output, skip_existing=True)


def test_unfinished_files_of_an_ended_process_are_removed(make_predictor, predicted):
    images, output = predicted
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    (output / f".writing-{process.pid}-a.nii.gz").write_text("half")
    (output / f".writing-{os.getpid()}-mine.nii.gz").write_text("half")
    make_predictor().predict_folder(images, output, skip_existing=True)
    assert [path.name for path in output.glob(".writing-*")] == [f".writing-{os.getpid()}-mine.nii.gz"]
