"""The run in float16 counts numbers that are not finite."""

import json

import pytest
import torch

from benchmarks.fp16_run import faults, run_steps
from scanseg.batches.batches import Batch
from scanseg.networks import build_network
from scanseg.runtime import RunContext
from scanseg.specs import (
    AdamWSpec,
    TrainingSpec,
    XLSTMUNetSpec,
)
from scanseg.training.step import TrainingStep
from tests.factories import make_plan

SPEC = XLSTMUNetSpec(
    features=(4, 8), strides=((1, 1), (2, 2)), kernel_sizes=((3, 3),) * 2, num_blocks_encoder=1, variant="bot"
)


@pytest.fixture
def step():
    plan = make_plan(SPEC, patch_size=(8, 8), training=TrainingSpec(optimizer=AdamWSpec()))
    torch.manual_seed(0)
    network = build_network(SPEC, in_channels=1, num_classes=2, patch_size=(8, 8))
    return TrainingStep(plan, network, context=RunContext(device="cpu"), autocast_dtype=torch.float16)


def make_batch(iteration, factor=1.0):
    generator = torch.Generator().manual_seed(iteration)
    images = factor * torch.randn(2, 1, 8, 8, generator=generator)
    return Batch(images, (images[:, 0] > 0).to(torch.uint8))


def test_a_run_is_recorded_step_by_step(step):
    record = run_steps(step, make_batch, num_steps=8, lr=lambda done: 1e-3)

    assert json.loads(json.dumps(record)) == record
    assert record["all_losses_finite"]
    assert record["all_parameters_finite"]
    assert len(record["loss"]) == len(record["loss_scale"]) == len(record["nonfinite_gradients"]) == 8
    # A step whose gradients are not finite halves the scale, which begins at 65536.
    skipped = sum(count > 0 for count in record["nonfinite_gradients"])
    assert record["num_skipped_steps"] == skipped
    assert record["loss_scale"][-1] == 65536.0 / 2**skipped
    assert faults(record) == []


def test_numbers_that_are_not_finite_are_found(step):
    record = run_steps(
        step, lambda n: make_batch(n, torch.inf if n == 1 else 1.0), num_steps=3, lr=lambda done: 1e-3
    )

    assert record["loss"][1] is None
    assert not record["all_losses_finite"]
    assert record["nonfinite_gradients"][1] > 0
    assert record["all_parameters_finite"]
    assert faults(record) == ["1 losses are not finite"]


def test_a_scale_that_collapsed_and_many_skipped_steps_are_faults():
    record = {
        "num_steps": 1000,
        "all_losses_finite": True,
        "all_parameters_finite": True,
        "num_skipped_steps": 30,
        "lowest_loss_scale": 0.25,
        "loss": [1.0],
    }
    assert faults(record) == [
        "the scale of the loss fell to 0.25, below 1.0",
        "30 of 1000 steps were skipped",
    ]
