"""Small pictures with one or two labels, on which a training takes a second."""

import json

import numpy as np
import pytest
from PIL import Image

SETTINGS = (
    *("sampling.patch_size=[16, 16]", "sampling.batch_size=2", "network.features=[4, 8]"),
    *("network.strides=[[1, 1], [2, 2]]", "network.kernel_sizes=[[3, 3], [3, 3]]"),
    *("network.num_blocks_encoder=1", "network.num_blocks_decoder=1", "augmentation=[]"),
    *("training.epochs=3", "training.iterations_per_epoch=4", "training.validation_batches=1"),
    'training.optimizer={"kind": "adamw", "lr": 0.01}',
)


@pytest.fixture
def dataset(tmp_path):
    """Four pictures of a bright disk, in two folds."""
    folder = tmp_path / "disks"
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for number in range(4):
        rng = np.random.default_rng(number)
        y, x = np.mgrid[:24, :24]
        disk = (y - rng.uniform(8, 16)) ** 2 + (x - rng.uniform(8, 16)) ** 2 < 36
        image = 60 + 90 * disk + rng.normal(0, 10, disk.shape)
        Image.fromarray(image.astype(np.uint8)).save(folder / "imagesTr" / f"case_{number}_0000.png")
        Image.fromarray(disk.astype(np.uint8)).save(folder / "labelsTr" / f"case_{number}.png")
    description = {
        "channel_names": {"0": "gray"},
        "labels": {"background": 0, "disk": 1},
        "numTraining": 4,
        "file_ending": ".png",
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    folds = [
        {"train": ["case_0", "case_1"], "val": ["case_2", "case_3"]},
        {"train": ["case_2", "case_3"], "val": ["case_0", "case_1"]},
    ]
    (folder / "splits_final.json").write_text(json.dumps(folds))
    return folder
