"""Voxel data of MetaImage and NRRD files is checked before SimpleITK, which accepts damaged data."""

import re
import zlib

import numpy as np
import pytest
import SimpleITK

from scanseg.errors import InputError
from scanseg.imaging import read_image
from tests.factories import write_volume

ARRAY = np.random.default_rng(7).integers(-3000, 3000, (3, 20, 30)).astype(np.int16)
SLICE_BYTES = 2 * 20 * 30


def write_compressed(path, array=ARRAY):
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array), str(path), useCompression=True)


def voxels_begin(content):
    """Return the position of the first compressed byte of an attached header."""
    mark = b"ElementDataFile = LOCAL\n" if content.startswith(b"ObjectType") else b"\n\n"
    return content.index(mark) + len(mark)


@pytest.mark.parametrize("ending", ["mha", "nrrd"])
def test_every_flipped_bit_in_compressed_data_is_found(tmp_path, ending, capfd):
    path = tmp_path / f"a.{ending}"
    write_compressed(path)
    content = path.read_bytes()
    begin = voxels_begin(content) + (10 if ending == "nrrd" else 2)  # the header of gzip has free bytes
    for position in range(begin, len(content), 101):
        path.write_bytes(content[:position] + bytes([content[position] ^ 16]) + content[position + 1 :])
        with pytest.raises(InputError, match=rf"a.{ending}: (damaged|truncated)"):
            read_image(path)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("ending", ["mha", "nrrd"])
def test_cut_compressed_data_is_refused_and_surplus_bytes_get_a_warning(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    write_compressed(path)
    content = path.read_bytes()
    for num_bytes in (1, 4, 20, 1000):
        path.write_bytes(content[:-num_bytes])
        with pytest.raises(InputError, match=rf"a.{ending}: truncated"):
            read_image(path)
    path.write_bytes(content + b"123456")
    image = read_image(path)
    np.testing.assert_array_equal(image.array[0], ARRAY)
    (warning,) = [each for each in image.warnings if "after the voxels" in each]
    assert warning == f"{path}: expected no bytes after the voxels, got 6. They are ignored."


@pytest.mark.parametrize(
    ("size", "words"), [(b"50", "truncated"), (b"1000000", "truncated"), (None, "got none"), (b"0", "got 0")]
)
def test_a_wrong_size_of_compressed_data_is_refused(tmp_path, size, words):
    path = tmp_path / "a.mha"
    write_compressed(path)
    line = b"" if size is None else b"CompressedDataSize = " + size + b"\n"
    path.write_bytes(re.sub(rb"CompressedDataSize = \d+\n", line, path.read_bytes(), count=1))
    with pytest.raises(InputError, match=rf"a.mha: .*{words}"):
        read_image(path)


def test_less_compressed_data_than_voxels_is_refused(tmp_path):
    write_volume(tmp_path / "a.mhd", ARRAY)
    header = (tmp_path / "a.mhd").read_text().replace("CompressedData = False", "CompressedData = True")
    (tmp_path / "a.mhd").write_text(header.replace("a.raw", "a.zraw"))
    (tmp_path / "a.zraw").write_bytes(zlib.compress(ARRAY.tobytes()))
    np.testing.assert_array_equal(read_image(tmp_path / "a.mhd").array[0], ARRAY)
    (tmp_path / "a.zraw").write_bytes(zlib.compress(ARRAY[:2].tobytes()))
    with pytest.raises(InputError, match=r"truncated: expected 3600 bytes .*, got 2400"):
        read_image(tmp_path / "a.mhd")


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("LIST\ns1.raw\ns2.raw\ns3.raw\n", None),
        ("LIST 2\ns1.raw\ns2.raw\ns3.raw\n", None),
        ("LIST 2D\ns1.raw\ns2.raw\ns3.raw\n", None),
        ("s%d.raw 1 3 1", None),
        ("LIST\ns1.raw\ns2.raw\ns3.raw", "expected 3 files of voxels .*, got 2 names"),
        ("LIST\ns1.raw\ns2.raw\n", "expected 3 files of voxels .*, got 2 names"),
        ("LIST\ns1.raw\ns2.raw\ns3.raw\ns3.raw\n", "expected 3 files of voxels .*, got 4 names"),
        ("LIST 3\ns1.raw", "expected LIST, with one file of 2 axes"),
        ("s%d.raw 1 2 1", "expected 3 files of voxels .*, got 2 names"),
        ("s%d.raw 1 3 2", "expected 3 files of voxels .*, got 2 names"),
    ],
)
def test_names_of_slices_are_counted(tmp_path, names, words, compressed):
    """SimpleITK leaves slices without a name uninitialised, also if no line break follows the last name."""
    path = tmp_path / "a.mhd"
    write_volume(path, ARRAY)
    header = path.read_text().replace("ElementDataFile = a.raw\n", f"ElementDataFile = {names}")
    path.write_text(header.replace("CompressedData = False", f"CompressedData = {compressed}"))
    for number in range(3):
        content = ARRAY[number].tobytes()
        (tmp_path / f"s{number + 1}.raw").write_bytes(zlib.compress(content) if compressed else content)
    if words is None:
        np.testing.assert_array_equal(read_image(path).array[0], ARRAY)
    else:
        with pytest.raises(InputError, match=rf"a.mhd: {words}"):
            read_image(path)


@pytest.mark.parametrize("sizes", ["7 6 0", "7 6", "7 6 -3", ""])
def test_wrong_sizes_are_refused(tmp_path, sizes):
    write_volume(tmp_path / "a.mhd", ARRAY)
    header = (tmp_path / "a.mhd").read_text().replace("DimSize = 30 20 3", f"DimSize = {sizes}")
    (tmp_path / "a.mhd").write_text(header)
    with pytest.raises(InputError, match=r"a.mhd: expected 3 whole numbers above 0 in DimSize"):
        read_image(tmp_path / "a.mhd")


@pytest.mark.parametrize("ending", ["mha", "mhd", "nrrd", "nhdr"])
def test_surplus_bytes_of_plain_voxels_get_a_warning(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    write_volume(path, ARRAY)
    voxels = path.with_suffix(".raw") if ending in ("mhd", "nhdr") else path
    assert not read_image(path).warnings
    voxels.write_bytes(voxels.read_bytes() + b"1234")
    image = read_image(path)
    np.testing.assert_array_equal(image.array[0], ARRAY)
    assert image.warnings == (f"{voxels}: expected no bytes after the voxels, got 4. They are ignored.",)


@pytest.mark.parametrize("kind", ["uint8", "int8", "uint16", "int32", "uint32", "int64", "uint64", "float32"])
@pytest.mark.parametrize("ending", ["mha", "nrrd"])
@pytest.mark.parametrize("components", [1, 3])
def test_the_size_of_all_types_is_known(tmp_path, kind, ending, components):
    array = np.arange(24 * components).reshape(2, 3, 4, components).astype(kind)
    image = SimpleITK.GetImageFromArray(array if components > 1 else array[..., 0], isVector=components > 1)
    for compress in (False, True):
        path = tmp_path / f"a.{ending}"
        SimpleITK.WriteImage(image, str(path), useCompression=compress)
        found = read_image(path)
        assert found.warnings == ()
        np.testing.assert_array_equal(np.moveaxis(found.array, 0, -1), array)
