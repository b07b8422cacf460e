"""Label maps in picture files, and those that prediction writes for pictures with an orientation tag."""

import json

import numpy as np
import PIL.Image
import pytest
import tifffile
import torch

from scanseg.errors import InputError
from scanseg.imaging import (
    count_channels,
    read_image,
    read_instance_map,
    read_label_map,
    write_instance_map,
    write_label_map,
)
from scanseg.inference import Predictor
from scanseg.specs import DatasetSpec, NoNormalization, SamplingSpec
from tests.factories import Threshold, make_plan, plain_unet

from .test_pictures_orientation import DISPLAYED, TAGS, save
from .test_pictures_tiff import MINISBLACK, plane, read_without_imagecodecs

# Palettes


@pytest.mark.parametrize("compression", [None, "lzw", "deflate"])
@pytest.mark.parametrize("bits", [8, 16])
def test_palettes_of_tiff_are_colours_for_images_and_indices_for_label_maps(tmp_path, rng, bits, compression):
    indices = plane(rng, 8, 9, dtype=np.uint8 if bits == 8 else np.uint16)
    colours = rng.integers(0, 65536, (3, 2**bits), dtype=np.uint16)
    how = {"photometric": "palette", "compression": compression}
    tifffile.imwrite(tmp_path / "a.tif", indices, colormap=colours, **how)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").array, (colours >> 8)[:, indices])
    np.testing.assert_array_equal(read_label_map(tmp_path / "a.tif").array[0], indices)
    assert count_channels(tmp_path / "a.tif") == 3
    if bits == 8 and compression == "lzw":
        image = read_without_imagecodecs(tmp_path)["a"][0]
        np.testing.assert_array_equal(image, (colours >> 8)[:, indices])
        np.testing.assert_array_equal(read_without_imagecodecs(tmp_path, "labels")["a"][0][0], indices)


def test_a_palette_of_pillow_and_one_of_8_bits(tmp_path, rng):
    indices = plane(rng, 8, 9, highest=4)
    palette = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [9, 8, 7]], np.uint8)
    picture = PIL.Image.frombytes("P", (9, 8), indices.tobytes())
    picture.putpalette(palette.ravel().tolist())
    picture.save(tmp_path / "a.tif", compression="tiff_lzw")
    colours = np.zeros((3, 256), np.uint16)
    colours[:, :4] = palette.T
    tifffile.imwrite(tmp_path / "b.tif", indices, photometric="palette", colormap=colours)
    for name in "ab":
        image = read_image(tmp_path / f"{name}.tif").array
        np.testing.assert_array_equal(np.moveaxis(image, 0, -1), palette[indices])
        np.testing.assert_array_equal(read_label_map(tmp_path / f"{name}.tif").array[0], indices)


def test_lookup_tables_of_imagej_are_only_for_display(tmp_path, rng):
    array = plane(rng, 8, 9)
    table = np.zeros((3, 256), np.uint8)
    table[1] = np.arange(256)
    tifffile.imwrite(
        tmp_path / "a.tif", array, imagej=True, photometric="palette", colormap=table.astype(np.uint16) * 257
    )
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").array[0], array)
    assert count_channels(tmp_path / "a.tif") == 1


# Pictures in which 0 is white


@pytest.mark.parametrize("bits", [2, 4, 8, 12, 16])
def test_pictures_in_which_0_is_white_are_inverted_and_label_maps_are_not(tmp_path, rng, bits):
    array = rng.integers(0, 2**bits, (8, 9)).astype(np.uint8 if bits <= 8 else np.uint16)
    packed = {} if bits in (8, 16) else {"bitspersample": bits}
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="miniswhite", **packed)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").array[0], 2**bits - 1 - array)
    np.testing.assert_array_equal(read_instance_map(tmp_path / "a.tif").array[0], array)


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_lzw", "raw"])
def test_a_mask_of_1_bit_in_which_0_is_white(tmp_path, rng, compression):
    mask = plane(rng, 21, 35) > 100
    path = tmp_path / "a.tif"
    PIL.Image.fromarray(mask).save(path, compression=compression, tiffinfo={262: 0})
    np.testing.assert_array_equal(read_image(path).array[0], mask)
    np.testing.assert_array_equal(read_without_imagecodecs(tmp_path)["a"][0][0], mask)
    with pytest.raises(
        InputError, match="expected a label map in which 0 is black, got 1 bit in which 0 is white"
    ):
        read_label_map(path)


@pytest.mark.parametrize("dtype", ["i2", "f4"])
def test_signed_values_and_floats_are_never_inverted(tmp_path, rng, dtype):
    array = plane(rng, 8, 9, dtype=dtype)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="miniswhite")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").array[0], array)


# Compressions that change values


@pytest.mark.parametrize("compression", ["jpeg", "webp", "jpeg2000", "jpegxl", "lerc"])
def test_compressions_that_may_change_values_hold_no_label_map(tmp_path, rng, compression):
    pytest.importorskip("imagecodecs")
    how = {"photometric": "rgb"} if compression == "webp" else MINISBLACK
    shape = (32, 48, 3) if compression == "webp" else (32, 48)
    tifffile.imwrite(tmp_path / "a.tif", plane(rng, *shape), compression=compression, **how)
    read_image(tmp_path / "a.tif")
    for read in (read_label_map, read_instance_map):
        with pytest.raises(InputError, match=r"compression may change values and cannot hold a label map"):
            read(tmp_path / "a.tif")


# Planes that may be slices


@pytest.mark.filterwarnings("ignore:.*stored as RGB with separate component planes:DeprecationWarning")
@pytest.mark.parametrize("number", [3, 4])
def test_planes_that_tifffile_takes_for_colours(tmp_path, rng, number):
    """tifffile stores an array (3, y, x) as planes of red, green and blue unless it is named otherwise."""
    array = plane(rng, number, 8, 9, highest=4)
    tifffile.imwrite(tmp_path / "a.tif", array)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.series[0].axes == "SYX"
    np.testing.assert_array_equal(read_label_map(tmp_path / "a.tif").array, array[np.newaxis])
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif", num_channels=1).array, array[np.newaxis])
    if number == 3:
        np.testing.assert_array_equal(read_image(tmp_path / "a.tif").array, array)
        np.testing.assert_array_equal(read_image(tmp_path / "a.tif", num_channels=3).array, array)


@pytest.mark.filterwarnings("ignore:.*stored as RGB with separate component planes:DeprecationWarning")
@pytest.mark.parametrize("number", [2, 3, 4])
@pytest.mark.parametrize("how", [{}, MINISBLACK])
def test_a_data_set_of_stacks_of_few_slices(tmp_path, rng, command, number, how):
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
    for case in range(2):
        label = np.zeros((number, 40, 40), np.uint8)
        label[..., 10:20, 10:20] = 1
        tifffile.imwrite(tmp_path / f"imagesTr/c{case}_0000.tif", plane(rng, number, 40, 40), **how)
        tifffile.imwrite(tmp_path / f"labelsTr/c{case}.tif", label)
    description = {"channel_names": {"0": "a"}, "labels": {"background": 0, "a": 1}, "file_ending": ".tif"}
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    outcome = command("check", tmp_path, "--num-workers", 0)
    assert outcome.code == 0, outcome.stderr
    assert f"shape (z, y, x): {number} x 40 x 40 voxels" in outcome.stdout


# Files that are written


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize(("image_ending", "ending"), [(".jpg", ".png"), (".png", ".png"), (".tif", ".tif")])
def test_label_maps_are_stored_as_their_picture(tmp_path, rng, image_ending, ending, tag):
    image = read_image(save(tmp_path / f"image{image_ending}", plane(rng, 32, 48), tag))
    labels = plane(rng, *image.shape, highest=5)
    for write, read in ((write_label_map, read_label_map), (write_instance_map, read_instance_map)):
        path = tmp_path / f"labels{ending}"
        write(path, labels, like=image)
        read_back = read(path)
        np.testing.assert_array_equal(read_back.array[0], labels)
        assert read_back.header == image.header
        stored = stored_pixels(path)
        assert stored.shape == (32, 48)
        np.testing.assert_array_equal(DISPLAYED[tag](stored), labels)
        with PIL.Image.open(path) as picture:
            assert picture.getexif().get(274, 1) == tag


def stored_pixels(path):
    if path.suffix == ".tif":
        return tifffile.imread(path)
    with PIL.Image.open(path) as picture:
        return np.asarray(picture)


def test_other_formats_hold_the_displayed_label_map(tmp_path, rng):
    image = read_image(save(tmp_path / "image.png", plane(rng, 6, 9), 6))
    labels = plane(rng, *image.shape, highest=5)
    for ending in (".nii.gz", ".mha", ".bmp"):
        write_label_map(tmp_path / f"a{ending}", labels, like=image)
        np.testing.assert_array_equal(read_label_map(tmp_path / f"a{ending}").array[0], labels)


@pytest.mark.parametrize("ending", [".jpg", ".png", ".tif"])
def test_predictions_of_pictures_of_all_tags_match_displayed_references(tmp_path, ending):
    label_ending = ".png" if ending == ".jpg" else ending
    for folder in ("images", "references"):
        (tmp_path / folder).mkdir()
    for tag in TAGS:
        displayed = np.zeros((32, 48), np.uint8)
        displayed[8:16, 24:40] = 200
        inverse = {6: 8, 8: 6}.get(tag, tag)
        save(tmp_path / f"images/c{tag}_0000{ending}", DISPLAYED[inverse](displayed), tag)
        PIL.Image.fromarray(displayed // 200).save(tmp_path / f"references/c{tag}{label_ending}")
    spec = DatasetSpec(
        name="set", channel_names=("grey",), labels={"background": 0, "bright": 1}, file_ending=ending
    )
    plan = make_plan(
        plain_unet(2),
        patch_size=(16, 16),
        dataset=spec,
        num_axes=2,
        preprocessing={"normalizations": (NoNormalization(),), "crop_to_nonzero": False},
        sampling=SamplingSpec(patch_size=(16, 16), batch_size=2),
    )
    predictor = Predictor(plan, Threshold(2), device=torch.device("cpu"))
    predictor.predict_folder(tmp_path / "images", tmp_path / "out", uncertainty=True)
    for tag in TAGS:
        path, reference = (
            tmp_path / f"out/c{tag}{label_ending}",
            tmp_path / f"references/c{tag}{label_ending}",
        )
        predicted, expected = read_label_map(path).array, read_label_map(reference).array
        assert (predicted != expected).mean() < (0.02 if ending == ".jpg" else 1e-9)
        stored = stored_pixels(path)
        assert stored.shape == ((32, 48) if tag < 5 else (48, 32))
    assert predictor.predict(tmp_path / f"images/c6_0000{ending}").label_map.shape == (32, 48)
