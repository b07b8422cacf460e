"""Reports of DICOM Segmentations equal those of the same label maps in NIfTI."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

import scanseg
from scanseg.errors import InputError
from scanseg.imaging import make_segments, read_image, write_image, write_probabilities, write_segmentation
from scanseg.specs import PredictedCase, PredictionRecord
from tests.dicom_series import SERIES, write_series
from tests.factories import image_of

pytest.importorskip("highdicom", reason="the extra dicom is not installed")

LABELS = {"background": 0, "liver": 2, "spleen": 1}
"""Segment 1 has the value 2."""
SEGMENTS = make_segments({"liver": (2,), "spleen": (1,)})
SHAPE = (9, 12, 14)


def make_labels(shift):
    """Return labels with empty slices at both ends."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:6, 2:7, 3 + shift : 9 + shift], labels[4:7, 8:11, 2 + shift : 5 + shift] = 2, 1
    return labels


def flip_rows(image):
    """Store a volume with reversed rows, as dcm2niix does."""
    direction = np.reshape(image.direction, (3, 3))
    shift = direction[:, 1] * (image.shape[1] - 1) * image.spacing[1]
    return replace(
        image,
        array=image.array[:, :, ::-1],
        origin=tuple(np.add(image.origin, shift).tolist()),
        direction=tuple((direction * [1, -1, 1]).ravel().tolist()),
    )


def write_maps(folder, kind, labels, series, *, flipped=False):
    """Write a label map and its description."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"channel_names": {"0": "CT"}, "labels": LABELS, "file_ending": ".nii.gz", "numTraining": 1}
    (folder / "dataset.json").write_text(json.dumps(content))
    if kind == "seg":
        write_segmentation(folder / "anna.dcm", labels, like=series, segments=SEGMENTS)
    else:
        image = replace(series, array=labels[np.newaxis], header=None)
        write_image(folder / "anna.nii.gz", flip_rows(image) if flipped else image)


def write_record(folder, series, name):
    case = PredictedCase(
        case="anna",
        images=(str(series),),
        series_uids=(SERIES,),
        label_map=name,
        probabilities=None,
        seconds=1,
        fault=None,
    )
    record = PredictionRecord(
        model="none",
        recipe="xlstm-unet",
        device="cpu",
        precision="float32",
        mirror=False,
        versions={},
        started="2026-01-01T00:00:00Z",
        seconds=1,
        cases=(case,),
    )
    (folder / "prediction.json").write_text(record.to_json())


def write_uncertainty(folder, labels, series, *, with_entropy):
    likely = np.full((3, *SHAPE), 0.05, np.float16)
    for output, value in enumerate((0, 1, 2)):
        likely[output][labels == value] = 0.9
    write_probabilities(folder / "anna.npz", likely, like=series)
    if with_entropy:
        (folder / "entropy").mkdir()
        entropy = np.linspace(0, 1, labels.size, dtype=np.float32).reshape(1, *SHAPE)
        write_image(folder / "entropy/anna.nii.gz", replace(series, array=entropy, header=None))


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    volume = np.random.default_rng(0).integers(0, 3000, SHAPE).astype(np.int16)
    return write_series(tmp_path_factory.mktemp("series") / "anna", volume, reverse=True)


def make_page(root, series, predicted, referred, *, with_images=True, with_entropy=True, **options):
    """Write the report of predictions and references of some kinds."""
    predictions, references = root / "predictions", root / "references"
    image = read_image(series)
    write_maps(predictions, predicted, make_labels(1), image)
    if with_images:
        write_record(predictions, series, "anna.dcm" if predicted == "seg" else "anna.nii.gz")
    write_uncertainty(predictions, make_labels(1), image, with_entropy=with_entropy)
    if referred is not None:
        kind = referred.removesuffix("-flipped")
        write_maps(references, kind, make_labels(0), image, flipped=referred.endswith("flipped"))
        options["references"] = references
    scanseg.report(predictions, root / "report.html", num_workers=0, progress=False, **options)
    page = (root / "report.html").read_text().replace(str(root), "")
    return re.sub(r"\d+-\d+-\d+ \d+:\d+ UTC", "", page)  # the time of the page


@pytest.fixture(scope="module")
def expected(series, tmp_path_factory):
    return make_page(tmp_path_factory.mktemp("nifti"), series, "nifti", "nifti")


@pytest.mark.parametrize("kinds", [("nifti", "seg"), ("seg", "seg"), ("seg", "nifti-flipped")])
def test_pages_equal_those_of_nifti(expected, series, tmp_path, kinds):
    assert "Reliability" in expected
    assert "Uncertainty and errors" in expected
    assert make_page(tmp_path, series, *kinds) == expected


def test_pages_without_references_equal_those_of_nifti(series, tmp_path):
    pages = [make_page(tmp_path / kind, series, kind, None) for kind in ("seg", "nifti")]
    assert pages[0] == pages[1]


def test_without_images_the_maps_have_the_grid_of_the_entropy(series, tmp_path):
    pages = [make_page(tmp_path / kind, series, kind, kind, with_images=False) for kind in ("seg", "nifti")]
    assert pages[0] == pages[1]


def test_without_a_grid_probabilities_are_left_out(series, tmp_path):
    page = make_page(tmp_path, series, "seg", "nifti", with_images=False, with_entropy=False)
    assert "Confusion" in page
    assert "Expected calibration error" not in page


def test_another_image_is_a_fault(series, tmp_path):
    (tmp_path / "images").mkdir()
    write_image(tmp_path / "images/anna_0000.nii.gz", image_of(np.zeros((1, *SHAPE), np.float32)))
    with pytest.raises(InputError, match=r"anna.dcm: expected the grid of the image, got another"):
        make_page(tmp_path, series, "seg", None, images=tmp_path / "images")


def test_one_of_several_series_is_found_by_its_uid(expected, series, tmp_path):
    page = make_page(tmp_path, series / SERIES, "seg", "seg")
    assert page == expected


def test_the_command_of_the_scores_writes_the_page(series, tmp_path, command):
    image = read_image(series)
    write_maps(tmp_path / "predictions", "seg", make_labels(1), image)
    write_maps(tmp_path / "references", "seg", make_labels(0), image)
    words = ("evaluate", tmp_path / "predictions", tmp_path / "references", "--num-workers", 0)
    outcome = command(*words, "-o", tmp_path / "scores.json", "--report", tmp_path / "report.html")
    assert outcome.code == 0, outcome.stderr
    assert "Case: anna" in (tmp_path / "report.html").read_text()
