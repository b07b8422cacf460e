"""An encoder that came with weights rests for some epochs."""

import pytest
import torch
from safetensors.torch import load_file

import scanseg
from scanseg.errors import UsageError

OPTIONS = {"device": "cpu", "num_workers": 0}
SETTINGS = (
    'training.optimizer={"kind": "adamw", "lr": 0.01}',
    "training.checkpoint_seconds=0",
)


class StoppedError(Exception):
    """Stands for a process that is killed."""


def train(plan, model, *, epochs, frozen):
    settings = (*SETTINGS, f"training.frozen_encoder_epochs={frozen}")
    scanseg.train(plan, model, epochs=epochs, settings=settings, **OPTIONS)
    return load_file(model / "model.safetensors")


def parts(weights):
    encoder = {name for name in weights if name.startswith(("encoder.", "sequence_layers.", "bottleneck."))}
    return encoder, set(weights) - encoder


def equal(one, other, names):
    return all(torch.equal(one[name], other[name]) for name in names)


def test_the_encoder_rests_and_then_learns(plan, tmp_path):
    after_one = train(plan, tmp_path / "one", epochs=1, frozen=1)
    after_two = train(plan, tmp_path / "two", epochs=2, frozen=2)
    free = train(plan, tmp_path / "free", epochs=2, frozen=1)
    encoder, others = parts(after_one)
    assert encoder
    assert others

    # Decay moves weights even where gradients are zero: equality says that the optimizer leaves them alone.
    assert equal(after_one, after_two, encoder)
    assert not equal(after_one, after_two, others)
    assert not equal(after_one, free, encoder)


def test_a_training_that_goes_on_keeps_resting(plan, tmp_path):
    settings = (*SETTINGS, "training.frozen_encoder_epochs=1")
    whole = tmp_path / "whole"
    scanseg.train(plan, whole, settings=settings, **OPTIONS)

    def stop(progress):
        if progress.task == "training" and progress.done == 2:
            raise StoppedError

    cut = tmp_path / "cut"
    with pytest.raises(StoppedError):
        scanseg.train(plan, cut, settings=settings, progress=stop, **OPTIONS)
    scanseg.train(plan, cut, resume=True, **OPTIONS)

    names = load_file(whole / "model.safetensors")
    assert equal(names, load_file(cut / "model.safetensors"), names)


def test_a_network_without_an_encoder_apart_is_refused(dataset, tmp_path):
    pytest.importorskip("monai", reason='pip install "scanseg[baselines]"')
    settings = (
        "training.frozen_encoder_epochs=1",
        "training.iterations_per_epoch=1",
        "sampling.batch_size=2",
    )
    with pytest.raises(UsageError, match="segresnet has no separate encoder"):
        scanseg.train(
            dataset,
            tmp_path / "model",
            recipe="segresnet",
            settings=(*settings, "network.features=8"),
            **OPTIONS,
        )
