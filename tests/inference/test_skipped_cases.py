"""`--skip-existing` keeps label maps of unchanged images only, and unfinished files go."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from scanseg.errors import InputError, UsageError
from scanseg.imaging import read_label_map
from scanseg.inference import record as records
from scanseg.specs import PredictionRecord
from tests.factories import write_labels


class Nothing(nn.Module):
    """Network of other weights, to which every voxel is background."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, batch):
        return torch.cat((self.weight * torch.ones_like(batch), torch.zeros_like(batch)), dim=1)


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


def test_changed_voxels_of_a_header_are_predicted_again(make_predictor, tmp_path, rng):
    images, output = tmp_path / "images", tmp_path / "out"
    predictor = make_predictor(dataset={"file_ending": ".nrrd"})
    for case in ("a", "b"):
        write_labels(images / f"{case}_0000.nrrd", np.zeros((5, 6, 7), np.uint8))
        header, _, _ = (images / f"{case}_0000.nrrd").read_bytes().partition(b"\n\n")
        header = (
            header.replace(b"encoding: gzip", b"encoding: raw") + b"\ndata file: %s.raw\n" % case.encode()
        )
        (images / f"{case}_0000.nrrd").write_bytes(header)
        (images / f"{case}.raw").write_bytes(bytes(5 * 6 * 7))
    predictor.predict_folder(images, output)
    array = rng.integers(0, 2, (5, 6, 7)).astype(np.uint8)
    (images / "b.raw").write_bytes(array.tobytes())
    record = predictor.predict_folder(images, output, skip_existing=True)
    assert [case.skipped for case in record.cases] == [True, False]
    np.testing.assert_array_equal(read_label_map(output / "b.nrrd").array[0], array)


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


def test_old_label_maps_do_not_outlive_an_interrupted_run(make_predictor, predicted, rng):
    """The first case is written, and the others are of an old image or another model."""
    images, output = predicted
    array = replace_image(images, rng)
    os.utime(images / "b_0000.nii.gz", (0, 0))
    other = make_predictor(Nothing())

    def stop(update):
        if update.done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        other.predict_folder(images, output, overwrite=True, progress=stop)
    assert sorted(path.name for path in output.glob("*.nii.gz")) == ["a.nii.gz"]
    record = other.predict_folder(images, output, skip_existing=True)
    assert [case.skipped for case in record.cases] == [True, False, False]
    assert not read_label_map(output / "c.nii.gz").array.any()

    make_predictor().predict_folder(images, output, overwrite=True)
    np.testing.assert_array_equal(read_label_map(output / "b.nii.gz").array[0], array)


def test_label_maps_outside_the_record_are_not_kept(make_predictor, predicted):
    """An overwritten record forgets the cases of other folders, whose label maps are of an earlier model."""
    images, output = predicted
    for name in "bc":
        os.utime(output / f"{name}.nii.gz", (1e9, 1e9))
    other = make_predictor(Nothing())
    other.predict_folder(images / "a_0000.nii.gz", output, overwrite=True)
    before = sorted(path.stat().st_mtime for path in output.iterdir())
    with pytest.raises(
        UsageError, match=r"older ones outside prediction\.json: b\.nii\.gz, c\.nii\.gz\. .*overwrite"
    ):
        other.predict_folder(images, output, skip_existing=True)
    assert sorted(path.stat().st_mtime for path in output.iterdir()) == before
    other.predict_folder(images, output, overwrite=True)
    assert not read_label_map(output / "c.nii.gz").array.any()


def test_label_maps_of_a_killed_run_are_predicted_again(make_predictor, predicted):
    """They were written after the last write of the record."""
    images, output = predicted
    content = json.loads((output / "prediction.json").read_text())
    content["cases"] = content["cases"][:2]
    (output / "prediction.json").write_text(json.dumps(content))
    record = make_predictor().predict_folder(images, output, skip_existing=True)
    assert [case.skipped for case in record.cases] == [True, True, False]


def test_files_that_the_record_does_not_list_are_predicted_again(make_predictor, predicted):
    images, output = predicted
    (output / "a.npz").write_bytes(b"of another model")
    record = make_predictor().predict_folder(images, output, probabilities=True, skip_existing=True)
    assert [case.skipped for case in record.cases] == [False] * 3
    assert np.load(output / "a.npz")["probabilities"].shape == (2, 5, 6, 7)
    again = make_predictor().predict_folder(images, output, skip_existing=True)
    assert [(case.skipped, case.probabilities) for case in again.cases] == [
        (True, f"{name}.npz") for name in "abc"
    ]


def test_a_continued_record_keeps_what_the_earlier_one_knew(make_predictor, predicted, tmp_path):
    images, output = predicted
    path = output / "prediction.json"
    content = json.loads(path.read_text())
    content |= {"started": "2020-01-01T00:00:00+00:00", "seconds": 1000.0, "precision": "bfloat16"}
    content["warnings"] = [f"{tmp_path / 'elsewhere'}: 1 file skipped.", f"{images}: 7 files skipped."]
    content["cases"][0] |= {"warning": "channel MRI: odd.", "seconds": 12.5}
    path.write_text(json.dumps(content))
    write_labels(tmp_path / "more/d_0000.nii.gz", np.ones((5, 6, 7), np.uint8))

    record = make_predictor().predict_folder([images, tmp_path / "more"], output, skip_existing=True)
    assert record == PredictionRecord.read(path)
    assert record.started == "2020-01-01T00:00:00+00:00"
    assert 1000 < record.seconds < 1100
    assert record.warnings == (f"{tmp_path / 'elsewhere'}: 1 file skipped.",)
    first = record.cases[0]
    assert (first.skipped, first.warning, first.seconds) == (True, "channel MRI: odd.", 12.5)
    assert record.precision == "float32"
    assert [case.precision for case in record.cases] == ["bfloat16"] * 3 + [None]
    again = make_predictor().predict_folder([images, tmp_path / "more"], output, skip_existing=True)
    assert [case.precision for case in again.cases] == ["bfloat16"] * 3 + [None]


def test_a_continued_record_keeps_the_cases_of_other_folders(make_predictor, predicted, tmp_path):
    _, output = predicted
    write_labels(tmp_path / "more/d_0000.nii.gz", np.ones((5, 6, 7), np.uint8))
    (output / "b.nii.gz").unlink()
    record = make_predictor().predict_folder(tmp_path / "more", output, skip_existing=True)
    assert [(case.case, case.skipped) for case in record.cases] == [("a", True), ("c", True), ("d", False)]
    (tmp_path / "more/d_0000.nii.gz").write_bytes(b"damaged")
    with pytest.raises(InputError, match="case d"):
        make_predictor().predict_folder(tmp_path / "more", output, skip_existing=True)
    cases = PredictionRecord.read(output / "prediction.json").cases
    assert [(case.case, case.fault is None) for case in cases] == [("a", True), ("c", True), ("d", False)]


def test_the_record_is_written_at_most_once_a_second(make_predictor, predicted, monkeypatch):
    images, output = predicted
    written = []
    write = records.write_text

    def count(path, text):
        written.append(json.loads(text))
        write(path, text)

    monkeypatch.setattr(records, "write_text", count)
    make_predictor().predict_folder(images, output, overwrite=True)
    assert [len(each["cases"]) for each in written] == [0, 3]
    written.clear()
    monkeypatch.setattr(records, "SECONDS_BETWEEN_WRITES", 0.0)
    make_predictor().predict_folder(images, output, overwrite=True)
    assert [len(each["cases"]) for each in written] == [0, 1, 2, 3, 3]


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
