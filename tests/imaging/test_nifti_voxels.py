"""Voxel types, axes and scaling of NIfTI images."""

import gzip

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from scanseg.errors import InputError
from scanseg.imaging import count_channels, read_image, read_instance_map, read_label_map
from tests.imaging.nifti_files import PLAIN, save

TYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")
RGB = np.dtype([(name, "u1") for name in "RGB"])
RGBA = np.dtype([(name, "u1") for name in "RGBA"])


def write_raw(path, array, *, slope=1.0, intercept=0.0, order="<", code=None):
    """Write a file as other programs do: any type and byte order, with slope and intercept."""
    header = nib.Nifti1Header(endianness=order)
    header.set_data_shape(array.shape)
    header.set_data_dtype(array.dtype if code is None else np.uint8)
    if code is not None:
        header["datatype"], header["bitpix"] = code
    header.set_sform(PLAIN, 1)
    header.set_qform(PLAIN, 1)
    header["vox_offset"], header["scl_slope"], header["scl_inter"] = 352, slope, intercept
    content = header.binaryblock + bytes(4) + array.astype(array.dtype.newbyteorder(order)).tobytes("F")
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", TYPES)
def test_values_of_each_type_are_exact(tmp_path, rng, kind, ending, order):
    dtype = np.dtype(kind)
    if dtype.kind == "f":
        array = rng.normal(size=(5, 4, 3)).astype(dtype) * 1e30
    else:
        limits = np.iinfo(dtype)
        array = rng.integers(limits.min, limits.max, (5, 4, 3), dtype=dtype, endpoint=True)
        array[0, 0, :2] = limits.min, limits.max
    image = read_image(write_raw(tmp_path / f"a{ending}", array, order=order))
    assert image.array.dtype == dtype
    assert image.array.dtype.isnative
    np.testing.assert_array_equal(image.array[0], array.T)
    assert image.array.flags.c_contiguous
    assert image.array.flags.writeable


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("slope", "intercept"), [(0.3, -1024), (1, 5), (-2, 0), (1e-7, 0)])
@pytest.mark.parametrize("kind", TYPES)
def test_slope_and_intercept_are_applied_once(tmp_path, rng, kind, slope, intercept, order):
    array = rng.integers(0, 100, (5, 4, 3)).astype(kind)
    path = write_raw(tmp_path / "a.nii", array, slope=slope, intercept=intercept, order=order)
    image, expected = read_image(path), np.asarray(nib.load(path).dataobj)
    assert image.array.dtype == (np.float64 if kind == "f8" else np.float32)
    np.testing.assert_array_equal(image.array[0], expected.T.astype(image.array.dtype))
    np.testing.assert_array_equal(image.array[0], SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))))


@pytest.mark.parametrize("slope", [0, np.nan])
def test_a_slope_of_zero_or_nan_means_no_scaling(tmp_path, slope):
    array = np.arange(24, dtype=np.int16).reshape(4, 3, 2)
    image = read_image(write_raw(tmp_path / "a.nii", array, slope=slope, intercept=7))
    assert image.array.dtype == np.int16
    np.testing.assert_array_equal(image.array[0], array.T)


def test_scaling_beyond_float32_is_refused(tmp_path):
    path = write_raw(tmp_path / "a.nii", np.full((4, 3, 2), 100, np.int16), slope=3e38)
    with pytest.raises(InputError, match="24 voxels are infinite"):
        read_image(path)


@pytest.mark.parametrize(("dtype", "channels"), [(RGB, 3), (RGBA, 4)])
def test_colours_are_channels(tmp_path, rng, dtype, channels):
    array = np.frombuffer(rng.bytes(60 * channels), dtype).reshape(5, 4, 3)
    path = tmp_path / "a.nii.gz"
    nib.save(nib.Nifti1Image(array, PLAIN), path)
    image = read_image(path)
    assert image.array.dtype == np.uint8
    assert count_channels(path) == image.num_channels == channels
    for channel, name in zip(image.array, dtype.names, strict=True):
        np.testing.assert_array_equal(channel, array[name].T)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ((32, 64), "real values, got complex ones"),
        ((1792, 128), "real values, got complex ones"),
        ((2048, 256), "got complex256"),
        ((1536, 128), "got float128"),
        ((1, 1), "got single bits"),
        ((0, 0), "got unknown"),
        ((77, 8), "the unknown code 77"),
        ((4, 8), "bitpix: expected 16 for datatype 4, got 8"),
        ((2, 16), "bitpix: expected 8 for datatype 2, got 16"),
    ],
)
def test_other_types_are_refused_by_name(tmp_path, code, words):
    path = write_raw(tmp_path / "a.nii", np.zeros((5, 4, 96), np.uint8), code=code)
    for read in (read_image, count_channels):
        with pytest.raises(InputError, match=words):
            read(path)


def test_scaled_colours_are_refused(tmp_path):
    path = write_raw(tmp_path / "a.nii", np.zeros((5, 4, 9), np.uint8), code=(128, 24), slope=2)
    with pytest.raises(InputError, match="colours without scaling, got scl_slope 2"):
        read_image(path)


@pytest.mark.parametrize(
    ("shape", "intent", "expected"),
    [
        ((5, 4), 0, (1, 4, 5)),
        ((5, 4, 1), 0, (1, 1, 4, 5)),
        ((5, 4, 3), 0, (1, 3, 4, 5)),
        ((1, 4, 3), 0, (1, 3, 4, 1)),
        ((5, 4, 3, 1), 0, (1, 3, 4, 5)),
        ((5, 4, 3, 2), 0, (2, 3, 4, 5)),
        ((5, 4, 1, 2), 0, (2, 1, 4, 5)),
        ((5, 4, 3, 2, 1, 1), 0, (2, 3, 4, 5)),
        ((5, 4, 3, 1, 1), 0, (1, 3, 4, 5)),
        ((5, 4, 3, 1, 2), 1007, (2, 3, 4, 5)),
        ((5, 4, 1, 1, 2), 1007, (2, 4, 5)),
    ],
)
def test_axes_of_space_and_channels(tmp_path, rng, shape, intent, expected):
    array = rng.normal(size=shape).astype(np.float32)
    image = nib.Nifti1Image(array, PLAIN)
    image.header["intent_code"] = intent
    nib.save(image, tmp_path / "a.nii.gz")
    read = read_image(tmp_path / "a.nii.gz")
    assert read.array.shape == expected
    assert count_channels(tmp_path / "a.nii.gz") == expected[0]
    np.testing.assert_array_equal(read.array.ravel(), array.ravel("F"))


@pytest.mark.parametrize(
    ("shape", "intent"), [((5,), 0), ((5, 4, 3, 1, 2), 0), ((5, 4, 3, 2, 2), 1007), ((5, 4, 3, 1, 2, 2), 0)]
)
def test_other_axes_are_refused(tmp_path, shape, intent):
    image = nib.Nifti1Image(np.zeros(shape, np.float32), PLAIN)
    image.header["intent_code"] = intent
    nib.save(image, tmp_path / "a.nii.gz")
    with pytest.raises(
        InputError, match="expected 2 or 3 spatial axes and at most one channel axis, got shape"
    ):
        read_image(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("kind", ["i8", "u8", "f8", "u4", "i1"])
def test_label_maps_and_instance_maps_of_wide_types(tmp_path, kind):
    array = (np.arange(60).reshape(5, 4, 3) % 100).astype(kind)
    path = write_raw(tmp_path / "a.nii.gz", array)
    np.testing.assert_array_equal(read_label_map(path).array[0], array.T)
    np.testing.assert_array_equal(read_instance_map(path).array[0], array.T)


@pytest.mark.parametrize(
    ("kind", "value"), [("u8", 2**64 - 1), ("i8", -(2**63)), ("i8", 2**40), ("f8", 2**33)]
)
def test_labels_out_of_range_are_refused_in_every_type(tmp_path, kind, value):
    array = np.zeros((5, 4, 3), kind)
    array[0, 0, 0] = value
    path = write_raw(tmp_path / "a.nii", array)
    for read in (read_label_map, read_instance_map):
        with pytest.raises(InputError, match=r"expected .* from 0 to"):
            read(path)


def test_several_members_with_padding_and_bytes_after_the_voxels(tmp_path, rng):
    array = rng.integers(0, 9, (50, 40, 30), dtype=np.int16)
    content = write_raw(tmp_path / "a.nii", array).read_bytes()
    third = len(content) // 3
    path = tmp_path / "b.nii.gz"
    parts = content[:third], b"", content[third : 2 * third], content[2 * third :]
    path.write_bytes(b"".join(gzip.compress(part) + bytes(5) for part in parts))
    image = read_image(path)
    np.testing.assert_array_equal(image.array[0], array.T)
    assert image.warnings == ()
    for name, more in (("c.nii", content + bytes(9)), ("d.nii.gz", gzip.compress(content + bytes(9)))):
        (tmp_path / name).write_bytes(more)
        image = read_image(tmp_path / name)
        np.testing.assert_array_equal(image.array[0], array.T)
        assert "expected no bytes after the voxels, got 9. They are ignored." in image.warnings[0]


def test_extensions_of_a_header_are_skipped(tmp_path, rng):
    array = rng.integers(0, 9, (5, 4, 3), dtype=np.int16)
    image = nib.Nifti1Image(array, PLAIN)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"text" * 40))
    for name in ("a.nii", "a.nii.gz"):
        nib.save(image, tmp_path / name)
        read = read_image(tmp_path / name)
        np.testing.assert_array_equal(read.array[0], array.T)
        assert read.warnings == ()


def test_a_file_of_the_other_compression_than_its_ending_is_refused(tmp_path):
    content = save(tmp_path / "a.nii", np.zeros((5, 4, 3), np.uint8)).read_bytes()
    (tmp_path / "b.nii.gz").write_bytes(content)
    (tmp_path / "c.nii").write_bytes(gzip.compress(content))
    with pytest.raises(InputError, match=r"b\.nii\.gz: damaged, or not compressed"):
        read_image(tmp_path / "b.nii.gz")
    with pytest.raises(InputError, match=r"c\.nii: .* got gzip data\. Add \.gz"):
        read_image(tmp_path / "c.nii")


def test_a_name_in_capital_letters(tmp_path):
    array = np.arange(60, dtype=np.int16).reshape(5, 4, 3)
    path = write_raw(tmp_path / "a.nii.gz", array).rename(tmp_path / "A.NII.GZ")
    np.testing.assert_array_equal(read_image(path).array[0], array.T)
