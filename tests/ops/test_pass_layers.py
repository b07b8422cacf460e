"""Linear layers, convolutions and sums that read the converted parameters of a pass."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from scanseg.ops import convolve, linear, scaled_sum, weights_converted
from scanseg.ops._support.triton import INTERPRETED
from scanseg.ops.pass_layers import wanted_by_layer

pytest.importorskip("triton")
in_interpreter = pytest.mark.skipif(not INTERPRETED, reason="the kernel runs in Triton's interpreter")


def run(layer, function, x, *, converted):
    """Return the result and all gradients."""
    x = x.detach().requires_grad_()
    if converted:
        requests = [wanted_by_layer(layer.weight, layer.bias)]
        with weights_converted(layer, x, torch.float16, lambda: requests):
            y = function(x)
    else:
        with torch.autocast("cpu", dtype=torch.float16):
            y = function(x)
    parameters = [parameter for parameter in (layer.weight, layer.bias) if parameter is not None]
    return y, *torch.autograd.grad(
        y, (x, *parameters), torch.linspace(-1, 1, y.numel()).view_as(y).to(y.dtype)
    )


@in_interpreter
@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_is_as_under_autocast(generator, bias):
    layer = nn.Linear(7, 5, bias=bias)
    x = torch.randn(2, 3, 7, generator=generator)
    found = run(layer, lambda x: linear(x, layer.weight, layer.bias), x, converted=True)
    expected = run(layer, lambda x: F.linear(x, layer.weight, layer.bias), x, converted=False)
    for tensor, wanted in zip(found, expected, strict=True):
        assert tensor.dtype == wanted.dtype
        torch.testing.assert_close(tensor, wanted, atol=5e-3, rtol=5e-3)


@in_interpreter
@pytest.mark.parametrize("bias", [True, False])
def test_a_convolution_is_as_under_autocast(generator, bias):
    layer = nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=bias)
    x = torch.randn(2, 3, 8, 6, generator=generator)
    options = {"stride": (2, 2), "padding": (1, 1)}
    found = run(layer, lambda x: convolve(x, layer.weight, layer.bias, **options), x, converted=True)
    expected = run(layer, lambda x: F.conv2d(x, layer.weight, layer.bias, **options), x, converted=False)
    for tensor, wanted in zip(found, expected, strict=True):
        assert tensor.dtype == wanted.dtype
        torch.testing.assert_close(tensor, wanted, atol=5e-3, rtol=5e-3)


@in_interpreter
def test_frozen_parameters_get_no_gradient(generator):
    layer = nn.Linear(7, 5).requires_grad_(False)
    x = torch.randn(2, 7, generator=generator, requires_grad=True)
    with weights_converted(layer, x, torch.float16, lambda: [wanted_by_layer(layer.weight, layer.bias)]):
        linear(x, layer.weight, layer.bias).sum().backward()
    assert x.grad is not None
    assert layer.weight.grad is None


def test_outside_of_a_pass_they_are_pytorchs_own(generator):
    x, weight = torch.randn(2, 3, 4, 4, generator=generator), torch.randn(5, 3, 3, 3, generator=generator)
    convolved = convolve(x, weight, None, stride=(1, 1), padding=(1, 1))
    assert torch.equal(convolved, F.conv2d(x, weight, padding=1))
    matrix = torch.randn(5, 4, generator=generator)
    assert torch.equal(linear(x, matrix, None), F.linear(x, matrix))


def test_gradients_of_a_scaled_sum(generator):
    x, branch = (
        torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2)
    )
    scale = torch.tensor([0.0, 1.25], dtype=torch.float64)
    total = scaled_sum(x, branch, scale)
    torch.testing.assert_close(total, x + branch * scale.view(-1, 1, 1, 1))
    assert torch.autograd.gradcheck(lambda *maps: scaled_sum(*maps, scale), (x, branch))
    narrow = branch.detach().bfloat16().requires_grad_()
    scaled_sum(x.detach().float(), narrow, scale.float()).sum().backward()
    assert narrow.grad is not None
    assert torch.equal(narrow.grad[1], torch.full((3, 4, 4), 1.25, dtype=torch.bfloat16))
