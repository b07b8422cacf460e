"""Own folders of images and label maps: conversion from each layout, and refused folders."""

import json

import numpy as np
import pytest
from PIL import Image as Picture

import scanseg
from scanseg.dataset.check import check_dataset
from scanseg.dataset.raw import open_dataset
from scanseg.errors import InputError, UsageError
from scanseg.imaging import read_image, read_label_map
from scanseg.runtime import RunContext
from tests.factories import write_picture, write_volume

from . import forms
from .forms import SHAPE, box, colour_masks, squares, volume_pair


def convert(source, output, **options):
    """Convert an own folder, then open and check the data set."""
    result = scanseg.convert("folder", source, output, num_workers=0, **options)
    dataset = open_dataset(output)
    check_dataset(dataset, context=RunContext(num_workers=0))
    return result, dataset


def refused(source, output, **options):
    """Convert a faulty folder and return the message. Check that nothing is written."""
    with pytest.raises(InputError) as caught:
        scanseg.convert("folder", source, output, num_workers=0, **options)
    assert not output.exists()
    return str(caught.value)


def labels_of(output, name, *, ending=".png", part="Tr"):
    return forms.label_map(output, name, part=part, ending=ending)


# layouts


def test_masks_of_0_and_255_in_two_folders(tmp_path):
    source = tmp_path / "polyps"
    for number in range(4):
        forms.picture(source / "images" / f"{number}.jpg", SHAPE, seed=number)
        write_picture(source / "masks" / f"{number}.png", squares(255))
    forms.picture(source / "images" / "new.jpg", SHAPE)
    result, dataset = convert(source, tmp_path / "data" / "mine")
    assert result.num_cases == {"train": 4, "unlabelled": 1}
    assert dataset.spec.labels == {"background": 0, "foreground": 1}
    assert (dataset.spec.channel_names, dataset.spec.name) == (("R", "G", "B"), "mine")
    np.testing.assert_array_equal(labels_of(dataset.path, "0"), squares(255) > 0)
    kept = read_image(dataset.path / "imagesTs" / "new_0000.png")
    np.testing.assert_array_equal(kept.array, read_image(source / "images" / "new.jpg").array)
    assert not (dataset.path / "labelsTs").exists()
    with Picture.open(dataset.path / "coloursTr" / "0.png") as colours:
        assert set(colours.convert("RGB").get_flattened_data()) == {(0, 0, 0), (0x00, 0x72, 0xB2)}
    assert dataset.warnings == ()


def test_converted_data_name_no_public_data_set(tmp_path):
    for number in range(3):
        forms.picture(tmp_path / "source" / "images" / f"{number}.png", SHAPE)
        write_picture(tmp_path / "source" / "masks" / f"{number}.png", squares(255))
    convert(tmp_path / "source", tmp_path / "first", dataset_name="our polyps")
    scanseg.convert("kvasir-seg", tmp_path / "source", tmp_path / "second", num_workers=0)
    scanseg.convert("kvasir-seg", tmp_path / "source", tmp_path / "third", dataset_name="x", num_workers=0)
    names = []
    for folder in ("first", "second", "third"):
        description = json.loads((tmp_path / folder / "dataset.json").read_text())
        names.append(description["name"])
        assert not {"reference", "licence", "license"} & description.keys()
    assert names == ["our polyps", "second", "x"]


@pytest.mark.parametrize(
    ("image", "label_map"),
    [
        ("a", "a_mask"),
        ("a", "a_seg"),
        ("a", "a-label"),
        ("a", "a_labels"),
        ("a", "a_gt"),
        ("a", "a_segmentation"),
        ("a", "a.seg"),
        ("a", "mask_a"),
        ("image_7", "mask_7"),
        ("img0007", "label0007"),
        ("volume-7", "segmentation-7"),
        ("7_image", "7_Mask"),
    ],
)
@pytest.mark.parametrize("folders", [("images", "masks"), (".", ".")])
def test_names_of_label_maps(tmp_path, image, label_map, folders):
    volume_pair(
        tmp_path / "source" / folders[0] / f"{image}.nii.gz",
        tmp_path / "source" / folders[1] / f"{label_map}.nrrd",
        box(),
    )
    _, dataset = convert(tmp_path / "source", tmp_path / "out")
    assert forms.names(dataset) == [image]
    np.testing.assert_array_equal(labels_of(dataset.path, image, ending=".nii.gz"), box())
    assert read_image(dataset.cases[0].images).spacing == (2, 1, 1)


def test_two_named_folders_with_channels_of_nnunet(tmp_path):
    for name in ("heart_1", "heart_2"):
        for channel in (0, 1):
            volume_pair(
                tmp_path / "in" / f"{name}_{channel:04d}.nii.gz",
                tmp_path / "out" / f"{name}.nii.gz",
                box(),
                seed=channel,
            )
    _, dataset = convert(tmp_path / "in", tmp_path / "data", label_maps=tmp_path / "out")
    assert [(case.name, len(case.images)) for case in dataset.cases] == [("heart_1", 2), ("heart_2", 2)]
    first, second = (read_image(path).array for path in dataset.cases[0].images)
    assert not np.array_equal(first, second)


def test_numbers_of_frames_are_no_channels(tmp_path):
    for number in range(3):
        forms.picture(tmp_path / "source" / "images" / f"frame_{number:04d}.png", SHAPE)
        write_picture(tmp_path / "source" / "labels" / f"frame_{number:04d}.png", squares(1, 2))
    _, dataset = convert(tmp_path / "source", tmp_path / "out", labels="tool=1,tissue=2")
    assert forms.names(dataset) == ["frame_0000", "frame_0001", "frame_0002"]


def test_raw_layout_without_a_description(tmp_path):
    for number in range(2):
        volume_pair(
            tmp_path / "source" / "imagesTr" / f"liver_{number}_0000.nii.gz",
            tmp_path / "source" / "labelsTr" / f"liver_{number}.nii.gz",
            box(),
        )
    _, dataset = convert(tmp_path / "source", tmp_path / "out")
    assert forms.names(dataset) == ["liver_0", "liver_1"]


@pytest.mark.parametrize("beside", [False, True])
def test_one_mask_per_structure(tmp_path, beside):
    liver, spleen = box(), np.roll(box(255), 4, axis=2)
    for case in ("s001", "s002"):
        folder = tmp_path / "source" / case
        inside = folder if beside else folder / "segmentations"
        volume_pair(folder / "ct.nii.gz", inside / "spleen.nii.gz", spleen)
        if case == "s001":
            write_volume(inside / "liver.nii.gz", liver, (2.0, 1.0, 1.0))
    result, dataset = convert(tmp_path / "source", tmp_path / "all")
    assert dataset.spec.labels == {"background": 0, "liver": 1, "spleen": 2}
    np.testing.assert_array_equal(labels_of(dataset.path, "s001", ending=".nii.gz"), liver + 2 * (spleen > 0))
    assert "no mask of liver in 1 case, where it counts as absent: s002" in result.notes
    result, dataset = convert(tmp_path / "source", tmp_path / "one", labels={"spleen": 1})
    np.testing.assert_array_equal(labels_of(dataset.path, "s001", ending=".nii.gz"), spleen > 0)
    assert any("1 structure not in --labels left out: liver" in note for note in result.notes)


def test_masks_of_structures_in_a_folder_of_labels(tmp_path):
    liver, spleen = box(), np.roll(box(), 4, axis=2)
    volume_pair(tmp_path / "images" / "a.nii.gz", tmp_path / "labels" / "a" / "liver.nii.gz", liver)
    write_volume(tmp_path / "labels" / "a" / "a_spleen.nii.gz", spleen, (2.0, 1.0, 1.0))
    _, dataset = convert(tmp_path / "images", tmp_path / "out", label_maps=tmp_path / "labels")
    np.testing.assert_array_equal(labels_of(dataset.path, "a", ending=".nii.gz"), liver + 2 * spleen)
    for name, mask in (("liver", liver), ("spleen", spleen)):
        write_volume(tmp_path / "organs" / name / "a.nii.gz", mask, (2.0, 1.0, 1.0))
    _, dataset = convert(tmp_path / "images", tmp_path / "by-organ", label_maps=tmp_path / "organs")
    np.testing.assert_array_equal(labels_of(dataset.path, "a", ending=".nii.gz"), liver + 2 * spleen)


def test_overlapping_masks_are_refused_unless_the_last_wins(tmp_path):
    folder = tmp_path / "source" / "s1"
    volume_pair(folder / "ct.nii.gz", folder / "segmentations" / "liver.nii.gz", box())
    write_volume(folder / "segmentations" / "tumour.nii.gz", np.roll(box(), 1, axis=2), (2.0, 1.0, 1.0))
    message = refused(tmp_path / "source", tmp_path / "out")
    assert "case s1: masks of liver and tumour overlap in 18 voxels" in message
    _, dataset = convert(tmp_path / "source", tmp_path / "out", overlap="last")
    expected = box()
    expected[np.roll(box(), 1, axis=2) > 0] = 2
    np.testing.assert_array_equal(labels_of(dataset.path, "s1", ending=".nii.gz"), expected)


def test_named_channels_in_folders_of_cases(tmp_path):
    for case in ("B_1", "B_2"):
        for channel, seed in (("t1", 1), ("t1ce", 2), ("flair", 3)):
            folder = tmp_path / "source" / case
            volume_pair(folder / f"{case}_{channel}.nii.gz", folder / f"{case}_seg.nii.gz", box(), seed=seed)
    message = refused(tmp_path / "source", tmp_path / "out")
    assert "Name the channels in order by --channels" in message
    channels = ("flair", "t1", "t1ce")
    _, dataset = convert(tmp_path / "source", tmp_path / "out", channels=channels)
    assert dataset.spec.channel_names == channels
    for channel, path in zip(channels, dataset.cases[0].images, strict=True):
        source = read_image(tmp_path / "source" / "B_1" / f"B_1_{channel}.nii.gz")
        np.testing.assert_array_equal(read_image(path).array, source.array)


def test_named_channels_in_one_folder_are_proposed(tmp_path):
    for case in ("B_1", "B_2"):
        for channel in ("t1", "flair"):
            volume_pair(
                tmp_path / "in" / f"{case}_{channel}.nii.gz", tmp_path / "in" / f"{case}_seg.nii.gz", box()
            )
    assert "Name the channels in order by --channels flair,t1." in refused(tmp_path / "in", tmp_path / "out")
    _, dataset = convert(tmp_path / "in", tmp_path / "out", channels=("flair", "t1"))
    assert forms.names(dataset) == ["B_1", "B_2"]
    (tmp_path / "in" / "B_2_t1.nii.gz").unlink()
    message = refused(tmp_path / "in", tmp_path / "again", channels=("flair", "t1"))
    assert "case B_2: lacks t1" in message


# labels


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("colours.json", '{"road": [255, 0, 0], "tree": "#00ff00", "sky": [0, 0, 255]}'),
        ("colours.csv", "name,r,g,b\nroad,255,0,0\ntree,0,255,0\nsky,0,0,255\n"),
        ("colours.txt", "road 255 0 0\ntree 0 255 0\nsky 0 0 255\nbackground 0 0 0\n"),
        ("colours.txt", "255 0 0\troad\n0 255 0\ttree\n0 0 255\tsky\n0 0 0\tvoid\n"),
        (None, "road=#ff0000,tree=#00ff00,sky=#0000ff"),
    ],
)
def test_colour_masks_with_a_colour_table(tmp_path, file, text):
    colour_masks(tmp_path / "source")
    if file is not None:
        (tmp_path / file).write_text(text)
    _, dataset = convert(
        tmp_path / "source", tmp_path / "out", labels=text if file is None else tmp_path / file
    )
    assert dataset.spec.labels == {"background": 0, "road": 1, "tree": 2, "sky": 3}
    np.testing.assert_array_equal(labels_of(dataset.path, "a"), squares(1, 2))
    np.testing.assert_array_equal(labels_of(dataset.path, "b"), squares(2, 3))


def test_colour_masks_without_a_table_or_with_an_incomplete_one(tmp_path):
    colour_masks(tmp_path / "source")
    _, dataset = convert(tmp_path / "source", tmp_path / "out")
    assert dataset.spec.labels == {
        "background": 0,
        "colour_0000ff": 1,
        "colour_00ff00": 2,
        "colour_ff0000": 3,
    }
    np.testing.assert_array_equal(labels_of(dataset.path, "a"), squares(3, 2))
    message = refused(tmp_path / "source", tmp_path / "again", labels="road=#ff0000,tree=#00ff00")
    assert "case b" in message
    assert "got #0000ff too. Name all of them by --labels" in message


def test_values_with_gaps_are_renumbered(tmp_path):
    for name in "ab":
        volume_pair(tmp_path / "in" / f"{name}.nii.gz", tmp_path / "in" / f"{name}_seg.nii.gz", box(7))
    labels = box(7).astype(np.int16)
    labels[5] = 300
    write_volume(tmp_path / "in" / "b_seg.nii.gz", labels, (2.0, 1.0, 1.0))
    result, dataset = convert(tmp_path / "in", tmp_path / "out")
    assert dataset.spec.labels == {"background": 0, "label_7": 1, "label_300": 2}
    assert "labels are renumbered: 7 to 1, 300 to 2" in result.notes
    np.testing.assert_array_equal(labels_of(dataset.path, "b", ending=".nii.gz")[5], np.full((10, 12), 2))
    message = refused(tmp_path / "in", tmp_path / "again", labels="liver=7")
    assert "case b" in message
    assert "expected the values 0, 7, got 300 too" in message


def test_palette_pictures_keep_their_indices_and_the_ignore_label_is_last(tmp_path):
    import PIL.Image

    forms.picture(tmp_path / "in" / "images" / "a.jpg", SHAPE)
    picture = PIL.Image.frombytes("P", SHAPE[::-1], squares(1, 2, 255).tobytes())
    picture.putpalette(np.random.default_rng(0).integers(0, 256, 768).astype(np.uint8).tobytes())
    (tmp_path / "in" / "masks").mkdir()
    picture.save(tmp_path / "in" / "masks" / "a.png")
    _, dataset = convert(tmp_path / "in", tmp_path / "out", labels="ignore=255,cat=1,dog=2")
    assert dataset.spec.labels == {"background": 0, "cat": 1, "dog": 2, "ignore": 3}
    np.testing.assert_array_equal(labels_of(dataset.path, "a"), squares(1, 2, 3))


def test_palettes_in_which_black_is_not_number_0_need_names_of_colours(tmp_path):
    import PIL.Image

    colours = {"red": (255, 0, 0), "black": (0, 0, 0), "green": (0, 255, 0)}
    orders = {"a": ("red", "black", "green"), "b": ("black", "green", "red")}
    (tmp_path / "in" / "masks").mkdir(parents=True)
    wanted = squares(1, 2)
    for name, order in orders.items():
        forms.picture(tmp_path / "in" / "images" / f"{name}.jpg", SHAPE)
        numbers = np.array([order.index(colour) for colour in ("black", "red", "green")], np.uint8)[wanted]
        picture = PIL.Image.frombytes("P", SHAPE[::-1], numbers.tobytes())
        picture.putpalette([value for colour in order for value in colours[colour]])
        picture.save(tmp_path / "in" / "masks" / f"{name}.png")
    message = refused(tmp_path / "in", tmp_path / "out")
    assert "a.png: expected black, the background, as number 0 of the palette, got it as number 1" in message
    assert "NAME=#ff0000,NAME=#00ff00" in message
    assert "b.png" not in message
    _, dataset = convert(tmp_path / "in", tmp_path / "out", labels="one=#ff0000,two=#00ff00")
    for name in orders:
        np.testing.assert_array_equal(labels_of(dataset.path, name), wanted)


@pytest.mark.parametrize("labels", [{"polyp": 1}, {"polyp": 255}, "polyp=255"])
def test_jpeg_masks_are_sharpened(tmp_path, labels):
    inside = np.zeros((80, 96), np.uint8)
    inside[20:60, 24:64] = 255
    forms.picture(tmp_path / "in" / "images" / "a.jpg", inside.shape)
    write_picture(tmp_path / "in" / "masks" / "a.jpg", inside, quality=90)
    _, dataset = convert(tmp_path / "in", tmp_path / "out", labels=labels)
    assert dataset.spec.labels == {"background": 0, "polyp": 1}
    np.testing.assert_array_equal(labels_of(dataset.path, "a"), inside > 0)


def test_grey_pictures_keep_one_channel_and_deep_ones_are_scaled(tmp_path):
    import tifffile

    (tmp_path / "in" / "images").mkdir(parents=True)
    deep = np.random.default_rng(0).integers(0, 4000, SHAPE).astype(np.uint16)
    tifffile.imwrite(tmp_path / "in" / "images" / "a.tif", deep)
    write_picture(tmp_path / "in" / "masks" / "a.png", squares(1))
    result, dataset = convert(tmp_path / "in", tmp_path / "out")
    assert dataset.spec.channel_names == ("intensity",)
    assert any("uint16 scaled to 8 bits" in note for note in result.notes)
    assert read_image(dataset.cases[0].images).array.shape == (1, *SHAPE)


# refused folders


def test_faults_of_names_are_listed_together(tmp_path):
    source = tmp_path / "in"
    for name in ("a", "b", "c"):
        forms.picture(source / "images" / f"{name}.png", SHAPE)
        write_picture(source / "masks" / f"{name}_mask.png", squares(1))
    write_picture(source / "masks" / "a_seg.png", squares(1))
    write_picture(source / "masks" / "lost_mask.png", squares(1))
    forms.picture(source / "images" / "b.jpg", SHAPE)
    message = refused(source, tmp_path / "out")
    assert "3 faults" in message
    assert "case a: expected one label map, got a_mask.png, a_seg.png" in message
    assert "label map lost_mask.png: no image of this name in images" in message
    assert "b.jpg and b.png have one name" in message


def test_one_label_map_for_two_images_is_refused(tmp_path):
    for name in ("image_1", "img_1"):
        forms.picture(tmp_path / "in" / "images" / f"{name}.png", SHAPE)
    write_picture(tmp_path / "in" / "masks" / "mask_1.png", squares(1))
    message = refused(tmp_path / "in", tmp_path / "out")
    assert "label map mask_1.png: expected one image, got image_1, img_1" in message


def test_mixed_masks_are_refused(tmp_path):
    for name, value in (("a", 1), ("b", 255)):
        forms.picture(tmp_path / "in" / "images" / f"{name}.png", SHAPE)
        write_picture(tmp_path / "in" / "masks" / f"{name}.png", squares(value))
    message = refused(tmp_path / "in", tmp_path / "out")
    assert "got 0 and 255 in b.png and 0 and 1 in a.png" in message
    _, dataset = convert(tmp_path / "in", tmp_path / "out", labels="cell=1,ignore=255")
    assert dataset.spec.ignore_label == 2


def test_instance_numbers_are_refused_with_the_fitting_converter(tmp_path):
    numbers = np.arange(20 * 24).reshape(SHAPE).astype(np.uint16)
    forms.picture(tmp_path / "in" / "images" / "a.png", SHAPE)
    forms.numbers(tmp_path / "in" / "masks" / "a.png", numbers)
    message = refused(tmp_path / "in", tmp_path / "out")
    assert "expected at most 64 different values, got 479" in message
    assert "dsb2018" in message


def test_other_grids_and_other_arguments_are_refused(tmp_path):
    forms.picture(tmp_path / "in" / "images" / "a.png", SHAPE)
    write_picture(tmp_path / "in" / "masks" / "a.png", squares(1)[:10])
    assert "case a: image and label map differ in shape" in refused(tmp_path / "in", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    assert "no images with label maps by their names" in refused(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(UsageError, match="They are for `folder`"):
        scanseg.convert("kvasir-seg", tmp_path / "in", tmp_path / "out", labels={"x": 1})
    for labels in ("liver", "liver=1,spleen=1", "liver=-1", {"a": 1, "b": (1, 2, 3)}, ""):
        with pytest.raises(UsageError, match="labels"):
            scanseg.convert("folder", tmp_path / "in", tmp_path / "out", labels=labels)


def test_test_cases_are_apart_from_unlabelled_images(tmp_path):
    for number in range(4):
        forms.picture(tmp_path / "in" / "images" / f"{number}.png", SHAPE)
        write_picture(tmp_path / "in" / "masks" / f"{number}.png", squares(1))
    forms.picture(tmp_path / "in" / "images" / "new.png", SHAPE)
    result, dataset = convert(tmp_path / "in", tmp_path / "out", test_fraction=0.25)
    assert result.num_cases == {"train": 3, "test": 1, "unlabelled": 1}
    assert len(list((dataset.path / "imagesTs").iterdir())) == 1
    assert [path.name for path in (dataset.path / "imagesUnlabelled").iterdir()] == ["new_0000.png"]


# commands


def test_dry_run(command, tmp_path):
    for number in range(7):
        forms.picture(tmp_path / "in" / "images" / f"{number}.png", SHAPE)
        write_picture(tmp_path / "in" / "masks" / f"{number}_mask.png", squares(1, 2))
    forms.picture(tmp_path / "in" / "images" / "new.png", SHAPE)
    (tmp_path / "in" / "images" / "notes.txt").touch()
    words = (
        "data",
        "convert",
        "folder",
        tmp_path / "in",
        "--labels",
        "liver=1,spleen=2",
        "-o",
        tmp_path / "out",
    )
    outcome = command(*words, "--dry-run")
    assert outcome.code == 0, outcome.stderr
    assert not (tmp_path / "out").exists()
    for part in (
        "cases: 7 with label map, 1 without",
        "0.png  with  0_mask.png",
        "and 2 more",
        "for prediction: new",
        "channels: R, G, B",
        "size (pixels): 20 x 24",
        "left out: images/notes.txt: not an image of a known format",
        "nothing was written",
    ):
        assert part in outcome.stdout, part
    (row,) = (line.split() for line in outcome.stdout.splitlines() if "spleen" in line)
    assert row == ["spleen", "2", "2", "7", str(7 * 30)]
    (tmp_path / "in" / "masks" / "3_mask.png").rename(tmp_path / "in" / "masks" / "lost_mask.png")
    outcome = command(*words, "--dry-run")
    assert outcome.code == 1
    assert "lost_mask.png: no image of this name" in outcome.stderr
    assert "for prediction: 3, new" in outcome.stdout


def test_command_converts_two_folders(command, tmp_path):
    for number in range(2):
        forms.picture(tmp_path / "a" / f"{number}.png", SHAPE)
        write_picture(tmp_path / "b" / f"{number}.png", squares(1))
    words = ("data", "convert", "folder", tmp_path / "a", tmp_path / "b", "--name", "mine")
    words += ("--num-workers", 0)
    missing = command(*words)
    assert (missing.code, "-o DATASET" in missing.stderr) == (2, True)
    outcome = command(*words, "-o", tmp_path / "out")
    assert outcome.code == 0, outcome.stderr
    assert "mine, 2 train cases" in outcome.stdout
    assert f"scanseg check {tmp_path / 'out'}" in outcome.stdout
    assert read_label_map(tmp_path / "out" / "labelsTr" / "0.png").array.max() == 1


@pytest.mark.parametrize("verb", ["check", "plan", "train"])
def test_commands_on_a_folder_print_the_conversion(command, tmp_path, verb):
    for number in range(2):
        forms.picture(tmp_path / "my data" / "images" / f"{number}.png", SHAPE)
        write_picture(tmp_path / "my data" / "masks" / f"{number}.png", squares(1))
    output = () if verb == "check" else ("-o", tmp_path / "out")
    outcome = command(verb, tmp_path / "my data", *output)
    assert outcome.code == 1
    assert "images in images, label maps in masks (2 cases)" in outcome.stderr
    assert f"scanseg data convert folder '{tmp_path / 'my data'}' -o 'my data-dataset'" in outcome.stderr


# real images


def test_real_polyps(shared_data, tmp_path):
    forms.link_some(shared_data / "kvasir-seg", tmp_path / "in", ("images", "masks"), number=5)
    _, dataset = convert(tmp_path / "in", tmp_path / "out", labels="polyp=255")
    case = dataset.cases[0]
    source = read_image(shared_data / "kvasir-seg" / "masks" / f"{case.name}.png").array[0]
    np.testing.assert_array_equal(read_label_map(case.label_map).array[0], source > 127)


def test_real_hippocampus_as_pairs(shared_data, tmp_path):
    (tmp_path / "in").mkdir()
    real = shared_data / "hippocampus"
    for path in sorted((real / "labelsTr").iterdir())[:3]:
        name = path.name.removesuffix(".nii.gz")
        (tmp_path / "in" / f"{name}.nii.gz").symlink_to(real / "imagesTr" / f"{name}_0000.nii.gz")
        (tmp_path / "in" / f"{name}_labels.nii.gz").symlink_to(path)
    _, dataset = convert(tmp_path / "in", tmp_path / "out", labels="anterior=1,posterior=2")
    for case in dataset.cases:
        np.testing.assert_array_equal(
            read_label_map(case.label_map).array,
            read_label_map(real / "labelsTr" / f"{case.name}.nii.gz").array,
        )
        np.testing.assert_array_equal(
            read_image(case.images).array, read_image(real / "imagesTr" / f"{case.name}_0000.nii.gz").array
        )
