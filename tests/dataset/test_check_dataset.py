import json
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import PIL.Image
import pytest

from scanseg.dataset import check as module
from scanseg.dataset.check import check_dataset, checked_early
from scanseg.dataset.raw import open_dataset
from scanseg.errors import InputError
from scanseg.runtime import RunContext
from scanseg.specs import DatasetSpec


def test_report_of_a_data_set_without_faults(make_dataset):
    updates = []
    report = check_dataset(
        open_dataset(make_dataset(3, num_channels=2)),
        context=RunContext(num_workers=0, progress=updates.append),
    )
    assert report.num_cases == 3
    assert report.num_axes == 3
    assert report.shape_range == ((5, 12, 10), (5, 12, 10))
    np.testing.assert_allclose(report.spacing_range[0], (3.0, 0.5, 0.75))
    assert report.label_voxels == {"outer": 3 * (3 * 5 * 4 - 4), "inner": 3 * 4}
    assert report.label_cases == {"outer": 3, "inner": 3}
    assert report.warnings == ()
    assert [(p.done, p.total) for p in updates] == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert report.lines() == [
        "raw: 3 cases, 2 channels, 3 axes",
        "shape (z, y, x): 5 x 12 x 10 voxels",
        "spacing (z, y, x): 3 x 0.5 x 0.75 mm",
        "orientation: LPS",
        "label outer: 168 voxels in 3 cases",
        "label inner: 12 voxels in 3 cases",
    ]


@pytest.fixture
def started(monkeypatch):
    """Return the calls of `started_early`."""
    calls = []

    @contextmanager
    def started_early(function, cases, *, context):
        calls.append((len(cases), context.num_workers))
        yield

    monkeypatch.setattr(module, "started_early", started_early)
    return calls


def test_workers_start_early_for_a_data_set(make_dataset, started):
    with checked_early(make_dataset(3), context=RunContext(num_workers=5)):
        assert started == [(3, 5)]
    with checked_early(make_dataset(3), context=RunContext()):
        assert started[1:] == [(3, 0)]  # reading these small images takes no workers


def test_no_workers_start_early_for_other_paths_and_in_trainings_of_several_processes(
    make_dataset, started, monkeypatch, tmp_path
):
    faulty = make_dataset(1)
    (faulty / "dataset.json").write_text("{}")
    for path in (tmp_path / "missing", tmp_path, faulty):
        with checked_early(path, context=RunContext(num_workers=5)):
            pass
    monkeypatch.setattr(module, "count_launched", lambda: 2)
    with checked_early(make_dataset(3), context=RunContext(num_workers=5)):
        pass
    assert started == []


def test_every_fault_of_every_case_is_in_one_message(make_dataset, volume_writer):
    folder = make_dataset(8, num_channels=2)
    images, labels = folder / "imagesTr", folder / "labelsTr"
    plain = np.arange(600, dtype=np.int16).reshape(5, 12, 10)
    volume_writer(images / "case_0_0001.nii.gz", plain[:4])
    volume_writer(labels / "case_1.nii.gz", np.zeros((5, 12, 10), np.uint8), spacing=(3, 0.5, 0.9))
    volume_writer(labels / "case_2.nii.gz", np.full((5, 12, 10), 7, np.uint8))
    volume_writer(images / "case_3_0000.nii.gz", np.full((5, 12, 10), np.nan, np.float32))
    for channel in range(2):
        volume_writer(images / f"case_4_{channel:04d}.nii.gz", np.zeros((5, 12, 10), np.int16))
    (labels / "case_5.nii.gz").write_bytes((labels / "case_5.nii.gz").read_bytes()[:60])
    volume_writer(labels / "case_6.nii.gz", np.full((5, 12, 10), 0.5, np.float32))
    with pytest.raises(InputError) as caught:
        check_dataset(open_dataset(folder), context=RunContext(num_workers=0))
    message = str(caught.value)
    assert message.startswith(f"{folder}: 7 faults\n")
    for words in (
        "case case_0: ",
        "case_0_0001.nii.gz differ in shape (5, 12, 10) and (4, 12, 10)",
        "case case_1: image and label map differ in spacing (3.0, 0.5, 0.75) and (3.0, 0.5, 0.9) mm",
        "case case_2: label map case_2.nii.gz: expected the labels 0, 1, 2, got unknown values 7 (600 voxels)",
        "case_3_0000.nii.gz: 600 voxels are NaN",
        "case case_4: empty image: every voxel is 0",
        "case_5.nii.gz: truncated",
        "case_6.nii.gz: 600 label values not whole, such as 0.5",
    ):
        assert words in message
    assert "case_7" not in message


def write_pictures(folder, labels, mode="RGB"):
    (folder / "imagesTr").mkdir()
    (folder / "labelsTr").mkdir()
    rng = np.random.default_rng(0)
    for name, label_map in labels.items():
        shape = (*label_map.shape, 3) if mode == "RGB" else label_map.shape
        PIL.Image.fromarray(rng.integers(0, 255, shape, np.uint8)).save(folder / f"imagesTr/{name}_0000.png")
        PIL.Image.fromarray(label_map).save(folder / f"labelsTr/{name}.png")
    content = {
        "channel_names": {"0": "R", "1": "G", "2": "B"} if mode == "RGB" else {"0": "grey"},
        "labels": {"background": 0, "polyp": 1},
        "file_ending": ".png",
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return open_dataset(folder)


def test_a_mask_of_0_and_255_is_refused_with_its_correction(tmp_path):
    mask = np.zeros((6, 7), np.uint8)
    mask[2:4, 2:4] = 255
    with pytest.raises(
        InputError, match=r"a.png: .* got a mask of 0 and 255\. .* \(array == 255\).astype\('uint8'\)"
    ):
        check_dataset(write_pictures(tmp_path, {"a": mask}), context=RunContext(num_workers=0))


def test_pictures(tmp_path):
    mask = np.zeros((6, 7), np.uint8)
    report = check_dataset(
        write_pictures(tmp_path, {"a": mask, "b": mask + 1}), context=RunContext(num_workers=0)
    )
    assert report.num_axes == 2
    assert report.num_channels == 3
    assert report.lines()[1] == "shape (y, x): 6 x 7 pixels"
    assert not any("mm" in line for line in report.lines())
    assert report.warnings == ("1 case without foreground: a",)


def test_the_lines_hold_the_first_of_many_warnings_and_the_report_all(tmp_path):
    pictures = {f"a{number:02d}": np.zeros((6, 7), np.uint8) for number in range(30)}
    report = check_dataset(write_pictures(tmp_path, pictures), context=RunContext(num_workers=0))
    names = ", ".join(f"a{number:02d}" for number in range(10))
    assert report.warnings == (
        "label polyp never occurs",
        f"30 cases without foreground: {names} and 20 more",
    )
    many = replace(report, warnings=tuple(f"case {number}" for number in range(40)))
    assert many.lines()[-2:] == ["warning: case 19", "and 20 more"]
    assert len(many.lines()) == len(report.lines()) - 2 + 21


def test_wrong_number_of_channels(make_dataset):
    dataset = open_dataset(make_dataset(1))
    colour = DatasetSpec.model_validate(dataset.spec.model_dump() | {"channel_names": ("R", "G")})
    with pytest.raises(
        InputError, match=r"case case_0: expected 2 channels \(R, G\) as in dataset.json, got 1\."
    ):
        check_dataset(type(dataset)(dataset.path, colour, dataset.cases), context=RunContext(num_workers=0))


def test_warnings_of_absent_labels_and_constant_channels(make_dataset, volume_writer):
    folder = make_dataset(2, num_channels=2, labels={"background": 0, "outer": 1, "inner": 2, "absent": 3})
    volume_writer(folder / "imagesTr/case_1_0001.nii.gz", np.full((5, 12, 10), 9, np.int16))
    report = check_dataset(open_dataset(folder), context=RunContext(num_workers=0))
    assert report.warnings == ("label absent never occurs", "case case_1: channel c1 is 9 everywhere")
    assert "warning: label absent never occurs" in report.lines()


def test_images_of_two_and_three_axes(make_dataset, volume_writer):
    folder = make_dataset(3)
    volume_writer(folder / "imagesTr/case_1_0000.nii.gz", np.arange(20, dtype=np.int16).reshape(4, 5), (1, 1))
    volume_writer(folder / "labelsTr/case_1.nii.gz", np.ones((4, 5), np.uint8), (1, 1))
    with pytest.raises(InputError, match=r"images of 3 axes, got 1 of another number: case_1 \(4, 5\)"):
        check_dataset(open_dataset(folder), context=RunContext(num_workers=0))


@pytest.mark.parametrize("name", ["hippocampus", "acdc", "brats2015"])
def test_real_data(shared_data, tmp_path, name):
    dataset = open_dataset(shared_data / name)
    report = check_dataset(
        type(dataset)(tmp_path, dataset.spec, dataset.cases[:2]), context=RunContext(num_workers=0)
    )
    assert report.num_cases == 2
    assert all(report.label_voxels.values())


def test_folds_and_the_number_of_cases_are_checked_with_the_cases(make_dataset, volume_writer):
    folder = make_dataset(3, numTraining=4)
    volume_writer(folder / "labelsTr/case_2.nii.gz", np.full((5, 12, 10), 7, np.uint8))
    folds = [
        {"train": ["case_0", "case_9"], "val": ["case_1"]},
        {"train": [], "val": ["case_2"]},
    ]
    (folder / "splits_final.json").write_text(json.dumps(folds))
    with pytest.raises(InputError) as caught:
        check_dataset(open_dataset(folder), context=RunContext(num_workers=0))
    message = str(caught.value)
    assert message.startswith(f"{folder}: 4 faults\n")
    for words in (
        "case case_2: label map case_2.nii.gz: expected the labels 0, 1, 2, got unknown values 7",
        "expected 4 training cases by numTraining in dataset.json, got 3. Add",
        "splits_final.json: fold 0: case case_9 not in the data set. Correct",
        "splits_final.json: fold 1: no training cases. Name some",
    ):
        assert words in message


@pytest.mark.parametrize("name", ["splits_final.json", "splits.json"])
def test_a_case_in_both_parts_of_a_fold_is_found_by_the_check(make_dataset, name):
    folder = make_dataset(3)
    (folder / name).write_text('{"train": ["case_0", "case_1"], "val": ["case_1"]}')
    with pytest.raises(InputError, match=rf"{name}: fold 0: case case_1 is in training and in validation"):
        check_dataset(open_dataset(folder), context=RunContext(num_workers=0))


def test_warning_of_a_fold_without_validation_cases(make_dataset):
    folder = make_dataset(3, numTraining="3")
    (folder / "splits.json").write_text(
        '[{"train": ["case_0", "case_2"], "val": ["case_1"]}, {"train": ["case_0"], "val": []}]'
    )
    report = check_dataset(open_dataset(folder), context=RunContext(num_workers=0))
    assert report.warnings == ("splits.json: fold 1 has no validation cases, so it gives no score",)


def test_an_invalid_number_of_cases(make_dataset):
    with pytest.raises(InputError, match='numTraining: expected a number of cases, got "many"'):
        open_dataset(make_dataset(2, numTraining="many"))
