"""Content of a data set that no training uses is named."""

import json
import shutil

import numpy as np
import pytest

from scanseg.dataset import check_dataset, list_unused, open_dataset
from scanseg.errors import InputError
from scanseg.runtime import RunContext


def warnings_of(folder):
    return check_dataset(open_dataset(folder), context=RunContext(num_workers=0)).warnings


@pytest.mark.parametrize("folder_name", ["imagesTr", "labelsTr", "imagesTs"])
@pytest.mark.parametrize("name", ["extra_0000.nii", "extra_0000.NII.GZ", "notes.txt", "a.json", "scan.dcm"])
def test_files_of_other_endings(make_dataset, folder_name, name):
    folder = make_dataset(2)
    (folder / folder_name).mkdir(exist_ok=True)
    (folder / folder_name / name).touch()
    (warning,) = warnings_of(folder)
    assert warning.startswith(
        f"{folder_name}: 1 file left out that does not end in .nii.gz: {name}. Convert to this format"
    )


def test_the_first_ten_of_many_files_are_named(make_dataset):
    folder = make_dataset(2)
    for number in range(13):
        (folder / f"imagesTr/x{number:02d}.nii").touch()
    (warning,) = warnings_of(folder)
    assert warning.startswith("imagesTr: 13 files left out that do not end in .nii.gz: x00.nii, ")
    assert "x09.nii and 3 more. " in warning


@pytest.mark.parametrize(
    "name", [".DS_Store", "Thumbs.db", "desktop.ini", "._case_0_0000.nii.gz", ".gitkeep"]
)
def test_files_of_operating_systems_are_not_mentioned(make_dataset, name):
    folder = make_dataset(2)
    (folder / "imagesTr" / name).touch()
    assert warnings_of(folder) == ()


@pytest.mark.parametrize("name", [".case_9_0000.nii.gz", "._other_0000.nii.gz"])
def test_hidden_images_are_mentioned(make_dataset, name):
    folder = make_dataset(2)
    (folder / "imagesTr" / name).touch()
    assert warnings_of(folder) == (f"imagesTr: 1 hidden file left out: {name}. Rename to use",)


def test_folders_are_mentioned(make_dataset):
    folder = make_dataset(2)
    for name in ("old", "b", ".git"):
        (folder / "labelsTr" / name).mkdir()
    assert warnings_of(folder) == ("labelsTr: 2 folders left out: b, old. Move images up to use them",)


def test_images_that_are_not_listed(make_dataset):
    folder = make_dataset(3)
    entries = {"b": {"images": ["imagesTr/case_1_0000.nii.gz"], "label": "labelsTr/case_1.nii.gz"}}
    content = json.loads((folder / "dataset.json").read_text()) | {"dataset": entries}
    content.pop("numTraining", None)
    (folder / "dataset.json").write_text(json.dumps(content))
    assert warnings_of(folder) == (
        "imagesTr: 2 files left out, not listed in dataset.json: case_0_0000.nii.gz, case_2_0000.nii.gz",
        "labelsTr: 2 files left out, not listed in dataset.json: case_0.nii.gz, case_2.nii.gz",
    )


def test_cases_in_no_fold(make_dataset):
    folder = make_dataset(4)
    (folder / "splits_final.json").write_text('[{"train": ["case_0"], "val": ["case_1"]}]')
    (folder / "splits.json").write_text("[]")
    expected = (
        "splits_final.json: 2 cases of the data set are in no fold: case_2, case_3. Add to a fold to use",
        "splits.json is left out, as splits_final.json exists",
    )
    assert warnings_of(folder) == expected
    assert list_unused(open_dataset(folder)) == expected


def test_cases_with_only_the_ignore_label(make_dataset, volume_writer):
    labels = {"background": 0, "outer": 1, "inner": 2, "ignore": 3}
    folder = make_dataset(3, labels=labels)
    ignored = np.zeros((5, 12, 10), np.uint8)
    ignored[2] = 3
    volume_writer(folder / "labelsTr/case_1.nii.gz", ignored)
    volume_writer(folder / "labelsTr/case_2.nii.gz", np.zeros((5, 12, 10), np.uint8))
    assert warnings_of(folder) == (
        "1 case without foreground: case_2",
        "1 case without foreground, but with the ignore label: case_1",
    )


def test_foreground_that_cropping_removes(make_dataset, volume_writer):
    folder = make_dataset(3)
    image = np.zeros((5, 12, 10), np.int16)
    image[:, 4:, :] = np.random.default_rng(0).integers(1, 9, (5, 8, 10))
    volume_writer(folder / "imagesTr/case_1_0000.nii.gz", image)
    (warning,) = warnings_of(folder)
    assert warning.startswith(
        "1 case with foreground outside the nonzero part of the image, which cropping removes"
    )
    assert "case_1 (12 voxels)" in warning  # row 3 of 3 slices and 4 columns


def test_a_label_map_without_an_image_of_its_ending_names_the_other_file(make_dataset):
    folder = make_dataset(2)
    shutil.move(folder / "labelsTr/case_1.nii.gz", folder / "labelsTr/case_1.nii")
    with pytest.raises(InputError, match=r"as case_1\.nii does not end in \.nii\.gz"):
        open_dataset(folder)
