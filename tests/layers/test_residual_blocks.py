import pytest
import torch
from torch import nn

from scanseg.layers import BasicBlockD, BasicResBlock, ConvNormAct, convolution, transposed_convolution


@pytest.mark.parametrize(("kernel", "stride"), [((3, 3), (2, 1)), ((1, 3, 3), (1, 2, 2))])
@pytest.mark.parametrize("block", [BasicResBlock, BasicBlockD, ConvNormAct])
def test_blocks_change_channels_and_resolution(block, kernel, stride):
    x = torch.randn(2, 3, *(8 for _ in kernel))
    y = block(3, 5, kernel_size=kernel, stride=stride)(x)
    assert y.shape == (2, 5, *(8 // step for step in stride))


@pytest.mark.parametrize("block", [BasicResBlock, BasicBlockD, ConvNormAct])
def test_blocks_do_not_write_into_their_input(block):
    x = torch.randn(1, 4, 6, 6)
    before = x.clone()
    block(4, 4, kernel_size=(3, 3))(x).sum().backward()
    assert torch.equal(x, before)


def test_basic_block_d_with_a_zero_last_scale_is_the_identity():
    block = BasicBlockD(4, 4, kernel_size=(3, 3))
    nn.init.zeros_(block.conv2.norm.weight)
    x = torch.randn(2, 4, 5, 5).abs()
    torch.testing.assert_close(block(x), x)


def test_convolutions_start_he_normal_without_bias():
    torch.manual_seed(0)
    layer = convolution(64, 64, kernel_size=(3, 3, 3))
    expected = (2 / (1 + 1e-4) / (64 * 27)) ** 0.5
    assert layer.weight.std().item() == pytest.approx(expected, rel=0.02)
    assert (layer.bias == 0).all()
    assert (transposed_convolution(4, 4, stride=(2, 2)).bias == 0).all()
