"""DICOM Segmentations as predictions and references score as the same label maps in NIfTI."""

import json
import sys

import numpy as np
import pytest

from scanseg.errors import FaultsError, InputError
from scanseg.evaluation import evaluate
from scanseg.imaging import make_segments, read_image, read_segmentation, write_image, write_segmentation
from scanseg.runtime import RunContext
from tests.dicom_series import write_series

pytest.importorskip("highdicom", reason="the extra dicom is not installed")

CONTEXT = RunContext(num_workers=0)
RNG = np.random.default_rng(0)
VOLUME = RNG.integers(0, 3000, (7, 9, 10)).astype(np.int16)
LABELS = {"background": 0, "liver": 2, "spleen": 1}
"""Segment 1 has the value 2."""


def make_labels(seed, first=1, last=6):
    """Return labels with empty slices at both ends and one between."""
    labels = np.random.default_rng(seed).choice(np.array([0, 1, 2], np.uint8), VOLUME.shape)
    labels[:first] = labels[last:] = labels[3] = 0
    return labels


@pytest.fixture
def series(tmp_path):
    return read_image(write_series(tmp_path / "series", VOLUME, reverse=True))


@pytest.fixture
def write(series, tmp_path):
    """Write a label map as NIfTI and as a segmentation, into two folders."""

    def write(name, array, labels=LABELS, *, flipped=False):
        folders = [tmp_path / f"{name}-{kind}" for kind in ("nifti", "seg")]
        foreground = {
            key: np.atleast_1d(value).tolist() for key, value in labels.items() if key != "background"
        }
        for folder in folders:
            folder.mkdir()
            content = {
                "channel_names": {"0": "CT"},
                "labels": labels,
                "file_ending": ".nii.gz",
                "numTraining": 1,
            }
            if "background" in labels:
                (folder / "dataset.json").write_text(json.dumps(content))
        segments = make_segments(foreground)
        write_segmentation(folders[1] / "case.dcm", array, like=series, segments=segments)
        image = type(series)(array[np.newaxis], series.spacing, series.origin, series.direction)
        if flipped:  # as dcm2niix stores rows
            direction = np.reshape(series.direction, (3, 3)) * [1, -1, 1]
            shift = np.reshape(series.direction, (3, 3))[:, 1] * (array.shape[1] - 1) * series.spacing[1]
            image = type(series)(
                array[np.newaxis, :, ::-1],
                series.spacing,
                tuple(np.add(series.origin, shift)),
                tuple(direction.ravel()),
            )
        write_image(folders[0] / "case.nii.gz", image)
        return folders

    return write


def scores(predictions, references):
    report = evaluate(predictions, references, context=CONTEXT)
    (case,) = report.cases
    return case.labels


@pytest.mark.parametrize("flipped", [False, True])
def test_scores_equal_those_of_nifti(write, flipped):
    prediction, predicted_seg = write("prediction", make_labels(1), flipped=flipped)
    reference, referred_seg = write("reference", make_labels(2, first=2, last=7), flipped=flipped)
    expected = scores(prediction, reference)
    assert 0.1 < expected["liver"].dice < 0.9
    for predictions, references in (
        (predicted_seg, reference),
        (prediction, referred_seg),
        (predicted_seg, referred_seg),
    ):
        for name, found in scores(predictions, references).items():
            assert found.dice == expected[name].dice
            assert found.model_dump() == pytest.approx(expected[name].model_dump(), rel=1e-5)


def test_two_files_are_one_case(write):
    prediction, seg = write("prediction", make_labels(1))
    report = evaluate(seg / "case.dcm", prediction / "case.nii.gz", context=CONTEXT)
    assert [case.case for case in report.cases] == ["case"]
    assert report.summary.mean_over_labels.dice == 1


def test_regions_come_back_voxel_by_voxel(write):
    regions = {"whole": (1, 2, 3), "core": (2, 3), "enhancing": (3,)}
    array = np.random.default_rng(0).integers(0, 4, VOLUME.shape).astype(np.uint8)
    _, seg = write("prediction", array, regions)
    found = read_segmentation(seg / "case.dcm", regions)
    np.testing.assert_array_equal(found.array[0], array)
    with pytest.raises(InputError, match=r"voxels in the segments 1 and 2 at once. Describe regions"):
        read_segmentation(seg / "case.dcm")


def test_numbers_are_the_values_if_no_segment_has_the_name_of_a_label(write):
    array = make_labels(1)
    _, seg = write("prediction", array)
    expected = np.array([0, 2, 1])[array][1:6]
    for labels in (None, {"left kidney": (4,)}):
        np.testing.assert_array_equal(read_segmentation(seg / "case.dcm", labels).array[0], expected)
    with pytest.raises(InputError, match="expected segments named liver, got spleen"):
        read_segmentation(seg / "case.dcm", {"liver": (2,)})


def test_an_empty_segmentation_has_no_labels(write):
    empty, seg = write("prediction", np.zeros_like(make_labels(0)))
    reference, _ = write("reference", make_labels(2))
    assert scores(seg, reference) == scores(empty, reference)


def test_another_grid_and_other_files_are_faults(write, tmp_path, series):
    _, seg = write("prediction", make_labels(1))
    reference, _ = write("reference", make_labels(2))
    moved = type(series)(make_labels(2)[np.newaxis], series.spacing, (0.3, 50.0, 9.0), series.direction)
    write_image(reference / "case.nii.gz", moved)
    with pytest.raises(FaultsError, match=r"case.dcm and .*case.nii.gz differ in"):
        evaluate(seg, reference, context=CONTEXT)
    slice_file = next((tmp_path / "series").iterdir())
    (seg / "case.dcm").write_bytes(slice_file.read_bytes())
    with pytest.raises(FaultsError, match="expected a DICOM Segmentation, got CT Image Storage"):
        evaluate(seg, reference, context=CONTEXT)
    (seg / "case.dcm").write_bytes(b"no DICOM")
    with pytest.raises(FaultsError, match="expected a complete DICOM file"):
        evaluate(seg, reference, context=CONTEXT)


def test_without_highdicom_the_error_names_the_extra(write, monkeypatch):
    _, seg = write("prediction", make_labels(1))
    reference, _ = write("reference", make_labels(2))
    module = sys.modules[read_segmentation.__module__]
    monkeypatch.setattr(module, "can_write_segmentations", lambda: False)
    with pytest.raises(FaultsError, match=r'pip install "scanseg\[dicom\]"'):
        evaluate(seg, reference, context=CONTEXT)


def test_the_command_scores(write, command, tmp_path):
    prediction, seg = write("prediction", make_labels(1))
    words = ("evaluate", seg, prediction, "-o", tmp_path / "report.json")
    outcome = command(*words, "--num-workers", 0)
    assert outcome.code == 0, outcome.stderr
    assert json.loads((tmp_path / "report.json").read_text())["summary"]["mean_over_labels"]["dice"] == 1
