"""Trainings that start from the weights of an encoder."""

import pytest
import torch
from safetensors.torch import load_file, save_file

import scanseg
from scanseg.errors import InputError, UsageError
from scanseg.networks import build_network
from scanseg.specs import Plan
from tests.factories import write_disks

OPTIONS = {"device": "cpu", "num_workers": 0}
SETTINGS = {
    "network.dims": [4, 8, 8, 8],
    "network.depths": [1, 1, 1, 1],
    "network.decoder_depth": 1,
    "training.epochs": 1,
    "training.frozen_encoder_epochs": 1,
    "preprocessing.slice_size": [32, 32],
    "sampling.patch_size": [32, 32],
}


@pytest.fixture
def plan(tmp_path):
    dataset = write_disks(tmp_path / "disks")
    made = scanseg.make_plan(dataset, recipe="msvm-unet", settings=SETTINGS, num_workers=0)
    path = tmp_path / "plan.json"
    path.write_text(made.to_json())
    return path


@pytest.fixture
def encoder(plan, tmp_path):
    read = Plan.read(plan)
    torch.manual_seed(5)
    network = build_network(
        read.network, in_channels=read.num_inputs, num_classes=2, patch_size=read.sampling.patch_size
    )
    save_file(network.encoder.state_dict(), tmp_path / "encoder.safetensors")
    return tmp_path / "encoder.safetensors"


def test_a_training_starts_from_the_weights_of_an_encoder(plan, encoder, tmp_path):
    result = scanseg.train(plan, tmp_path / "model", encoder_weights=encoder, **OPTIONS)
    assert result.epochs_done == 1
    weights = load_file(tmp_path / "model" / "model.safetensors")
    for name, expected in load_file(encoder).items():
        assert torch.equal(weights[f"encoder.{name}"], expected)
    assert str(encoder) in (tmp_path / "model" / "run.json").read_text()


def test_wrong_encoder_weights_are_refused_before_the_training(plan, encoder, tmp_path):
    with pytest.raises(UsageError, match="expected the network msvm-unet, got plain-unet"):
        scanseg.train(
            tmp_path / "disks", tmp_path / "other", recipe="plain-unet", encoder_weights=encoder, **OPTIONS
        )
    with pytest.raises(InputError, match=r"absent\.pth: no such file"):
        scanseg.train(plan, tmp_path / "other", encoder_weights=tmp_path / "absent.pth", **OPTIONS)
    with pytest.raises(UsageError, match="exclude each other"):
        scanseg.train(
            plan, tmp_path / "other", encoder_weights=encoder, initial_weights=tmp_path / "model", **OPTIONS
        )
    assert not (tmp_path / "other").exists()
