import errno
import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import SimpleITK
import tifffile

from scanseg.errors import InputError, UsageError
from scanseg.imaging import count_channels, read_image, read_label_map

ARRAY = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)


def write_volume(
    path: Path, array: np.ndarray, spacing=(0.5, 0.75, 3.0), *, is_vector=False, origin=None
) -> Path:
    image = SimpleITK.GetImageFromArray(array, isVector=is_vector)
    if image.GetDimension() == 3:
        image.SetSpacing(spacing)
        image.SetOrigin(origin or (1.0, 2.0, 3.0))
        image.SetDirection((0, 1, 0, -1, 0, 0, 0, 0, 1))
    SimpleITK.WriteImage(image, str(path))
    return path


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd"])
def test_medical_formats_keep_voxels_and_geometry(tmp_path, ending):
    image = read_image(write_volume(tmp_path / f"a{ending}", ARRAY))
    np.testing.assert_array_equal(image.array[0], ARRAY)
    assert image.array.dtype == np.int16
    assert image.num_axes == 3
    np.testing.assert_allclose(image.spacing, (3.0, 0.75, 0.5))
    np.testing.assert_allclose(image.origin, (1, 2, 3))
    np.testing.assert_allclose(image.direction, (0, 1, 0, -1, 0, 0, 0, 0, 1), atol=1e-6)


def test_last_of_four_axes_is_the_channel(tmp_path):
    array = np.arange(5 * 2 * 3 * 4, dtype=np.float32).reshape(5, 2, 3, 4)
    image = SimpleITK.GetImageFromArray(array, isVector=False)
    image.SetSpacing((0.5, 0.75, 3.0, 1.0))
    SimpleITK.WriteImage(image, str(tmp_path / "a.nii.gz"))
    read = read_image(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(read.array, array)
    assert read.spacing == (3.0, 0.75, 0.5)
    assert len(read.origin) == 3
    assert len(read.direction) == 9
    assert count_channels(tmp_path / "a.nii.gz") == 5


def test_components_are_channels(tmp_path):
    path = write_volume(tmp_path / "a.nrrd", np.stack([ARRAY, ARRAY + 1], axis=-1), is_vector=True)
    np.testing.assert_array_equal(read_image(path).array, np.stack([ARRAY, ARRAY + 1]))
    assert count_channels(path) == 2


def test_medical_image_of_two_axes(tmp_path):
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(ARRAY[0]), str(tmp_path / "a.nii.gz"))
    image = read_image(tmp_path / "a.nii.gz")
    assert image.array.shape == (1, 3, 4)
    assert len(image.spacing) == len(image.origin) == image.num_axes == 2
    assert len(image.direction) == 4


def test_files_are_stacked_as_channels(tmp_path):
    paths = [write_volume(tmp_path / f"a_{i}.nii.gz", ARRAY + i) for i in range(3)]
    np.testing.assert_array_equal(read_image(paths).array, np.stack([ARRAY, ARRAY + 1, ARRAY + 2]))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("shape", ["shape (2, 3, 4) and (2, 3, 3)"]),
        ("spacing", ["spacing (3.0, 0.75, 0.5) and (3.0, 0.75, 0.6) mm"]),
        ("origin", ["origin (1.0, 2.0, 3.0) and (1.0, 2.0, 4.0) mm"]),
    ],
)
def test_channels_on_other_grids_are_refused(tmp_path, kind, words):
    first = write_volume(tmp_path / "a_0000.nii.gz", ARRAY)
    second = write_volume(
        tmp_path / "a_0001.nii.gz",
        ARRAY[:, :, :3] if kind == "shape" else ARRAY,
        spacing=(0.6, 0.75, 3.0) if kind == "spacing" else (0.5, 0.75, 3.0),
        origin=(1.0, 2.0, 4.0) if kind == "origin" else None,
    )
    with pytest.raises(InputError) as caught:
        read_image([first, second])
    for word in [*words, "a_0000.nii.gz", "a_0001.nii.gz"]:
        assert word in str(caught.value)


def test_tiny_differences_of_headers_are_accepted(tmp_path):
    first = write_volume(tmp_path / "a_0000.nii.gz", ARRAY)
    second = write_volume(tmp_path / "a_0001.nii.gz", ARRAY, spacing=(0.5001, 0.75, 3.0), origin=(1.01, 2, 3))
    assert read_image([first, second]).num_channels == 2


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha", ".png", ".jpg", ".bmp", ".tif"])
@pytest.mark.parametrize("damage", ["truncated", "rubbish", "no bytes"])
def test_damaged_files_are_named_in_one_line_without_decoder_output(tmp_path, rng, capfd, ending, damage):
    path = tmp_path / f"a{ending}"
    values = rng.integers(0, 255, (60, 50), dtype=np.uint8)
    if ending in (".png", ".jpg", ".bmp"):
        PIL.Image.fromarray(values).save(path)
    elif ending == ".tif":
        tifffile.imwrite(path, values)
    else:
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(values), str(path))
    content = path.read_bytes()
    path.write_bytes(
        {"truncated": content[: len(content) // 2], "rubbish": b"no image " * 99, "no bytes": b""}[damage]
    )
    with pytest.raises(InputError, match=r"a\.") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("ending", [".png", ".jpg", ".bmp", ".tif"])
def test_a_few_changed_bytes_give_an_input_error_or_an_image(tmp_path, rng, ending):
    """Decoders raise errors of many kinds: a division by zero, a wrong type, axes that do not match."""
    path = tmp_path / f"a{ending}"
    values = rng.integers(0, 255, (12, 14, 3), dtype=np.uint8)
    if ending == ".tif":
        tifffile.imwrite(path, values, compression="zlib")
    else:
        PIL.Image.fromarray(values).convert("P" if ending in (".png", ".bmp") else "RGB").save(path)
    content = np.frombuffer(path.read_bytes(), np.uint8)
    refused = 0
    for _ in range(150):
        changed = content.copy()
        places = rng.integers(0, min(400, len(changed)), 4)
        changed[places] = rng.integers(0, 256, 4)
        path.write_bytes(changed[: rng.integers(len(changed) // 2, len(changed) + 1)].tobytes())
        for read in (count_channels, read_image):
            try:
                read(path)
            except InputError:
                refused += 1
    assert refused > 20


@pytest.mark.parametrize("ending", [".bmp", ".png"])
def test_a_truncated_picture_with_a_palette(tmp_path, rng, ending):
    path = tmp_path / f"a{ending}"
    values = rng.integers(0, 255, (60, 50, 3), dtype=np.uint8)
    PIL.Image.fromarray(values).convert("P").save(path)
    path.write_bytes(path.read_bytes()[:-900])
    with pytest.raises(InputError, match=r"damaged"):
        read_image(path)


@pytest.mark.parametrize("keep", [0.1, 0.9])
def test_truncated_nifti_is_not_read_as_zeros(tmp_path, rng, keep):
    array = rng.normal(size=(20, 30, 40)).astype(np.float32)
    for ending in (".nii", ".nii.gz"):
        path = write_volume(tmp_path / f"a{ending}", array)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * keep)])
        with pytest.raises(InputError, match="truncated"):
            read_image(path)


def test_nifti_in_several_gzip_members_is_complete(tmp_path):
    import gzip

    content = write_volume(tmp_path / "a.nii", ARRAY).read_bytes()
    path = tmp_path / "b.nii.gz"
    path.write_bytes(gzip.compress(content[:360]) + gzip.compress(content[360:]))
    np.testing.assert_array_equal(read_image(path).array[0], ARRAY)


def test_missing_file_folder_unknown_ending_and_empty_list_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_image(tmp_path / "a.nii.gz")
    (tmp_path / "b.nii.gz").mkdir()
    with pytest.raises(InputError, match="not a file"):
        read_image(tmp_path / "b.nii.gz")
    (tmp_path / "c.docx").write_text("text")
    with pytest.raises(InputError, match=r"unknown image format\. Use one of the endings \.nii\.gz"):
        read_image(tmp_path / "c.docx")
    with pytest.raises(InputError, match="at least one file"):
        read_image([])


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".tif"])
def test_nan_and_infinity_are_counted(tmp_path, ending):
    array = np.zeros((2, 3, 4), dtype=np.float32)
    array[0, 0, :2] = np.nan
    array[1, 0, 0] = np.inf
    path = tmp_path / f"a{ending}"
    if ending == ".tif":
        tifffile.imwrite(path, array, photometric="minisblack")
    else:
        write_volume(path, array)
    with pytest.raises(InputError, match=rf"a\{ending}: 2 voxels are NaN and 1 voxel is infinite, of 24"):
        read_image(path)


def test_five_axes_are_refused(tmp_path):
    import struct

    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 5, 2, 2, 2, 2, 2, 1, 1)
    struct.pack_into("<hh", header, 70, 2, 8)
    struct.pack_into("<8f", header, 76, 1, 1, 1, 1, 1, 1, 1, 1)
    struct.pack_into("<f", header, 108, 352)
    header[344:348] = b"n+1\0"
    (tmp_path / "a.nii").write_bytes(bytes(header) + bytes(32))
    with pytest.raises(InputError, match="axes"):
        read_image(tmp_path / "a.nii")


@pytest.mark.parametrize("ending", [".png", ".bmp", ".jpg", ".tif"])
def test_colour_picture_has_three_channels(tmp_path, ending):
    pixels = np.zeros((8, 16, 3), dtype=np.uint8)
    pixels[..., 1] = 100
    pixels[..., 2] = 200
    path = tmp_path / f"a{ending}"
    if ending == ".tif":
        tifffile.imwrite(path, pixels, photometric="rgb")
    else:
        PIL.Image.fromarray(pixels).save(path)
    image = read_image(path)
    assert image.array.shape == (3, 8, 16)
    np.testing.assert_allclose(image.array.mean(axis=(1, 2)), (0, 100, 200), atol=2)  # JPEG is lossy
    assert image.spacing == (1.0, 1.0)
    assert image.direction == (1.0, 0.0, 0.0, 1.0)
    assert count_channels(path) == 3


def test_grey_picture_of_16_bits_keeps_its_range(tmp_path):
    pixels = np.array([[0, 300], [40000, 65535]], dtype=np.uint16)
    PIL.Image.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").array[0], pixels)
    assert count_channels(tmp_path / "a.png") == 1


def test_colour_picture_of_16_bits_keeps_its_range(tmp_path, rng):
    pixels = rng.integers(0, 65535, (4, 5, 3), dtype=np.uint16)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(pixels, isVector=True), str(tmp_path / "a.png"))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").array, np.moveaxis(pixels, -1, 0))
    assert count_channels(tmp_path / "a.png") == 3


@pytest.mark.parametrize("ending", [".png", ".tif"])
@pytest.mark.parametrize("channels", [2, 4])
def test_constant_alpha_is_dropped_and_varying_alpha_is_refused(tmp_path, rng, ending, channels):
    pixels = rng.integers(0, 255, (4, 5, channels), dtype=np.uint8)

    def write() -> Path:
        path = tmp_path / f"a{ending}"
        if ending == ".png":
            PIL.Image.fromarray(pixels).save(path)
        else:
            kind = "rgb" if channels == 4 else "minisblack"
            tifffile.imwrite(
                path, pixels, photometric=kind, extrasamples=["unassalpha"], planarconfig="contig"
            )
        return path

    with pytest.raises(InputError, match="alpha channel varies"):
        read_image(write())
    pixels[..., -1] = 255
    image = read_image(write())
    np.testing.assert_array_equal(image.array, np.moveaxis(pixels[..., :-1], -1, 0))
    assert count_channels(write()) == channels - 1


def test_palette_is_colours_for_images_and_indices_for_label_maps(tmp_path):
    picture = PIL.Image.fromarray(np.array([[0, 1], [2, 1]], dtype=np.uint8)).convert("P")
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0] + [0] * 759)
    picture = PIL.Image.frombytes("P", (2, 2), bytes([0, 1, 2, 1]))
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0] + [0] * 759)
    picture.save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").array.shape == (3, 2, 2)
    np.testing.assert_array_equal(read_label_map(tmp_path / "a.png").array[0], [[0, 1], [2, 1]])


def test_tiff_stack_and_its_spacing(tmp_path):
    tifffile.imwrite(tmp_path / "case_0000.tif", ARRAY, photometric="minisblack")
    image = read_image(tmp_path / "case_0000.tif")
    np.testing.assert_array_equal(image.array[0], ARRAY)
    assert image.spacing == (1.0, 1.0, 1.0)
    (tmp_path / "case.json").write_text(json.dumps({"spacing": [3, 0.5, 0.5]}))
    assert read_image(tmp_path / "case_0000.tif").spacing == (3.0, 0.5, 0.5)
    (tmp_path / "case.json").write_text("{}")
    with pytest.raises(InputError, match=r"case\.json: expected"):
        read_image(tmp_path / "case_0000.tif")


def test_tiff_of_imagej_with_channels(tmp_path, rng):
    array = rng.integers(0, 9, (3, 2, 8, 9), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", array, imagej=True, metadata={"axes": "ZCYX"})
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").array, array.swapaxes(0, 1))
    assert count_channels(tmp_path / "a.tif") == 2


def test_tiff_of_unknown_axes_is_refused(tmp_path, rng):
    array = rng.integers(0, 9, (2, 3, 8, 9), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", array, imagej=True, metadata={"axes": "TZYX"})
    with pytest.raises(InputError, match="axes TZYX"):
        read_image(tmp_path / "a.tif")


def test_label_map_of_whole_floats(tmp_path):
    label_map = read_label_map(write_volume(tmp_path / "a.nii.gz", (ARRAY % 3).astype(np.float32)))
    assert label_map.array.dtype == np.uint8
    np.testing.assert_array_equal(label_map.array[0], ARRAY % 3)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0.0, 1.5], "1 label value not whole, such as 1.5"),
        ([0, 256], "expected label values from 0 to 255, got values from 0 to 256"),
        ([-1, 0], "got values from -1 to 0"),
        ([0.0, np.nan], "NaN"),
    ],
)
def test_label_maps_of_other_values_are_refused(tmp_path, values, words):
    array = np.array(values).reshape(1, 1, 2)
    array = array.astype(np.float32 if array.dtype.kind == "f" else np.int16)
    with pytest.raises(InputError, match=words):
        read_label_map(write_volume(tmp_path / "a.nii.gz", array))


def test_label_map_saved_in_colour(tmp_path):
    pixels = np.repeat(np.array([[0, 1], [1, 0]], dtype=np.uint8)[..., None], 3, axis=-1)
    PIL.Image.fromarray(pixels).save(tmp_path / "a.png")
    assert read_label_map(tmp_path / "a.png").array.shape == (1, 2, 2)
    pixels[0, 0, 0] = 7
    PIL.Image.fromarray(pixels).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="3 channels that differ"):
        read_label_map(tmp_path / "a.png")


def test_jpeg_is_refused_as_label_map(tmp_path):
    PIL.Image.fromarray(np.zeros((4, 4), dtype=np.uint8)).save(tmp_path / "a.jpg")
    with pytest.raises(InputError, match="JPEG"):
        read_label_map(tmp_path / "a.jpg")


def test_real_images(shared_data):
    image = read_image(shared_data / "chaos-mr/imagesTr/chaos_01_0000.nii.gz")
    assert image.array.shape == (1, 37, 256, 256)
    np.testing.assert_allclose(image.spacing, (7.7, 1.25, 1.25))
    colour = read_image(sorted((shared_data / "kvasir-seg/images").iterdir())[0])
    assert colour.num_channels == 3
    assert colour.num_axes == 2


def test_paths_may_be_strings_or_lists(tmp_path):
    path = write_volume(tmp_path / "a.nii.gz", ARRAY)
    for named in (str(path), [str(path)], (path,)):
        np.testing.assert_array_equal(read_image(named).array[0], ARRAY)


@pytest.mark.parametrize(
    ("given", "kind"), [(b"voxels", "bytes"), (None, "NoneType"), ([b"a"], "list"), ({}, "dict")]
)
def test_arguments_that_are_no_paths_are_refused(given, kind):
    with pytest.raises(
        UsageError, match=f"image: expected a path or a list of paths, got {kind}. Give its file"
    ):
        read_image(given)


def test_an_image_of_another_library_is_refused():
    with pytest.raises(UsageError, match=r"expected a path or a list of paths, got SimpleITK\S*\.Image"):
        read_image(SimpleITK.GetImageFromArray(ARRAY))


def refuse_to_open(path, *arguments, **options):
    raise PermissionError(errno.EACCES, "Permission denied", str(path))


@pytest.mark.parametrize("read", [read_image, read_label_map, count_channels])
@pytest.mark.parametrize("ending", [".nii.gz", ".mha"])
def test_a_file_without_read_permission_is_an_input_error(tmp_path, monkeypatch, read, ending):
    path = write_volume(tmp_path / f"a{ending}", ARRAY)
    monkeypatch.setattr(Path, "open", refuse_to_open)
    with pytest.raises(InputError, match=r"a\.\S+: cannot be read \(Permission denied\)"):
        read(path)
