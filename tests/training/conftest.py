"""A data set and a plan on which a training takes a second."""

import json

import numpy as np
import pytest
from PIL import Image

import scanseg

SETTINGS = (
    *("sampling.patch_size=[16, 16]", "sampling.batch_size=2", "network.features=[4, 8]"),
    *("network.strides=[[1, 1], [2, 2]]", "network.kernel_sizes=[[3, 3], [3, 3]]"),
    *("network.num_blocks_encoder=1", "network.num_blocks_decoder=1", "augmentation=[]"),
    *("training.epochs=2", "training.iterations_per_epoch=2", "training.validation_batches=1"),
)


def add_case(folder, number):
    """Write a noisy disk."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[:24, :24]
    disk = (y - rng.uniform(8, 16)) ** 2 + (x - rng.uniform(8, 16)) ** 2 < 36
    image = 60 + 90 * disk + rng.normal(0, 10, disk.shape)
    Image.fromarray(image.astype(np.uint8)).save(folder / "imagesTr" / f"case_{number}_0000.png")
    Image.fromarray(disk.astype(np.uint8)).save(folder / "labelsTr" / f"case_{number}.png")


def write_dataset(folder, *, numbers=range(5)):
    """Write a data set of disks."""
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for number in numbers:
        add_case(folder, number)
    description = {
        "channel_names": {"0": "gray"},
        "labels": {"background": 0, "disk": 1},
        "numTraining": len(numbers),
        "file_ending": ".png",
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


@pytest.fixture
def dataset(tmp_path):
    """Five pictures, which a test may change."""
    return write_dataset(tmp_path / "disks")


@pytest.fixture
def plan(dataset, tmp_path):
    """File of a plan of two epochs of two iterations."""
    made = scanseg.make_plan(dataset, settings=SETTINGS, num_workers=0)
    path = tmp_path / "plan.json"
    path.write_text(made.to_json())
    return path


@pytest.fixture
def train(plan, tmp_path):
    """Train the plan, or go on, in `tmp_path / "model"`."""

    def run(**options):
        given = {"device": "cpu", "num_workers": 0, **options}
        return scanseg.train(plan, tmp_path / "model", **given)

    return run
