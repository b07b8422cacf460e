"""Folders without `dataset.json`: the command that converts them."""

import shlex

import pytest

from scanseg.dataset import find_folder_cases, open_dataset
from scanseg.errors import InputError


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


CHANNELS = ("t1", "t2", "seg")
LAYOUTS = {
    "voc": (["JPEGImages/1.jpg", "JPEGImages/2.jpg", "SegmentationClass/1.png"], "folder"),
    "suffixes": (["img001.png", "img001_mask.png", "img002.png", "img002_mask.png"], "folder"),
    "jpeg-and-png": (["1.jpg", "1.png", "2.jpg", "2.png"], "folder"),
    "lits": (["volume-1.nii", "segmentation-1.nii"], "folder"),
    "raw": (["imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"], "folder"),
    "structures": (["s1/ct.nii.gz", "s1/segmentations/liver.nii.gz", "meta.csv"], "folder"),
    "cases": (["p1/image.nii.gz", "p1/label.nii.gz"], "folder"),
    "slicer": (["c1/c1.nrrd", "c1/Segmentation.seg.nrrd"], "folder"),
    "instances": (["images/1.png", "instances/1.png"], "dsb2018"),
    "instance-volumes": (["images/1.nii.gz", "instances/1.nii.gz"], "instances-3d"),
    "bowl": (["x/images/x.png", "x/masks/1.png", "x/masks/2.png"], "dsb2018"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_known_layout_has_a_command(tmp_path, name):
    files, converter = LAYOUTS[name]
    touch(tmp_path / name, *files)
    with pytest.raises(InputError, match="cannot be read") as caught:
        open_dataset(tmp_path / name)
    command = shlex.split(str(caught.value).splitlines()[-1])
    assert command == [
        *("scanseg", "data", "convert", converter, str(tmp_path / name), "-o", f"{name}-dataset")
    ]


@pytest.mark.parametrize("inside", ["", "CASE/"])
def test_channels_are_part_of_the_command(tmp_path, inside):
    for case in ("B_1", "B_2"):
        touch(tmp_path / "in", *(f"{inside.replace('CASE', case)}{case}_{end}.nii.gz" for end in CHANNELS))
    with pytest.raises(InputError, match=r"-o in-dataset --channels t1,t2"):
        open_dataset(tmp_path / "in")
    found = find_folder_cases(tmp_path / "in", channels=("t1", "t2"))
    assert [(case.name, len(case.images), case.is_labelled) for case in found.cases] == [
        ("B_1", 2, True),
        ("B_2", 2, True),
    ]
    assert not found.faults


def test_a_part_inside_the_folder_is_named(tmp_path):
    touch(tmp_path / "in", "train/images/1.png", "train/masks/1.png", "test/images/2.png")
    with pytest.raises(InputError, match=r"folder \S*in/train -o train-dataset"):
        open_dataset(tmp_path / "in")


def test_faulty_names_lead_to_a_dry_run(tmp_path):
    touch(tmp_path / "in", "images/0.png", "masks/0_mask.png", "masks/0_gt.png")
    with pytest.raises(InputError, match=r"1 fault in their names.*\n.*--dry-run"):
        open_dataset(tmp_path / "in")


@pytest.mark.parametrize("files", [["a.txt"], ["scans/1.png", "scans/2.png"]])
def test_an_unknown_layout_has_no_command(tmp_path, files):
    touch(tmp_path / "in", *files)
    with pytest.raises(InputError, match="A raw data set needs this file") as caught:
        open_dataset(tmp_path / "in")
    assert "scanseg data convert" not in str(caught.value)


def test_images_alone_need_the_folder_of_label_maps(tmp_path):
    touch(tmp_path / "in", "1.png", "2.png")
    with pytest.raises(InputError, match=r"no label maps.*\n.*convert folder \S*in LABELS -o in-dataset"):
        open_dataset(tmp_path / "in")
