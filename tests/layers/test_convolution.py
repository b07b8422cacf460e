"""The methods for flat kernels and kernels of one voxel that CUDA devices use."""

import pytest
import torch

from scanseg.layers import convolution
from scanseg.layers.convolution import (
    convolve_before_norm,
    convolve_slices,
    convolve_without_bias,
    pointwise_product,
)


@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (1, 1, 1), (1, 2, 2), (2, 2, 2)])
def test_pointwise_product_equals_the_convolution(generator, stride):
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


def test_a_map_of_one_image_keeps_the_strides_of_channels_last(generator):
    """Convolutions read the strides of the batch too, and transpose a map if they are not those of the format."""
    layer = convolution(4, 6, kernel_size=(3, 3, 3)).to(memory_format=torch.channels_last_3d)
    x = torch.randn(1, 4, 6, 6, 8, generator=generator).to(memory_format=torch.channels_last_3d)
    expected = convolve_without_bias(layer, x)
    result = convolve_before_norm(layer, x)
    assert result.requires_grad
    assert result.stride() == expected.stride()
    torch.testing.assert_close(result, expected)


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


@pytest.mark.parametrize(
    ("kernel", "stride"), [((1, 3, 3), (1, 1, 1)), ((1, 3, 3), (2, 2, 2)), ((1, 1, 3), (1, 2, 1))]
)
def test_flat_kernels_are_convolved_slice_by_slice(generator, kernel, stride):
    layer = (
        convolution(3, 6, kernel_size=kernel, stride=stride).double().to(memory_format=torch.channels_last_3d)
    )
    layer.bias.data.copy_(torch.randn(6, generator=generator))
    x = torch.randn(2, 3, 6, 7, 8, generator=generator, dtype=torch.float64)
    x = x.to(memory_format=torch.channels_last_3d).requires_grad_()
    expected = layer(x)
    result = convolve_slices(layer, x, layer.bias)
    torch.testing.assert_close(result, expected)
    assert result.is_contiguous(memory_format=torch.channels_last_3d)
    grad = torch.randn_like(expected)
    inputs = [x, layer.weight, layer.bias]
    gradients = torch.autograd.grad(result, inputs, grad)
    for ours, theirs in zip(gradients, torch.autograd.grad(expected, inputs, grad), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert gradients[0].is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.filterwarnings("ignore:.*Profiler clears events:UserWarning")
def test_slices_are_not_copied(generator):
    x = torch.randn(2, 4, 6, 6, 8, generator=generator).to(memory_format=torch.channels_last_3d)
    layer = convolution(4, 6, kernel_size=(1, 3, 3)).to(memory_format=torch.channels_last_3d)
    with torch.profiler.profile() as profile:
        convolve_slices(layer, x, None)
    assert "aten::copy_" not in {event.key for event in profile.key_averages()}
