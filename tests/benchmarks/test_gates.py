"""The checks before the times pass right results and refuse wrong ones."""

import pytest
import torch
from torch import nn

from benchmarks.gates import check_network, check_operator
from scanseg.ops.mlstm import mlstm


def cell_inputs(generator, dtype):
    shape = (1, 2, 30)
    q, k, v = ((torch.randn(*shape, 8, generator=generator) + 0.7).to(dtype) for _ in range(3))
    igate, fgate = (torch.randn(shape, generator=generator) for _ in range(2))
    return {"q": q, "k": k, "v": v, "igate": igate, "fgate": fgate + 3}


def reference(inputs):
    return mlstm(**inputs, backend="reference")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_right_operator_passes(generator, dtype):
    report = check_operator(
        lambda inputs: mlstm(**inputs),
        reference,
        cell_inputs(generator, dtype),
        grad_output=torch.randn(1, 2, 30, 8, generator=generator),
        tf32=False,
    )
    assert report.passed, report
    assert set(report.errors) == {"output", "d q", "d k", "d v", "d igate", "d fgate"}


class WrongGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return 1.01 * grad


def wrong_value(inputs):
    return mlstm(**inputs) * 1.001


def wrong_gradient(inputs):
    return mlstm(**{**inputs, "k": WrongGradient.apply(inputs["k"])})


def not_a_number(inputs):
    return mlstm(**inputs) * torch.nan


@pytest.mark.parametrize("operator", [wrong_value, wrong_gradient, not_a_number])
def test_a_wrong_operator_is_refused(generator, operator):
    report = check_operator(
        operator,
        reference,
        cell_inputs(generator, torch.float32),
        grad_output=torch.randn(1, 2, 30, 8, generator=generator),
        tf32=False,
    )
    assert not report.passed


class Biased(nn.Module):
    """Differs from itself in float64 by a part of the logits."""

    def __init__(self, bias):
        super().__init__()
        self.convolution, self.bias = nn.Conv2d(1, 2, 1), bias

    def forward(self, x):
        logits = self.convolution(x)
        return logits if x.dtype == torch.float64 else logits * (1 + self.bias)


@pytest.mark.parametrize(("bias", "passes"), [(0.0, True), (0.01, False), (float("nan"), False)])
def test_a_network_is_held_to_itself_in_float64(generator, bias, passes):
    images = torch.randn(2, 1, 8, 8, generator=generator)
    network = Biased(bias)
    report = check_network(network, images, autocast_dtype=torch.bfloat16)
    assert report.passed is passes
    assert "logits in bfloat16" in report.errors
    assert next(network.parameters()).dtype == torch.float32
    assert all(parameter.grad is None for parameter in network.parameters())
