"""Convolutions with kernels of one voxel as matrix products: what they are computed by on CUDA."""

import pytest
import torch

from scanseg.layers import convolution
from scanseg.layers.convolution import pointwise_product


@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (1, 1, 1), (1, 2, 2), (2, 2, 2)])
def test_is_the_convolution(generator, stride):
    layer = convolution(5, 7, kernel_size=(1,) * len(stride), stride=stride).double()
    bias = torch.randn(7, generator=generator, dtype=torch.float64)
    x = torch.randn(2, 5, *(6, 7, 8)[: len(stride)], generator=generator, dtype=torch.float64)
    layer.bias.data.copy_(bias)
    x.requires_grad_()
    expected = layer(x)
    grad = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    result = pointwise_product(layer, x, layer.bias)
    torch.testing.assert_close(result, expected)
    inputs = [x, layer.weight, layer.bias]
    for ours, theirs in zip(
        torch.autograd.grad(result, inputs, grad), torch.autograd.grad(expected, inputs, grad), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("stride", [1, 2])
def test_maps_and_gradients_keep_channels_last(generator, stride):
    layer = convolution(4, 6, kernel_size=(1, 1, 1), stride=(stride,) * 3)
    x = (
        torch.randn(2, 4, 6, 6, 8, generator=generator)
        .to(memory_format=torch.channels_last_3d)
        .requires_grad_()
    )
    result = pointwise_product(layer, x, None)
    assert result.is_contiguous(memory_format=torch.channels_last_3d)
    (grad,) = torch.autograd.grad(result, x, torch.ones_like(result))
    assert grad.is_contiguous(memory_format=torch.channels_last_3d)
