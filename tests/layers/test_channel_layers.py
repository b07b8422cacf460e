import pytest
import torch
from torch import nn
from torch.nn import functional as F

from scanseg.layers import ChannelLinear, ChannelNorm
from scanseg.layers.feed_forward import FeedForward, MultiScaleDepthwise
from scanseg.layers.offset_norm import OffsetNorm
from scanseg.layers.stochastic_depth import StochasticDepth


@pytest.mark.parametrize("space", [(5, 4), (3, 4, 2)])
def test_channel_norm_makes_every_voxel_zero_mean_and_unit_variance(space):
    x = torch.randn(2, 16, *space, dtype=torch.float64) * 3 + 1
    y = ChannelNorm(16, eps=0.0).double()(x)
    torch.testing.assert_close(y.mean(1), torch.zeros(2, *space, dtype=torch.float64))
    torch.testing.assert_close(y.var(1, correction=0), torch.ones(2, *space, dtype=torch.float64))


def test_channel_linear_is_a_pointwise_convolution():
    layer = ChannelLinear(6, 10).double()
    nn.init.normal_(layer.bias)
    x = torch.randn(2, 6, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(layer(x), F.conv2d(x, layer.weight[:, :, None, None], layer.bias))


def test_channel_layers_take_a_channels_last_map_without_a_copy():
    x = torch.randn(2, 16, 4, 4).contiguous(memory_format=torch.channels_last)
    for layer in (ChannelNorm(16), ChannelLinear(16, 16)):
        assert layer(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("kernels", [(1, 3, 5), (3, 5, 7), (1, 3, 5, 7), (3,)])
def test_merged_kernel_equals_the_sum_of_the_convolutions(kernels):
    layer = MultiScaleDepthwise(6, kernels).double()
    x = torch.randn(2, 6, 9, 8, dtype=torch.float64)
    torch.testing.assert_close(layer(x), x + sum(conv(x) for conv in layer.convs))


def test_feed_forward_without_kernels_has_no_depthwise_convolution():
    assert {name for name, _ in FeedForward(4).named_parameters()} == {
        "fc1.weight",
        "fc1.bias",
        "fc2.weight",
        "fc2.bias",
    }


def test_offset_norm_scales_by_one_plus_its_weight_in_each_group():
    norm = OffsetNorm(8, num_groups=2, eps=1e-5).double()
    nn.init.normal_(norm.weight)
    x = torch.randn(3, 5, 8, dtype=torch.float64)
    expected = torch.cat([F.layer_norm(half, (4,), eps=1e-5) for half in x.chunk(2, -1)], -1) * (
        1 + norm.weight
    )
    torch.testing.assert_close(norm(x), expected)


def test_stochastic_depth_keeps_the_mean_and_drops_whole_samples():
    torch.manual_seed(0)
    layer = StochasticDepth(0.25)
    x = torch.ones(4000, 2, 3)
    y = layer(x)
    per_sample = y.flatten(1)
    assert (per_sample == per_sample[:, :1]).all()
    assert sorted(set(per_sample[:, 0].tolist())) == pytest.approx([0, 4 / 3])
    # 5 standard errors of a Bernoulli mean.
    assert per_sample.mean().item() == pytest.approx(1, abs=5 * (0.25 / 0.75 / 4000) ** 0.5)
    assert layer.eval()(x) is x
