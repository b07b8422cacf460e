"""These tests cover models in the formats of other programs.

Their fixtures write model folders of small networks with random weights, and images.
"""

import logging

import numpy as np
import pytest
import torch

from scanseg.models import ModelFolder
from scanseg.specs import (
    CTNormalization,
    DatasetSpec,
    InferenceSpec,
    MSVMUNetSpec,
    SamplingSpec,
    XLSTMUNetSpec,
    ZScoreNormalization,
)
from tests.factories import make_plan, plain_unet, write_picture, write_volume

STAGES = {"features": (4, 8, 12), "num_blocks_encoder": 1, "num_blocks_decoder": 1}
"""Three stages of an xLSTM-UNet."""
NETWORKS = {
    "msvm-unet": (MSVMUNetSpec(dims=(8, 16, 24, 32), depths=(1, 1, 1, 1), decoder_depth=1), (64, 64)),
    "xlstm-unet-2d": (
        XLSTMUNetSpec(variant="enc", strides=((1, 1), (2, 2), (2, 2)), kernel_sizes=((3, 3),) * 3, **STAGES),
        (32, 32),
    ),
    "xlstm-unet-3d": (
        XLSTMUNetSpec(
            variant="bot", strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)), kernel_sizes=((3, 3, 3),) * 3, **STAGES
        ),
        (8, 16, 16),
    ),
    "plain-2d": (plain_unet(2), (16, 16)),
    "plain-3d": (plain_unet(3), (8, 16, 16)),
}
"""Both families and nnU-Net's plain U-Net, with the size of their windows."""


@pytest.fixture(autouse=True)
def _without_trace(monkeypatch):
    """Switch off the records of torch's tracer, which pytest would collect for minutes."""
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "disabled", True)


def plan_of(name, **fields):
    """Return the plan of a network for pictures, or for volumes that are resampled."""
    network, patch = NETWORKS[name]
    is_flat = len(patch) == 2
    dataset = DatasetSpec(
        name="noise",
        channel_names=("gray",) if is_flat else ("CT",),
        labels={"background": 0, "first": 1, "second": 2},
        file_ending=".png" if is_flat else ".nii.gz",
    )
    volumes = {
        "spacing": (2.5, 1.0, 1.0),
        "normalizations": (CTNormalization(mean=100.0, standard_deviation=50.0, lower=0.0, upper=200.0),),
    }
    default = {
        "dataset": dataset,
        "preprocessing": {"normalizations": (ZScoreNormalization(),)} if is_flat else volumes,
        "inference": InferenceSpec(window_batch=2, mirror_axes=(0, 1)),
        "sampling": SamplingSpec(patch_size=patch, batch_size=2),
    }
    return make_plan(network, patch_size=patch, **(default | fields))


def write_model(path, plan, *, seed=0):
    """Write a model folder with random weights."""
    torch.manual_seed(seed)
    folder = ModelFolder.create(path, plan)
    weights = folder.build_network().state_dict()
    # Trained networks have larger differences between labels than new ones.
    folder.write_weights(
        {name: tensor * 1.5 if tensor.ndim > 1 else tensor for name, tensor in weights.items()}
    )
    return path


def write_images(folder, *, num_axes):
    """Write two images of smooth noise: pictures, or volumes of another spacing than the plan's."""
    rng = np.random.default_rng(0)
    for number in range(2):
        if num_axes == 2:
            write_picture(folder / f"case_{number}.png", 60 * rng.random((70 + number, 80)) + np.arange(80))
        else:
            volume = (200 * rng.random((11, 30 + number, 26))).astype(np.int16)
            write_volume(folder / f"case_{number}.nii.gz", volume, (3.0, 0.8, 0.9))
    return folder


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """Folders of images by their number of axes."""
    return {axes: write_images(tmp_path_factory.mktemp(f"images-{axes}d"), num_axes=axes) for axes in (2, 3)}
