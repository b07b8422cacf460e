"""TIFF files: channels, stacks, bit depths, byte orders, compressions, with and without imagecodecs."""

import itertools
import json
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scanseg.errors import InputError
from scanseg.imaging import count_channels, read_image, read_label_map

MINISBLACK = {"photometric": "minisblack"}
LOSSLESS = ["none", "lzw", "deflate", "adobe_deflate", "packbits", "lzma", "zstd"]
READ_WITHOUT_IMAGECODECS = """
import json, sys
sys.modules["imagecodecs"] = None
from pathlib import Path
import numpy as np
from scanseg.errors import InputError
from scanseg.imaging import count_channels, read_image, read_label_map
folder = Path(sys.argv[1])
read = {"image": read_image, "labels": read_label_map}[sys.argv[2]]
answers = {}
for path in sorted(folder.glob("*.tif")):
    try:
        np.save(path.with_suffix(".npy"), read(path).array)
        answers[path.stem] = count_channels(path)
    except InputError as error:
        answers[path.stem] = str(error)
print(json.dumps(answers))
"""


def read_without_imagecodecs(folder, kind="image"):
    """Read every TIFF file of a folder in a process without imagecodecs.

    Returns:
        By name, the array with the counted channels, or the message of the error.
    """
    words = [sys.executable, "-c", READ_WITHOUT_IMAGECODECS, str(folder), kind]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return {
        name: answer if isinstance(answer, str) else (np.load(folder / f"{name}.npy"), answer)
        for name, answer in json.loads(done.stdout).items()
    }


def plane(rng, *shape, dtype=np.uint8, highest=200):
    return rng.integers(0, highest, shape).astype(dtype)


# Channels and alpha


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("number", [2, 3, 4, 5, 7])
def test_samples_of_unknown_meaning_are_channels(tmp_path, rng, number, dtype, planar):
    array = plane(rng, number, 8, 9, dtype=dtype)
    array[1] = 0
    stored = array if planar == "separate" else np.ascontiguousarray(np.moveaxis(array, 0, -1))
    tifffile.imwrite(tmp_path / "a.tif", stored, planarconfig=planar, **MINISBLACK)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").array, array)
    assert count_channels(tmp_path / "a.tif") == number


@pytest.mark.parametrize(
    ("extra", "kept"),
    [
        (["unspecified"], 4),
        (["unspecified", "unspecified"], 5),
        (["unassalpha"], 3),
        (["assocalpha"], 3),
        (["unassalpha", "unspecified"], 4),
        (["unspecified", "unassalpha"], 4),
    ],
)
def test_only_alpha_is_dropped(tmp_path, rng, extra, kept):
    array = plane(rng, 3 + len(extra), 8, 9)
    alpha = [3 + index for index, kind in enumerate(extra) if kind != "unspecified"]
    array[alpha] = 255
    stored = np.ascontiguousarray(np.moveaxis(array, 0, -1))
    how = {"photometric": "rgb", "planarconfig": "contig", "extrasamples": extra}
    tifffile.imwrite(tmp_path / "a.tif", stored, **how)
    expected = np.delete(array, alpha, axis=0)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").array, expected)
    assert count_channels(tmp_path / "a.tif") == kept == len(expected)
    if alpha:
        stored[0, 0, alpha] = 3
        tifffile.imwrite(tmp_path / "a.tif", stored, **how)
        with pytest.raises(InputError, match="the alpha channel varies from 3 to 255"):
            read_image(tmp_path / "a.tif")


# Stacks


@pytest.mark.parametrize("number", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", ["array", "pages", "imagej", "ome", "bigtiff"])
def test_pages_are_slices(tmp_path, rng, kind, number):
    array = plane(rng, number, 8, 9)
    path = tmp_path / "a.tif"
    if kind == "pages":
        with tifffile.TiffWriter(path) as file:
            for page in array:
                file.write(page, metadata=None, contiguous=False, **MINISBLACK)
    elif kind == "imagej":
        tifffile.imwrite(path, array, imagej=True, metadata={"axes": "ZYX"})
    elif kind == "ome":
        tifffile.imwrite(path, array, ome=True, metadata={"axes": "ZYX"}, **MINISBLACK)
    else:
        tifffile.imwrite(path, array, bigtiff=kind == "bigtiff", **MINISBLACK)
    np.testing.assert_array_equal(read_image(path).array, array[np.newaxis])
    np.testing.assert_array_equal(read_label_map(path).array, array[np.newaxis])
    assert count_channels(path) == 1


@pytest.mark.parametrize(
    ("kind", "axes"),
    [
        *itertools.product(["imagej", "ome"], ["ZCYX", "CYX", "YXS", "ZYXS", "ZYX"]),
        ("ome", "CZYX"),  # ImageJ stores the slices before the channels
    ],
)
def test_metadata_of_imagej_and_ome_name_the_axes(tmp_path, rng, kind, axes):
    sizes = {"Z": 4, "C": 2, "Y": 8, "X": 9, "S": 3}
    array = plane(rng, *(sizes[axis] for axis in axes))
    how = {"photometric": "rgb"} if "S" in axes else MINISBLACK
    names = {"Channel": {"Name": ["DAPI", "GFP"]}} if kind == "ome" and "C" in axes else {}
    tifffile.imwrite(tmp_path / "a.tif", array, **{kind: True}, metadata={"axes": axes, **names}, **how)
    order = [axes.index(axis) for axis in "CSZYX" if axis in axes]
    expected = array.transpose(order)
    expected = expected if "C" in axes or "S" in axes else expected[np.newaxis]
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").array, expected)
    assert count_channels(tmp_path / "a.tif") == len(expected)


@pytest.mark.parametrize(
    ("kind", "axes", "shape"),
    [("imagej", "TYX", (3, 8, 9)), ("ome", "TCYX", (3, 2, 8, 9)), ("ome", "TYX", (3, 8, 9))],
)
def test_time_is_refused(tmp_path, rng, kind, axes, shape):
    tifffile.imwrite(
        tmp_path / "a.tif", plane(rng, *shape), **{kind: True}, metadata={"axes": axes}, **MINISBLACK
    )
    with pytest.raises(InputError, match=f"one picture or one stack along z .* got axes {axes}"):
        read_image(tmp_path / "a.tif")


def test_voxel_sizes_of_metadata_are_reported_but_not_used(tmp_path, rng):
    array = plane(rng, 3, 8, 9, dtype=np.uint16)
    size = {"axes": "ZYX", "unit": "um", "spacing": 2.0}
    tifffile.imwrite(tmp_path / "a_0000.tif", array, imagej=True, resolution=(5.0, 4.0), metadata=size)
    size = {
        "axes": "ZYX",
        "PhysicalSizeX": 200,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 0.25,
        "PhysicalSizeZ": 2,
    }
    tifffile.imwrite(tmp_path / "b.tif", array, ome=True, metadata=size, **MINISBLACK)
    for name, companion in (("a_0000.tif", "a.json"), ("b.tif", "b.json")):
        image = read_image(tmp_path / name)
        assert image.spacing == (1, 1, 1)
        assert image.warnings == (
            f"{name}: the file states a voxel size of 0.002 x 0.00025 x 0.0002 mm (z, y, x), which is not used: each "
            f'voxel counts as 1 mm. Write {{"spacing": [0.002, 0.00025, 0.0002]}} into {companion} beside it',
        )
        (tmp_path / companion).write_text('{"spacing": [0.002, 0.00025, 0.0002]}')
        image = read_image(tmp_path / name)
        assert (image.warnings, image.spacing) == ((), (0.002, 0.00025, 0.0002))


@pytest.mark.parametrize("kind", ["subifds", "pages", "thumbnail first"])
def test_the_first_level_of_a_pyramid_is_read(tmp_path, rng, kind):
    array = plane(rng, 64, 96)
    how = {"metadata": None, **MINISBLACK}
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        if kind == "thumbnail first":
            file.write(array[::8, ::8], subfiletype=1, **how)
        file.write(array, subifds=2 if kind == "subifds" else 0, **how)
        for step in () if kind == "thumbnail first" else (2, 4):
            file.write(array[::step, ::step], subfiletype=1, **how)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").array[0], array)


def test_several_pictures_are_refused(tmp_path, rng):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for size in (8, 10):
            file.write(plane(rng, size, 9), metadata=None, **MINISBLACK)
    with pytest.raises(InputError, match=r"got 2 pictures of different sizes \(YX \(8, 9\), YX \(10, 9\)\)"):
        read_image(tmp_path / "a.tif")


# Types, bits, byte orders, layouts


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"])
def test_types_are_kept_in_native_byte_order(tmp_path, rng, dtype, byteorder):
    array = rng.integers(0, 120, (8, 9)).astype(dtype)
    array[0, 0] = 120
    tifffile.imwrite(tmp_path / "a.tif", array, byteorder=byteorder, **MINISBLACK)
    found = read_image(tmp_path / "a.tif").array[0]
    np.testing.assert_array_equal(found, array)
    assert found.dtype == np.dtype(dtype)
    assert found.dtype.isnative
    np.testing.assert_array_equal(read_label_map(tmp_path / "a.tif").array[0], array)


def test_complex_values_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.ones((8, 9), np.complex64), **MINISBLACK)
    with pytest.raises(InputError, match=r"a\.tif: expected real values, got complex64"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("samples", "bits"),
    [
        *itertools.product([1], [1, 2, 4, 6, 10, 12, 14]),
        *itertools.product([3], [10, 12, 14]),  # colours of fewer bits have a palette
    ],
)
def test_packed_bits_are_values_as_stored(tmp_path, rng, samples, bits):
    shape = (8, 9) if samples == 1 else (8, 9, 3)
    array = rng.integers(0, 2**bits, shape).astype(np.uint8 if bits <= 8 else np.uint16)
    array.flat[0] = 2**bits - 1
    how = {"photometric": "minisblack" if samples == 1 else "rgb"}
    stored = array.astype(bool) if bits == 1 else array
    tifffile.imwrite(tmp_path / "a.tif", stored, **how, **({} if bits == 1 else {"bitspersample": bits}))
    found = read_image(tmp_path / "a.tif").array
    np.testing.assert_array_equal(found[0] if samples == 1 else np.moveaxis(found, 0, -1), array)
    assert found.dtype.kind == "u"
    if samples == 1 and bits <= 8:
        np.testing.assert_array_equal(read_label_map(tmp_path / "a.tif").array[0], array)


def test_arrays_of_booleans_are_0_and_1(tmp_path, rng):
    """tifffile marks them as pictures in which 0 is white."""
    array = plane(rng, 8, 9) > 100
    for more in ({}, {"metadata": None}, {"software": False}):
        tifffile.imwrite(tmp_path / "a.tif", array, **more)
        np.testing.assert_array_equal(read_label_map(tmp_path / "a.tif").array[0], array)
        np.testing.assert_array_equal(read_image(tmp_path / "a.tif").array[0], array)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_layout_of_an_array_gives_the_same_array(tmp_path, data):
    draw = data.draw
    dtype = draw(st.sampled_from(["u1", "u2", "i2", "f4", "f8"]), "type")
    samples = draw(st.sampled_from([1, 1, 2, 3, 5]), "samples")
    slices = draw(st.sampled_from([1, 1, 2, 3, 4]), "slices")
    array = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 99, (samples, slices, 20, 37))
    array = array.astype(dtype)
    planar = draw(st.sampled_from(["contig", "separate"])) if samples > 1 else None
    stored = array if planar == "separate" else np.moveaxis(array, 0, -1)
    if planar == "separate":
        stored = np.moveaxis(array, 0, 1)  # page, sample, y, x
    stored = stored if slices > 1 else stored[0]
    stored = stored if samples > 1 else stored[..., 0]
    how = {
        "compression": draw(st.sampled_from(LOSSLESS), "compression"),
        "byteorder": draw(st.sampled_from("<>"), "order"),
        "bigtiff": draw(st.booleans(), "big"),
        "tile": draw(st.sampled_from([None, (16, 32)]), "tile"),
        "rowsperstrip": draw(st.sampled_from([None, 1, 7]), "rows"),
        "predictor": draw(st.booleans(), "predictor"),
        "planarconfig": planar,
    }
    if how["compression"] in ("none", "packbits"):
        how["predictor"] = False
    if how["tile"]:
        how["rowsperstrip"] = None
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.ascontiguousarray(stored), photometric="minisblack", **how)
    found = read_image(path).array
    np.testing.assert_array_equal(found, array if slices > 1 else array[:, 0])
    assert count_channels(path) == samples


# Colour spaces


def test_cmyk_becomes_rgb(tmp_path, rng):
    array = plane(rng, 8, 9, 4)
    expected = np.asarray(PIL.Image.fromarray(array, "CMYK").convert("RGB"))
    PIL.Image.fromarray(array, "CMYK").save(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "b.tif", array, photometric="separated")
    for name in "ab":
        found = read_image(tmp_path / f"{name}.tif").array
        np.testing.assert_array_equal(np.moveaxis(found, 0, -1), expected)
        assert count_channels(tmp_path / f"{name}.tif") == 3
    tifffile.imwrite(tmp_path / "c.tif", array.astype(np.uint16), photometric="separated")
    with pytest.raises(
        InputError, match=r"expected a CMYK or YCbCr picture of 8 bits, got 4 samples of 16 bits"
    ):
        read_image(tmp_path / "c.tif")


def test_ycbcr_becomes_rgb(tmp_path, rng):
    colours = np.kron(plane(rng, 2, 3, 3), np.ones((16, 16, 1))).astype(np.uint8)
    PIL.Image.fromarray(colours).convert("YCbCr").save(tmp_path / "raw.tif")
    PIL.Image.fromarray(colours).save(tmp_path / "jpeg.tif", compression="jpeg", quality=95)
    tifffile.imwrite(tmp_path / "tiled.tif", colours, photometric="rgb", compression="jpeg", tile=(32, 32))
    for name in ("raw", "jpeg", "tiled"):
        found = np.moveaxis(read_image(tmp_path / f"{name}.tif").array, 0, -1)
        assert np.abs(found.astype(int) - colours).mean() < 4, name
        assert count_channels(tmp_path / f"{name}.tif") == 3


@pytest.mark.parametrize("photometric", ["cielab", "icclab", "itulab", "logluv"])
def test_other_colour_spaces_are_refused(tmp_path, rng, photometric):
    tifffile.imwrite(tmp_path / "a.tif", plane(rng, 8, 9, 3), photometric=photometric, planarconfig="contig")
    for read in (read_image, read_label_map, count_channels):
        with pytest.raises(
            InputError, match=f"got the colour space {photometric.upper()}. Save it as grey or RGB"
        ):
            read(tmp_path / "a.tif")


# Compressions


def write_all_compressions(folder, rng):
    """Write pictures of every lossless compression that pillow can write.

    Returns:
        By name, the expected array, or `None` if only imagecodecs reads the file.
    """
    grey, deep = plane(rng, 21, 35), plane(rng, 21, 35, dtype=np.uint16, highest=60000)
    colours, mask = plane(rng, 21, 35, 3), plane(rng, 21, 35) > 100
    whole, real = plane(rng, 21, 35, dtype=np.int32, highest=10**6), plane(rng, 21, 35, dtype=np.float32) / 7
    expected = {}
    for pillow_name in ("raw", "packbits", "tiff_deflate", "tiff_adobe_deflate", "tiff_lzw", "zstd", "lzma"):
        for kind, array in (
            ("grey", grey),
            ("deep", deep),
            ("colours", colours),
            ("whole", whole),
            ("real", real),
        ):
            name = f"{pillow_name}-{kind}"
            PIL.Image.fromarray(array).save(folder / f"{name}.tif", compression=pillow_name)
            expected[name] = array[np.newaxis] if array.ndim == 2 else np.moveaxis(array, -1, 0)
    for pillow_name in ("group3", "group4", "tiff_ccitt", "tiff_lzw", "packbits"):
        PIL.Image.fromarray(mask).save(folder / f"{pillow_name}-mask.tif", compression=pillow_name)
        expected[f"{pillow_name}-mask"] = mask[np.newaxis]
    for number in (2, 3, 4):
        stack = [PIL.Image.fromarray(page) for page in plane(rng, number, 21, 35)]
        stack[0].save(
            folder / f"stack{number}.tif", save_all=True, append_images=stack[1:], compression="tiff_lzw"
        )
        expected[f"stack{number}"] = np.stack([np.asarray(page) for page in stack])[np.newaxis]
    exif = PIL.Image.Exif()
    exif[274] = 6
    PIL.Image.fromarray(grey).save(folder / "turned.tif", compression="tiff_lzw", exif=exif)
    expected["turned"] = np.rot90(grey, -1)[np.newaxis]
    alpha = np.dstack([colours, np.full_like(grey, 255)])
    PIL.Image.fromarray(alpha).save(folder / "alpha.tif", compression="tiff_lzw")
    expected["alpha"] = np.moveaxis(colours, -1, 0)
    for bits in (2, 4):
        few = grey % 2**bits
        tifffile.imwrite(folder / f"bits{bits}.tif", few, bitspersample=bits, **MINISBLACK)
        expected[f"bits{bits}"] = few[np.newaxis]
    return expected


def test_compressions_with_imagecodecs(tmp_path, rng):
    pytest.importorskip("imagecodecs")
    for name, array in write_all_compressions(tmp_path, rng).items():
        path = tmp_path / f"{name}.tif"
        np.testing.assert_array_equal(read_image(path).array, array, err_msg=name)
        assert count_channels(path) == len(array), name


def test_compressions_without_imagecodecs(tmp_path, rng):
    expected = write_all_compressions(tmp_path, rng)
    for name, answer in read_without_imagecodecs(tmp_path).items():
        assert not isinstance(answer, str), answer
        np.testing.assert_array_equal(answer[0], expected[name], err_msg=name)
        assert answer[1] == len(expected[name]), name


def test_jpeg_without_imagecodecs(tmp_path, rng):
    colours = np.kron(plane(rng, 2, 3, 3), np.ones((16, 16, 1))).astype(np.uint8)
    for name, array in (("grey", colours[..., 0]), ("colours", colours)):
        PIL.Image.fromarray(array).save(tmp_path / f"{name}.tif", compression="jpeg", quality=95)
    for name, (found, number) in read_without_imagecodecs(tmp_path).items():
        expected = colours[..., :1] if name == "grey" else colours
        assert np.abs(np.moveaxis(found, 0, -1).astype(int) - expected).mean() < 4
        assert number == expected.shape[-1]
    assert read_image(tmp_path / "colours.tif").array.shape == (3, 32, 48)


def test_files_that_need_imagecodecs_name_the_extra(tmp_path, rng):
    imagecodecs = pytest.importorskip("imagecodecs")
    del imagecodecs
    deep_colours = plane(rng, 21, 35, 3, dtype=np.uint16, highest=60000)
    tifffile.imwrite(tmp_path / "deep.tif", deep_colours, photometric="rgb", compression="lzw")
    channels = plane(rng, 21, 35, 5)
    tifffile.imwrite(
        tmp_path / "channels.tif", channels, planarconfig="contig", compression="lzw", **MINISBLACK
    )
    tifffile.imwrite(
        tmp_path / "bits.tif", plane(rng, 21, 35, dtype=np.uint16), bitspersample=12, **MINISBLACK
    )
    tifffile.imwrite(tmp_path / "double.tif", plane(rng, 21, 35, dtype="f8"), compression="lzw", **MINISBLACK)
    tifffile.imwrite(tmp_path / "signed.tif", plane(rng, 21, 35, dtype="i1"), compression="lzw", **MINISBLACK)
    for name, message in read_without_imagecodecs(tmp_path).items():
        assert f"{name}.tif: expected a TIFF file that can be read without imagecodecs, got " in message
        assert message.endswith('Run: pip install "scanseg[tiff]"')
        assert "\n" not in message
        read_image(tmp_path / f"{name}.tif")


@pytest.mark.parametrize("compression", ["jpeg2000", "webp", "jpegxl", "lerc", "png"])
def test_compressions_of_imagecodecs(tmp_path, rng, compression):
    pytest.importorskip("imagecodecs")
    colours = plane(rng, 32, 48, 3)
    how = {"photometric": "rgb", "compression": compression}
    arguments = {"webp": {"lossless": True}, "jpegxl": {"lossless": True}}.get(compression)
    tifffile.imwrite(tmp_path / "a.tif", colours, **how, compressionargs=arguments)
    np.testing.assert_array_equal(np.moveaxis(read_image(tmp_path / "a.tif").array, 0, -1), colours)


def test_label_maps_of_every_lossless_compression(tmp_path, rng):
    pytest.importorskip("imagecodecs")
    labels = plane(rng, 21, 35, highest=5)
    for compression in LOSSLESS:
        tifffile.imwrite(tmp_path / "a.tif", labels, compression=compression, **MINISBLACK)
        np.testing.assert_array_equal(read_label_map(tmp_path / "a.tif").array[0], labels)


def test_a_fax_in_which_0_is_white_matches_pillow(tmp_path, rng):
    mask = plane(rng, 21, 35) > 100
    for compression in ("group3", "group4"):
        path = tmp_path / f"{compression}.tif"
        PIL.Image.fromarray(mask).save(path, compression=compression, tiffinfo={262: 0})
        with tifffile.TiffFile(path) as file:
            assert int(file.pages.first.photometric) == 0
        with PIL.Image.open(path) as picture:
            assert (np.asarray(picture) == mask).all()


@pytest.mark.parametrize("damage", ["truncated", "no codec"])
def test_damaged_pixels_are_named_in_plain_words(tmp_path, rng, damage):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, plane(rng, 60, 50), compression="zlib", **MINISBLACK)
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        with tifffile.TiffFile(path) as file:
            start = file.pages.first.dataoffsets[0]
        content[start : start + 40] = b"\0" * 40
    else:
        where = content.index((259).to_bytes(2, "little")) + 8
        content[where : where + 2] = (40000).to_bytes(2, "little")
    path.write_bytes(content)
    with pytest.raises(
        InputError, match=r"a\.tif: expected (pixels that can be decoded|a TIFF file), got"
    ) as caught:
        read_image(path)
    assert "tifffile" not in str(caught.value)
    assert "\n" not in str(caught.value)
