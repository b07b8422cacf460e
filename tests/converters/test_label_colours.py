"""Colours of colour masks, from the source to pictures of label maps."""

import json

import numpy as np
from PIL import Image as Picture

import scanseg
from scanseg.dataset.raw import open_dataset
from scanseg.specs import Plan

from . import forms

COLOURS = {"road": "#ff0000", "tree": "#00ff00", "sky": "#0000ff"}


def streets(tmp_path):
    forms.colour_masks(tmp_path / "source")
    scanseg.convert("folder", tmp_path / "source", tmp_path / "out", labels=COLOURS, num_workers=0)
    return tmp_path / "out"


def test_converted_pictures_keep_the_colours_of_the_masks(tmp_path):
    dataset = streets(tmp_path)
    assert json.loads((dataset / "dataset.json").read_text())["label_colours"] == COLOURS
    assert open_dataset(dataset).spec.label_colours == COLOURS
    for name in "ab":
        with Picture.open(tmp_path / "source" / "masks" / f"{name}.png") as mask:
            expected = np.asarray(mask.convert("RGB"))
        with Picture.open(dataset / "coloursTr" / f"{name}.png") as shown:
            np.testing.assert_array_equal(np.asarray(shown.convert("RGB")), expected)


def test_masks_of_numbers_have_no_colours(tmp_path):
    forms.picture(tmp_path / "images" / "a.png")
    forms.mask(tmp_path / "masks" / "a.png", forms.two_cells() > 0, value=1)
    folders = (tmp_path / "images", tmp_path / "out")
    scanseg.convert("folder", *folders, label_maps=tmp_path / "masks", num_workers=0)
    assert "label_colours" not in json.loads((tmp_path / "out" / "dataset.json").read_text())


def test_a_plan_without_colours_fits_a_data_set_with_colours(tmp_path):
    """The plan was made before the colours were added."""
    dataset = streets(tmp_path)
    plan = scanseg.make_plan(dataset, recipe="xlstm-unet-fast", size="small", num_workers=0)
    assert plan.dataset.label_colours == COLOURS
    before = plan.model_copy(update={"dataset": plan.dataset.without_colours()})
    (tmp_path / "plan.json").write_text(before.to_json())
    assert "label_colours" not in (tmp_path / "plan.json").read_text()
    assert Plan.read(tmp_path / "plan.json") == before
    assert scanseg.preprocess(tmp_path / "plan.json", store=tmp_path / "stores", num_workers=0).is_dir()
