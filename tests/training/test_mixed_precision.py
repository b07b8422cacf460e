"""Training in 16 bits: both networks stay finite, also with gates that break the published form of the mLSTM."""

import math

import pytest
import torch
import torch.nn.functional as F

from scanseg.networks import build_network
from scanseg.ops.mlstm import BACKENDS as MLSTM_BACKENDS
from scanseg.ops.mlstm import mlstm
from scanseg.ops.ss2d import BACKENDS as SS2D_BACKENDS
from scanseg.ops.ss2d import ss2d_scan
from scanseg.runtime import RunContext
from scanseg.specs import (
    AdamWSpec,
    MSVMUNetSpec,
    TrainingSpec,
    XLSTMUNetSpec,
)
from scanseg.training.step import TrainingStep
from tests.factories import make_plan, make_square_batch

STAGES = {"features": (4, 8, 12), "strides": ((1, 1), (2, 2), (2, 2)), "kernel_sizes": ((3, 3),) * 3}
SPECS = {
    "xlstm-enc": (XLSTMUNetSpec(**STAGES, num_blocks_encoder=1), 16),
    "xlstm-bot": (XLSTMUNetSpec(**STAGES, num_blocks_encoder=1, variant="bot"), 16),
    "msvm": (MSVMUNetSpec(dims=(8, 16, 24, 32), depths=(1, 1, 1, 1), decoder_depth=1), 64),
}
HALVES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
BREAKING_GATES = {
    # m < -88: exp(-m) of the published form overflows in float32, and its gradients are NaN.
    "very negative input gates": (-120.0, 4.0),
    "beyond float16's exponents": (-14.0, 4.0),
    "very positive input gates": (200.0, 4.0),
    "closed forget gates": (0.0, -300.0),
    "open forget gates": (5.0, 300.0),
    "all closed": (-500.0, -500.0),
}


def make_step(name, dtype):
    spec, size = SPECS[name]
    plan = make_plan(spec, patch_size=(size, size), training=TrainingSpec(optimizer=AdamWSpec()))
    torch.manual_seed(0)
    network = build_network(spec, in_channels=1, num_classes=2, patch_size=(size, size))
    return TrainingStep(plan, network, context=RunContext(device="cpu"), autocast_dtype=dtype), size


def is_finite(step):
    return all(parameter.isfinite().all() for parameter in step.network.parameters())


@HALVES
@pytest.mark.parametrize("name", SPECS)
def test_both_networks_train_in_16_bits(name, dtype):
    step, size = make_step(name, dtype)

    losses = [float(step.run(make_square_batch(size, iteration), lr=3e-3)) for iteration in range(12)]

    assert all(math.isfinite(loss) for loss in losses)
    assert sum(losses[-3:]) < sum(losses[:3])
    assert is_finite(step)


@HALVES
def test_a_network_whose_gates_break_the_published_form_trains(dtype):
    step, size = make_step("xlstm-bot", dtype)
    biases = [p for n, p in step.network.named_parameters() if n.endswith("igate.bias")]
    assert biases
    with torch.no_grad():
        for bias in biases:
            bias.fill_(-150.0)

    losses = [float(step.run(make_square_batch(size, iteration), lr=1e-3)) for iteration in range(12)]

    assert all(math.isfinite(loss) for loss in losses)
    assert is_finite(step)
    # The scale falls by half in each of the first steps in float16, until the gradients fit; here it has settled.
    assert dtype == torch.bfloat16 or step.loss_scale >= 2.0**8
    assert all(p.grad.isfinite().all() for p in step.network.parameters() if p.grad is not None)


def cell_inputs(generator, gates, dtype, *, token=70):
    igate, fgate = gates
    shape = (1, 1, token)
    # Of positive mean: else a row sum may be so near 0 that the true gradients are beyond float16.
    q, k = ((0.5 * torch.randn(*shape, 8, generator=generator) + 1).to(dtype) for _ in range(2))
    v = torch.randn(*shape, 8, generator=generator).to(dtype)
    return {
        "q": q,
        "k": k,
        "v": v,
        "igate": (igate + torch.randn(shape, generator=generator)).to(dtype),
        "fgate": (fgate + torch.randn(shape, generator=generator)).to(dtype),
    }


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16], ids=["fp32", "bf16", "fp16"]
)
@pytest.mark.parametrize("backend", MLSTM_BACKENDS)
@pytest.mark.parametrize("gates", BREAKING_GATES.values(), ids=BREAKING_GATES)
def test_gates_that_break_the_published_form_stay_finite(generator, backend, gates, dtype):
    inputs = {name: x.requires_grad_() for name, x in cell_inputs(generator, gates, dtype).items()}

    h = mlstm(**inputs, backend=backend)
    gradients = torch.autograd.grad(h, list(inputs.values()), torch.ones_like(h))

    assert h.isfinite().all()
    for name, gradient in zip(inputs, gradients, strict=True):
        assert gradient.isfinite().all(), name


def test_the_published_form_breaks_there(generator):
    """The test above has a reason: the formula as published gives NaN gradients where m < -88."""
    inputs = cell_inputs(generator, BREAKING_GATES["very negative input gates"], torch.float32)
    q, k, v, igate, fgate = (x.requires_grad_() for x in inputs.values())
    token, dim = q.shape[2:]
    total = F.logsigmoid(fgate).cumsum(-1)
    read = torch.ones(token, token, dtype=torch.bool).tril()
    D = (total[..., :, None] - total[..., None, :] + igate[..., None, :]).masked_fill(~read, -math.inf)
    m = D.amax(-1, keepdim=True)
    weights = (q @ k.mT / math.sqrt(dim)) * torch.exp(D - m)
    h = weights @ v / (torch.maximum(weights.sum(-1, keepdim=True).abs(), torch.exp(-m)) + 1e-6)

    gradients = torch.autograd.grad(h, [q, k, v, igate, fgate], torch.ones_like(h))

    assert h.isfinite().all()
    assert not all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16], ids=["fp32", "bf16", "fp16"]
)
@pytest.mark.parametrize("backend", SS2D_BACKENDS)
@pytest.mark.parametrize("bias", [-300.0, -20.0, 20.0, 300.0])
def test_any_step_size_of_the_scan_stays_finite(generator, backend, bias, dtype):
    normal = lambda *size: torch.randn(size, generator=generator)  # noqa: E731
    inputs = {
        "x": normal(1, 4, 5, 6).to(dtype),
        "projected": normal(1, 4, 4, 5, 6).to(dtype),
        "dt_weight": normal(4, 4, 2),
        "dt_bias": torch.full((4, 4), bias),
        "A_log": torch.zeros(4, 4, 1),
        "D_skip": torch.ones(4, 4),
    }
    leaves = {name: tensor.requires_grad_() for name, tensor in inputs.items()}

    y = ss2d_scan(**leaves, backend=backend)
    gradients = torch.autograd.grad(y, list(leaves.values()), torch.ones_like(y))

    assert y.isfinite().all()
    for name, gradient in zip(leaves, gradients, strict=True):
        assert gradient.isfinite().all(), name
