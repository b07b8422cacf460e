"""Every kind of network under all that a plan can ask of a training at once, on regions of partly annotated volumes."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import scanseg
from scanseg.imaging import read_image
from tests.factories import write_nested_ellipsoids

from .test_resuming import StoppedError

FLAT = ("sampling.patch_size=[16, 16]", "network.strides=[[1, 1], [2, 2]]")
SOLID = ("sampling.patch_size=[8, 16, 16]",)
KINDS = {
    "plain-unet": (
        *SOLID,
        *("network.features=[4, 8]", "network.strides=[[1, 1, 1], [2, 2, 2]]"),
        "network.kernel_sizes=[[3, 3, 3], [3, 3, 3]]",
        *("network.num_convs_encoder=[1, 1]", "network.num_convs_decoder=[1]"),
    ),
    "plain-unet-2d": (
        *FLAT,
        *("network.features=[4, 8]", "network.kernel_sizes=[[3, 3], [3, 3]]"),
        *("network.num_convs_encoder=[1, 1]", "network.num_convs_decoder=[1]"),
    ),
    "xlstm-unet-2d": (
        *FLAT,
        *("network.features=[4, 8]", "network.kernel_sizes=[[3, 3], [3, 3]]"),
        *("network.num_blocks_encoder=1", "network.num_blocks_decoder=1"),
    ),
    "dynunet": (
        *SOLID,
        *("network.features=[4, 8, 8]", "network.strides=[[1, 1, 1], [2, 2, 2], [2, 2, 2]]"),
        "network.kernel_sizes=[[3, 3, 3], [3, 3, 3], [3, 3, 3]]",
    ),
    "segresnet": (
        *SOLID,
        *("network.features=8", "network.blocks_encoder=[1, 1]", "network.blocks_decoder=[1]"),
    ),
    "msvm-unet": (
        *("preprocessing.slice_size=[32, 32]", "sampling.patch_size=[32, 32]"),
        *("network.dims=[8, 16, 16, 16]", "network.depths=[1, 1, 1, 1]", "network.decoder_depth=1"),
        *("training.iterations_per_epoch=4", "training.optimizer.lr=0.003"),
    ),
}
"""Recipe to what makes its network small."""
EVERYTHING = (
    *("sampling.batch_size=4", "training.accumulation_steps=2", "training.ema_decay=0.8"),
    *("training.epochs=4", "training.iterations_per_epoch=2", "training.validation_batches=2"),
    *("training.validate_every=1", "training.checkpoint_seconds=0", "training.case_storage=disk"),
    *("training.export=best", "training.score_both=true", 'training.early_stop={"patience_epochs": 9}'),
    *('training.loss.label_weights={"inner": 2}', "training.gradient_clip=1"),
    'training.optimizer={"kind": "adamw", "lr": 0.01}',
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Four partly annotated volumes with two regions."""
    return write_nested_ellipsoids(tmp_path_factory.mktemp("data") / "shells")


def stop_at(count):
    """A listener that ends a training at a step."""
    heard = []

    def progress(progress):
        heard.append(progress.task == "training")
        if sum(heard) == count:
            raise StoppedError

    return progress


@pytest.mark.parametrize("recipe", KINDS)
def test_a_network_goes_on_exactly_with_everything(dataset, tmp_path, recipe):
    def train(name, **options):
        settings = (*EVERYTHING, *KINDS[recipe])
        given = {"recipe": recipe, "settings": settings, "device": "cpu", "num_workers": 0, **options}
        return scanseg.train(dataset, tmp_path / name, store=tmp_path / "stores", **given)

    whole = train("whole", keep_predictions=True)
    with pytest.raises(StoppedError):
        train("pieces", progress=stop_at(5))
    train("pieces", resume=True)

    for name in ("model.safetensors", "last.safetensors"):
        ours, theirs = (load_file(tmp_path / folder / name) for folder in ("pieces", "whole"))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
        assert all(tensor.isfinite().all() for tensor in theirs.values())
    assert set(whole.scores) == {"whole", "inner"}
    lines = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert all(set(line["validation_dice"]) == {"whole", "inner"} for line in lines)
    run = json.loads((tmp_path / "whole" / "run.json").read_text())
    assert (run["exported"]["checkpoint"], run["exported"]["ema"]) == ("best", True)
    scanseg.load(tmp_path / "whole", device="cpu").predict_folder(dataset / "imagesTr", tmp_path / "out")
    found = read_image(tmp_path / "out" / "case_3.nii.gz").array
    assert set(np.unique(found)) <= {0, 1, 2}
