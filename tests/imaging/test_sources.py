"""Files that decide the value of an image."""

import numpy as np
import pytest
import tifffile

from scanseg.imaging import files_of
from tests.factories import write_picture, write_volume

ARRAY = np.arange(126, dtype=np.int16).reshape(3, 6, 7)


def names(path, **kind):
    return [file.name for file in files_of(path, **kind)]


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.mha", "a.nrrd"])
def test_one_file(tmp_path, name):
    write_volume(tmp_path / name, ARRAY)
    assert files_of(tmp_path / name) == (tmp_path / name,)


@pytest.mark.parametrize("ending", ["mhd", "nhdr"])
@pytest.mark.parametrize(
    ("data", "files"),
    [
        (None, ["a.raw"]),
        ("LIST\ns1.raw\ns2.raw\nsub/s3.raw\n", ["s1.raw", "s2.raw", "s3.raw"]),
        ("s%d.raw 1 3 1\n", ["s1.raw", "s2.raw"]),
        ("s%02d.raw 7 9 1\n", ["s07.raw", "s08.raw"]),
        ("missing.raw\n", []),
    ],
)
def test_voxels_of_headers(tmp_path, ending, data, files):
    path = tmp_path / f"a.{ending}"
    write_volume(path, ARRAY)
    if data is not None:
        path.write_text(path.read_text().replace("a.raw\n", data))
    (tmp_path / "sub").mkdir()
    for name in ("s1.raw", "s2.raw", "s07.raw", "s08.raw", "sub/s3.raw"):
        (tmp_path / name).touch()
    assert names(path) == [f"a.{ending}", *files]


def test_spacings_of_tiff_files(tmp_path):
    for name in ("img_0001.tif", "img_0001_0000.tif"):
        tifffile.imwrite(tmp_path / name, ARRAY, photometric="minisblack")
        assert names(tmp_path / name) == [name]
    for name in ("img.json", "img_0001.json"):
        (tmp_path / name).write_text('{"spacing": [1, 1, 1]}')
    assert names(tmp_path / "img_0001_0000.tif") == ["img_0001_0000.tif", "img_0001.json"]
    assert names(tmp_path / "img_0001.tif") == ["img_0001.tif", "img.json"]
    assert names(tmp_path / "img_0001.tif", is_label_map=True) == ["img_0001.tif", "img_0001.json"]


def test_other_files_stand_for_themselves(tmp_path):
    write_picture(tmp_path / "a.png", ARRAY[0])
    (tmp_path / "a.json").write_text('{"spacing": [1, 1]}')
    for name, content in (
        ("b.mhd", b"\xff" * 99),
        ("c.nrrd", b"NRRD0004\ntype: " + b"x" * 999),
        ("d.txt", b""),
    ):
        (tmp_path / name).write_bytes(content)
    for name in ("a.png", "b.mhd", "c.nrrd", "d.txt", "missing.mha"):
        assert names(tmp_path / name) == [name]
