"""Endoscopy, cells, nuclei and polyps: conversion from each layout."""

import numpy as np
import pytest
from PIL import Image as Picture

from scanseg.converters import NAMED_DATASETS, convert_dataset
from scanseg.converters.instances import interior_and_boundary
from scanseg.errors import UsageError
from scanseg.evaluation.instances import find_instances
from scanseg.imaging import read_image, read_instance_map, read_label_map, write_instance_map
from scanseg.runtime import RunContext

from . import forms
from .forms import convert, label_map, names, refused


def assert_shown(path, numbers):
    """Check that a picture shows each instance in one colour, and instances that touch in different ones."""
    with Picture.open(path) as picture:
        colours = np.asarray(picture.convert("RGB"))
    assert (colours[numbers == 0] == 0).all()
    shown = {number: np.unique(colours[numbers == number], axis=0) for number in np.unique(numbers) if number}
    assert all(len(found) == 1 and found.any() for found in shown.values())
    assert (shown[7] != shown[300]).any()


# endovis17


def video(root, number, frames, *, masks):
    for frame in frames:
        forms.picture(
            root / f"instrument_dataset_{number}" / "left_frames" / f"frame{frame:03d}.png", seed=frame
        )
        for name, inside in masks.items():
            folder = root / f"instrument_dataset_{number}" / "ground_truth" / name
            forms.mask(folder / f"frame{frame:03d}.png", inside, value=20)


def test_endovis17(tmp_path):
    left, right, other = np.zeros((3, 20, 24), bool)
    left[2:9, 2:9], right[5:15, 5:15], other[17:19, 17:19] = True, True, True
    masks = {
        "Left_Prograsp_Forceps_labels": left,
        "Right_Large_Needle_Driver_labels": right,
        "Other_labels": other,
    }
    video(tmp_path / "source" / "instrument_1_4_training", 1, (0, 224, 225), masks=masks)
    video(tmp_path / "source" / "test", 9, (0,), masks={"Maryland_Bipolar_Forceps_labels": left})
    video(tmp_path / "source" / "test", 10, (0, 1), masks={})
    result, dataset = convert("endovis17", tmp_path / "source", tmp_path / "out")
    assert names(dataset) == ["video01_frame000", "video01_frame224"]
    assert result.num_cases == {"train": 2, "test": 2}
    assert result.notes == ("no masks, left out: instrument_dataset_10",)
    expected = np.zeros((20, 24), int)
    expected[left], expected[right], expected[other] = 2, 3, 7
    found = label_map(tmp_path / "out", "video01_frame000", ending=".png")
    np.testing.assert_array_equal(found, expected)
    found = label_map(tmp_path / "out", "video09_frame000", part="Ts", ending=".png")
    np.testing.assert_array_equal(found, left)


def test_endovis17_of_the_full_frame_and_typed_masks(tmp_path):
    root = tmp_path / "source" / "instrument_dataset_2"
    frame = forms.picture(root / "left_frames" / "frame225.png", (1080, 1920))
    labels = np.zeros((1080, 1920), np.uint8)
    labels[100:200, 400:500] = 6
    forms.mask(root / "gt" / "TypeSegmentation" / "frame225.png", labels == 6, value=6)
    forms.picture(root / "left_frames" / "frame000.png", (1080, 1920))
    forms.mask(root / "gt" / "TypeSegmentation" / "frame000.png", labels == 6, value=6)
    convert("endovis17", tmp_path / "source", tmp_path / "out")
    image = read_image(tmp_path / "out" / "imagesTs" / "video02_frame225_0000.png")
    assert image.shape == (1024, 1280)
    np.testing.assert_array_equal(image.array, frame[:, 28 : 28 + 1024, 320 : 320 + 1280])
    assert label_map(tmp_path / "out", "video02_frame000", ending=".png")[72, 80] == 6


def test_endovis17_with_faults(tmp_path):
    inside = np.ones((20, 24), bool)
    video(tmp_path / "source", 1, (0, 1), masks={"Left_Spoon_labels": inside})
    video(tmp_path / "source", 2, (0,), masks={"Prograsp_Forceps_labels": inside[:10]})
    video(tmp_path / "source", 3, (0, 1), masks={"Prograsp_Forceps_labels": inside})
    video(tmp_path / "source", 4, (0,), masks={})
    (tmp_path / "source/instrument_dataset_3/ground_truth/Prograsp_Forceps_labels/frame001.png").unlink()
    message = refused("endovis17", tmp_path / "source", tmp_path / "out")
    for part in (
        "unknown instruments Left_Spoon_labels",
        "expected shape (20, 24) of the frame, got (10, 24)",
        "no mask ground_truth/Prograsp",
        "no mask in ground_truth or gt/TypeSegmentation",
        "5 faults",
    ):
        assert part in message, part


# instances


def test_interior_and_boundary():
    labels = interior_and_boundary(forms.two_cells())
    expected = np.zeros((20, 24), int)
    expected[3:9, 3:15], expected[12:17, 5:12] = 2, 2
    expected[4:8, 4:8], expected[4:8, 10:14], expected[13:16, 6:11] = 1, 1, 1
    np.testing.assert_array_equal(labels, expected)
    # The edge of the image is no boundary. The rule is the same with three axes.
    assert interior_and_boundary(np.ones((3, 3), int)).tolist() == [[1] * 3] * 3
    assert (interior_and_boundary(np.pad(np.ones((3, 3, 3), int), 1)) == 1).sum() == 1


def test_neurips_cell(tmp_path):
    root = tmp_path / "source"
    cells = forms.two_cells()
    images = root / "Training-labeled" / "images"
    picture = forms.picture(images / "cell_00001.png")
    forms.picture(images / "cell_00002.bmp", channels=1)
    deep = np.random.default_rng(0).integers(0, 4000, (20, 24)).astype(np.uint16)
    import tifffile

    tifffile.imwrite(images / "cell_00003.tif", deep)
    for number in (1, 2, 3):
        forms.numbers(root / "Training-labeled" / "labels" / f"cell_{number:05d}_label.tiff", cells)
    forms.picture(root / "Tuning" / "images" / "cell_00001_t.png")
    forms.numbers(root / "Tuning" / "labels" / "cell_00001_t_label.tiff", cells)
    result, dataset = convert("neurips-cell", root, tmp_path / "out")
    assert names(dataset) == ["cell_00001", "cell_00002", "cell_00003"]
    assert result.num_cases == {"train": 3, "test": 1}
    out = tmp_path / "out"
    np.testing.assert_array_equal(read_image(out / "imagesTr" / "cell_00001_0000.png").array, picture)
    grey = read_image(out / "imagesTr" / "cell_00002_0000.png").array
    assert (grey == grey[:1]).all()
    scaled = read_image(out / "imagesTr" / "cell_00003_0000.png").array
    assert (scaled.min(), scaled.max()) == (0, 255)
    assert any("cell_00003: uint16 scaled" in note for note in result.notes)
    np.testing.assert_array_equal(read_instance_map(out / "instancesTr" / "cell_00001.png").array[0], cells)
    np.testing.assert_array_equal(label_map(out, "cell_00001", ending=".png"), interior_and_boundary(cells))
    assert (out / "instancesTs" / "cell_00001_t.png").is_file()
    assert_shown(out / "instanceColoursTr" / "cell_00001.png", cells)
    assert (out / "instanceColoursTs" / "cell_00001_t.png").is_file()
    (root / "Tuning" / "labels").rename(tmp_path / "kept")
    result, _ = convert("neurips-cell", root, tmp_path / "train-only")
    assert result.num_cases == {"train": 3}
    assert "Tuning/labels is missing, so the test part is empty" in result.notes
    (tmp_path / "kept").rename(root / "Tuning" / "labels")
    (root / "Tuning" / "labels" / "cell_00001_t_label.tiff").unlink()
    forms.numbers(root / "Training-labeled" / "labels" / "cell_00009_label.tiff", cells)
    message = refused("neurips-cell", root, tmp_path / "again")
    assert "Tuning: cell_00001_t.png: no instances in labels" in message
    assert "Training-labeled: cell_00009_label.tiff: no image in images" in message


def test_dsb2018_of_kaggle(tmp_path):
    root = tmp_path / "source" / "stage1_train"
    cells = forms.two_cells()
    for name in ("aa", "bb", "cc", "dd"):
        forms.picture(root / name / "images" / f"{name}.png")
        for number in (2, 7, 300):
            forms.mask(root / name / "masks" / f"{number:03d}.png", cells == number)
    result, _ = convert("dsb2018", tmp_path / "source", tmp_path / "out")
    assert result.num_cases == {"train": 3, "test": 1}
    found = next(iter((tmp_path / "out" / "instancesTs").iterdir()))
    numbers = read_instance_map(found).array[0]
    assert len(np.unique(numbers)) == 4
    np.testing.assert_array_equal(numbers > 0, cells > 0)
    forms.mask(root / "aa" / "masks" / "9.png", np.ones((5, 5), bool))
    (root / "ee" / "images").mkdir(parents=True)
    forms.picture(root / "ee" / "images" / "ee.png")
    message = refused("dsb2018", tmp_path / "source", tmp_path / "again")
    assert "9.png: expected shape (20, 24) of the image, got (5, 5)" in message
    assert "ee: no masks" in message


def test_dsb2018_with_its_own_test_part(tmp_path):
    cells = forms.two_cells()
    for part in ("train", "test"):
        forms.picture(tmp_path / "source" / part / "images" / f"{part}1.tif")
        forms.numbers(tmp_path / "source" / part / "masks" / f"{part}1.tif", cells)
    result, dataset = convert("dsb2018", tmp_path / "source", tmp_path / "out")
    assert (names(dataset), result.num_cases) == (["train1"], {"train": 1, "test": 1})
    with pytest.raises(UsageError, match="a split of its own"):
        convert_dataset(
            NAMED_DATASETS["dsb2018"],
            tmp_path / "source",
            tmp_path / "x",
            test_fraction=0.5,
            context=RunContext(num_workers=0),
        )


def test_instances_in_volumes(tmp_path):
    numbers = np.zeros((7, 12, 16), np.int32)
    numbers[1:6, 2:7, 2:7], numbers[1:6, 2:7, 7:12] = 5, 600
    labels = (numbers > 0).astype(np.uint8)
    source = tmp_path / "source"
    forms.write_pair(source / "images" / "a.nii.gz", tmp_path / "a.nii.gz", labels, spacing=(3, 1, 1))
    (source / "instances").mkdir()
    write_instance_map(source / "instances" / "a.nii.gz", numbers, like=read_image(tmp_path / "a.nii.gz"))
    forms.write_pair(source / "images" / "b.nii.gz", tmp_path / "b.nii.gz", labels, spacing=(3, 1, 1))
    write_instance_map(source / "instances" / "b.nii.gz", numbers, like=read_image(tmp_path / "b.nii.gz"))
    _, dataset = convert("instances-3d", source, tmp_path / "out")
    assert read_image(dataset.cases[0].images).spacing == (3, 1, 1)
    found = label_map(tmp_path / "out", "a")
    assert (found == 1).sum() == 2 * 3**3
    assert ((found > 0) == (numbers > 0)).all()
    grown = find_instances(found, grow=1)
    assert all(len(np.unique(grown[numbers == number])) == 1 for number in (5, 600))
    assert ((grown > 0) == (numbers > 0)).all()


def test_masks_are_no_instance_maps_and_instance_maps_no_masks(tmp_path):
    forms.picture(tmp_path / "a" / "images" / "1.png")
    forms.mask(tmp_path / "a" / "masks" / "1.png", forms.two_cells() > 0)
    message = refused("dsb2018", tmp_path / "a", tmp_path / "out")
    assert "expected a number for each instance, got a mask" in message
    forms.picture(tmp_path / "b" / "images" / "1.png")
    numbers = np.clip(forms.two_cells(), 0, 9)
    forms.mask(tmp_path / "b" / "masks" / "1.png", numbers, value=1)
    assert "values such as 2, 7, 9" in refused("kvasir-seg", tmp_path / "b", tmp_path / "out")


def test_real_nuclei(shared_data, tmp_path):
    forms.link_some(shared_data / "dsb2018", tmp_path / "source", ("images", "instances"), number=12)
    result, dataset = convert("dsb2018", tmp_path / "source", tmp_path / "out")
    assert result.num_cases == {"train": 9, "test": 3}
    for case in dataset.cases[:5]:
        numbers = read_instance_map(tmp_path / "out" / "instancesTr" / f"{case.name}.png").array[0]
        source = read_instance_map(shared_data / "dsb2018" / "instances" / f"{case.name}.png").array[0]
        np.testing.assert_array_equal(numbers, source)


# polyps


@pytest.mark.parametrize("ending", [".png", ".jpg"])
def test_kvasir_seg(tmp_path, ending):
    inside = np.zeros((160, 240), bool)
    inside[40:120, 80:160] = True
    for number in range(10):
        forms.picture(
            tmp_path / "source" / "Kvasir-SEG" / "images" / f"{number}.jpg", (160, 240), seed=number
        )
        forms.mask(tmp_path / "source" / "Kvasir-SEG" / "masks" / f"{number}{ending}", inside)
    result, dataset = convert("kvasir-seg", tmp_path / "source", tmp_path / "out")
    assert result.num_cases == {"train": 9, "test": 1}
    np.testing.assert_array_equal(read_label_map(dataset.cases[0].label_map).array[0], inside)
    (tmp_path / "source" / "Kvasir-SEG" / "masks" / f"3{ending}").unlink()
    assert "3.jpg: no mask in masks" in refused(
        "kvasir-seg", tmp_path / "source" / "Kvasir-SEG", tmp_path / "again"
    )


def test_real_polyps(shared_data, tmp_path):
    forms.link_some(shared_data / "kvasir-seg", tmp_path / "source", ("images", "masks"), number=10)
    result, dataset = convert("kvasir-seg", tmp_path / "source", tmp_path / "out", test_fraction=0.2)
    assert result.num_cases == {"train": 8, "test": 2}
    case = dataset.cases[0]
    source = read_image(shared_data / "kvasir-seg" / "masks" / f"{case.name}.png").array[0]
    np.testing.assert_array_equal(read_label_map(case.label_map).array[0], source > 127)
