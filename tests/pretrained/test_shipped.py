"""The model in the package finds nuclei in pictures that it has not seen."""

import numpy as np
import pytest

import scanseg
from scanseg.pretrained import find_model, list_models, names
from tests.factories import write_picture

LARGEST_BYTES = 6_000_000


def write_cells(path, centres):
    """Write a picture of bright discs on a dark, noisy background."""
    rows, columns = np.mgrid[:160, :160]
    discs = sum(np.exp(-((((rows - y) ** 2 + (columns - x) ** 2) / 60.0) ** 2)) for y, x in centres)
    noise = np.random.default_rng(0).normal(size=(160, 160))
    grey = np.clip(12 + 90 * discs + 2 * noise, 0, 255).astype(np.uint8)
    write_picture(path, np.stack([grey] * 3, axis=-1))


def test_it_is_small_and_has_a_card():
    (nuclei,) = [model for model in list_models() if model.place == "package"]
    assert nuclei.name == "nuclei"
    assert nuclei.num_bytes < LARGEST_BYTES
    card = (find_model("nuclei") / "README.md").read_text()
    for part in ("CC0", "held-out", "Known faults", "Licence of the weights", "It is no medical device."):
        assert part in card
    assert names._SHIPPED.is_dir()


def test_separate_cells_are_found_one_by_one(tmp_path):
    centres = [(30, 40), (40, 110), (90, 30), (85, 90), (125, 120), (130, 55)]
    write_cells(tmp_path / "images" / "cells.png", centres)
    scanseg.load("nuclei", device="cpu").predict_folder(tmp_path / "images", tmp_path / "out")
    from scanseg.evaluation import convert_to_instances
    from scanseg.imaging import read_instance_map
    from scanseg.runtime import RunContext

    (path,) = convert_to_instances(
        tmp_path / "out", tmp_path / "instances", context=RunContext(num_workers=0)
    )
    instances = read_instance_map(path).array[0]
    assert instances.max() == len(centres)
    assert {int(instances[y, x]) for y, x in centres} == set(range(1, len(centres) + 1))


def test_pictures_that_were_held_out(shared_data, tmp_path):
    """Six of the thirty. All of them have a mean F1 of 0.856 (see the card)."""
    scanseg.convert("dsb2018", shared_data / "dsb2018", tmp_path / "data", num_workers=0)
    images = sorted((tmp_path / "data" / "imagesTs").iterdir())[:6]
    scanseg.load("nuclei", device="cpu").predict_folder(images, tmp_path / "out")
    report = scanseg.evaluate_instances(
        tmp_path / "out",
        tmp_path / "data" / "instancesTs",
        instances="grown",
        cases=[path.name.removesuffix("_0000.png") for path in images],
        num_workers=0,
    )
    assert report.summary.f1.mean == pytest.approx(0.8, abs=0.12)
