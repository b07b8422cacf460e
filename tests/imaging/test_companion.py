"""Spacings in JSON files beside TIFF files."""

import json

import numpy as np
import pytest
import tifffile

from scanseg.imaging import companion_path, read_image, read_label_map, write_label_map
from tests.factories import image_of

MAP = np.ones((2, 3, 4), np.uint8)


def test_label_maps_of_numbered_cases_have_their_own_spacing(tmp_path):
    spacings = {"img_0001": (2, 0.5, 0.5), "img_0002": (5, 0.25, 0.25), "img_0003": (1, 1, 1)}
    for name, spacing in spacings.items():
        write_label_map(tmp_path / f"{name}.tif", MAP, like=image_of(MAP[None], spacing=spacing))
    for name, spacing in spacings.items():
        assert read_label_map(tmp_path / f"{name}.tif").spacing == spacing
    assert sorted(path.name for path in tmp_path.glob("*.json")) == ["img_0001.json", "img_0002.json"]


@pytest.mark.parametrize("spacing", [(1, 1, 1), (3, 1, 1)])
def test_an_old_spacing_is_replaced(tmp_path, spacing):
    path = tmp_path / "a.tif"
    for written in ((2, 0.5, 0.5), spacing):
        write_label_map(path, MAP, like=image_of(MAP[None], spacing=written))
    assert read_label_map(path).spacing == spacing


def test_other_json_files_are_not_replaced(tmp_path):
    (tmp_path / "dataset.json").write_text('{"labels": {}}')
    write_label_map(tmp_path / "dataset.tif", MAP, like=image_of(MAP[None]))
    assert json.loads((tmp_path / "dataset.json").read_text()) == {"labels": {}}


def test_images_leave_out_the_number_of_the_channel(tmp_path):
    (tmp_path / "img_0001.json").write_text('{"spacing": [2, 0.5, 0.5]}')
    for name in ("img_0001_0000.tif", "img_0001.tif"):
        tifffile.imwrite(tmp_path / name, MAP, metadata={"axes": "ZYX"})
    assert read_image(tmp_path / "img_0001_0000.tif").spacing == (2, 0.5, 0.5)
    assert read_label_map(tmp_path / "img_0001.tif").spacing == (2, 0.5, 0.5)
    assert companion_path(tmp_path / "img_0001.tif", is_label_map=False).name == "img.json"
