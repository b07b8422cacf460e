"""Orientation tags of JPEG, PNG and TIFF: images and label maps are read as they are displayed."""

import json

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import SimpleITK
import tifffile

from scanseg.converters import NAMED_DATASETS, convert_dataset
from scanseg.errors import InputError
from scanseg.imaging import count_channels, read_image, read_instance_map, read_label_map
from scanseg.imaging.exif import as_displayed, as_stored
from scanseg.runtime import RunContext

TAGS = range(1, 9)
DISPLAYED = {
    1: lambda stored: stored,
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored.swapaxes(0, 1), 2),
    8: lambda stored: np.rot90(stored, 1),
}
"""Tag to the way from the stored pixels (y, x, ...) to the displayed ones. Source: Exif 3.0, section 4.6.5.1.1."""


def save(path, pixels, tag):
    exif = PIL.Image.Exif()
    exif[274] = tag
    more = {"quality": 100, "subsampling": 0} if path.suffix == ".jpg" else {}
    PIL.Image.fromarray(np.ascontiguousarray(pixels)).save(path, exif=exif, **more)
    return path


def blocks(rng, shape=(32, 48)):
    """Return a picture that JPEG keeps almost exactly."""
    return np.kron(rng.integers(20, 230, (shape[0] // 8, shape[1] // 8)), np.ones((8, 8))).astype(np.uint8)


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("ending", [".jpg", ".png", ".tif"])
def test_images_are_read_as_displayed(tmp_path, rng, ending, tag):
    stored = blocks(rng)
    path = save(tmp_path / f"a{ending}", stored, tag)
    array = read_image(path).array
    assert array.shape[1:] == DISPLAYED[tag](stored).shape
    np.testing.assert_allclose(array[0].astype(int), DISPLAYED[tag](stored), atol=6 * (ending == ".jpg"))
    if ending != ".tif":  # pillow turns TIFF files while it reads them
        with PIL.Image.open(path) as picture:
            np.testing.assert_array_equal(array[0], np.asarray(PIL.ImageOps.exif_transpose(picture)))
    assert array.flags.c_contiguous


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_colours_and_label_maps_are_read_as_displayed(tmp_path, rng, ending, tag):
    colours = rng.integers(0, 255, (6, 9, 3), dtype=np.uint8)
    array = read_image(save(tmp_path / f"a{ending}", colours, tag)).array
    np.testing.assert_array_equal(np.moveaxis(array, 0, -1), DISPLAYED[tag](colours))
    labels = rng.integers(0, 4, (6, 9), dtype=np.uint8)
    path = save(tmp_path / f"b{ending}", labels, tag)
    np.testing.assert_array_equal(read_label_map(path).array[0], DISPLAYED[tag](labels))
    np.testing.assert_array_equal(read_instance_map(path).array[0], DISPLAYED[tag](labels))


@pytest.mark.parametrize("tag", TAGS)
def test_palettes_bits_and_deep_pictures_are_read_as_displayed(tmp_path, rng, tag):
    exif = PIL.Image.Exif()
    exif[274] = tag
    indices = rng.integers(0, 4, (6, 9), dtype=np.uint8)
    picture = PIL.Image.frombytes("P", (9, 6), indices.tobytes())
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 9, 9, 9])
    picture.save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_label_map(tmp_path / "a.png").array[0], DISPLAYED[tag](indices))
    PIL.Image.fromarray(indices > 1).save(tmp_path / "b.png", exif=exif)
    np.testing.assert_array_equal(read_label_map(tmp_path / "b.png").array[0], DISPLAYED[tag](indices > 1))
    deep = rng.integers(0, 65535, (6, 9), dtype=np.uint16)
    PIL.Image.fromarray(deep).save(tmp_path / "c.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "c.png").array[0], DISPLAYED[tag](deep))


def test_a_deep_colour_picture_is_read_as_displayed(tmp_path, rng):
    import struct
    import zlib

    pixels = rng.integers(0, 65535, (4, 5, 3), dtype=np.uint16)
    path = tmp_path / "a.png"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(pixels, isVector=True), str(path))
    exif = PIL.Image.Exif()
    exif[274] = 6
    content = b"eXIf" + exif.tobytes()[6:]
    chunk = struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
    bytes_ = path.read_bytes()
    for where in (33, len(bytes_) - 12):  # before the pixels, and after them
        path.write_bytes(bytes_[:where] + chunk + bytes_[where:])
        array = read_image(path).array
        np.testing.assert_array_equal(np.moveaxis(array, 0, -1), DISPLAYED[6](pixels))


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("kind", ["stack", "pages", "channels", "imagej"])
@pytest.mark.parametrize("once", [True, False])
def test_stacks_of_tiff_are_read_as_displayed(tmp_path, rng, kind, tag, once):
    array = rng.integers(0, 200, (3, 6, 9), dtype=np.uint8)
    tags = {"extratags": [(274, "H", 1, tag, once)]}
    path = tmp_path / "a.tif"
    if kind == "pages":
        with tifffile.TiffWriter(path) as file:
            for page in array:
                file.write(page, photometric="minisblack", metadata=None, contiguous=False, **tags)
    elif kind == "imagej":
        tifffile.imwrite(path, array, imagej=True, metadata={"axes": "ZYX"}, **tags)
    else:
        how = {"planarconfig": "separate"} if kind == "channels" else {}
        tifffile.imwrite(path, array, photometric="minisblack", **how, **tags)
    found = read_image(path).array
    found = found if kind == "channels" else found[0]
    np.testing.assert_array_equal(found, np.stack([DISPLAYED[tag](page) for page in array]))


def test_pages_of_different_orientation_are_refused(tmp_path, rng):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for tag in (1, 3):
            page = rng.integers(0, 200, (6, 9), dtype=np.uint8)
            tags = [(274, "H", 1, tag, True)]
            file.write(page, photometric="minisblack", metadata=None, contiguous=False, extratags=tags)
    with pytest.raises(InputError, match=r"a\.tif: expected one orientation tag for all pages, got \[1, 3\]"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("ending", [".jpg", ".png", ".tif"])
@pytest.mark.parametrize("tag", [0, 9, 65535])
def test_unknown_orientations_count_as_1(tmp_path, rng, ending, tag):
    stored = blocks(rng)
    array = read_image(save(tmp_path / f"a{ending}", stored, tag)).array[0]
    np.testing.assert_allclose(array.astype(int), stored, atol=6)


def test_damaged_exif_data_are_ignored(tmp_path, rng):
    stored = rng.integers(0, 255, (6, 9), dtype=np.uint8)
    for number, exif in enumerate((b"Exif\0\0no data", b"Exif\0\0II*\0\xff\xff\xff\x7f", b"x" * 40, b"")):
        path = tmp_path / f"{number}.png"
        PIL.Image.fromarray(stored).save(path, exif=exif)
        np.testing.assert_array_equal(read_image(path).array[0], stored)


def test_storing_reverses_displaying(rng):
    array = rng.integers(0, 255, (2, 3, 4, 5))
    for tag in TAGS:
        np.testing.assert_array_equal(as_stored(as_displayed(array, tag), tag), array)
        for page, turned in zip(
            array.reshape(-1, 4, 5), as_displayed(array, tag).reshape(6, -1), strict=True
        ):
            np.testing.assert_array_equal(DISPLAYED[tag](page).ravel(), turned)


@pytest.mark.parametrize("ending", [".jpg", ".png", ".tif"])
def test_a_data_set_of_all_tags_passes_the_check(tmp_path, rng, command, ending):
    label_ending = ".png" if ending == ".jpg" else ending
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
    for tag in TAGS:
        displayed = np.full((40, 64), 40, np.uint8)
        mask = np.zeros((40, 64), np.uint8)
        mask[8:16, 40:56] = 1
        displayed[mask > 0] = 200
        stored = as_stored(displayed, tag)
        save(tmp_path / f"imagesTr/c{tag}_0000{ending}", stored, tag)
        # The label map is displayed, or stored as the image is, with the same tag.
        path = tmp_path / f"labelsTr/c{tag}{label_ending}"
        save(path, as_stored(mask, tag), tag) if tag % 2 else save(path, mask, 1)
        image, label_map = read_image(tmp_path / f"imagesTr/c{tag}_0000{ending}"), read_label_map(path)
        assert image.array[label_map.array > 0].mean() - image.array[label_map.array == 0].mean() > 150
    description = {"channel_names": {"0": "grey"}, "labels": {"background": 0, "a": 1}, "file_ending": ending}
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    assert command("check", tmp_path, "--num-workers", 0).code == 0


def test_converters_apply_the_tag(tmp_path, rng):
    for folder in ("images", "masks"):
        (tmp_path / "source" / folder).mkdir(parents=True)
    for tag in TAGS:
        displayed = np.zeros((32, 48, 3), np.uint8)
        displayed[8:16, 8:32] = 200
        save(
            tmp_path / f"source/images/{tag}.png",
            as_stored(displayed.transpose(2, 0, 1), tag).transpose(1, 2, 0),
            tag,
        )
        PIL.Image.fromarray(displayed[..., 0] // 200 * 255).save(tmp_path / f"source/masks/{tag}.png")
    named = NAMED_DATASETS["kvasir-seg"]
    convert_dataset(
        named, tmp_path / "source", tmp_path / "out", test_fraction=0, context=RunContext(num_workers=0)
    )
    for tag in TAGS:
        path = tmp_path / f"out/imagesTr/{tag}_0000.png"
        with PIL.Image.open(path) as picture:  # readers without tags see the displayed picture
            assert not picture.getexif()
            np.testing.assert_array_equal(np.asarray(picture), displayed)
        mask = read_label_map(tmp_path / f"out/labelsTr/{tag}.png").array[0]
        np.testing.assert_array_equal(mask, displayed[..., 0] > 0)
        assert count_channels(path) == 3
