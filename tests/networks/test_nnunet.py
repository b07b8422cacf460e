"""Test the U-Nets of nnU-Net."""

import torch

from scanseg.networks import ResidualUNet


def test_residual_blocks_begin_as_their_shortcuts_and_learn():
    torch.manual_seed(0)
    network = ResidualUNet(
        1, 2, strides=((1, 1), (2, 2)), num_blocks_encoder=(1, 2), features=(4, 8), deep_supervision=False
    )
    block = network.encoder[1][1]
    x = torch.randn(2, 8, 6, 6).relu()
    with torch.no_grad():
        torch.testing.assert_close(block(x), x)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        network(torch.randn(2, 1, 8, 8)).square().mean().backward()
        optimizer.step()
    assert block.conv2.norm.weight.abs().min() > 0
    assert block.conv1.conv.weight.grad.abs().max() > 0
