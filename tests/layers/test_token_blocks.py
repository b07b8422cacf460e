import math

import pytest
import torch

from scanseg.layers import MambaBlock, SequenceLayer, ViLBlock
from scanseg.layers.causal_convolution import CausalConvolution
from scanseg.layers.vil_block import BlockDiagonalLinear

BLOCKS = {"vil": ViLBlock, "mamba": MambaBlock}


def _perturbed(block):
    """Perturb the weights, some of which start at zero, so that every path has an effect."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return block.double()


def _dependence(block, *, token, num_tokens=7, dim=8):
    x = torch.randn(1, num_tokens, dim, dtype=torch.float64, requires_grad=True)
    block(x)[0, token].sum().backward()
    return (x.grad.abs().sum(-1)[0] > 0).tolist()


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize(
    ("direction", "expected"),
    [
        ("forward", [True] * 4 + [False] * 3),
        ("backward", [False] * 3 + [True] * 4),
        ("bidirectional", [True] * 7),
    ],
)
def test_a_block_reads_the_tokens_of_its_direction(name, direction, expected):
    assert _dependence(_perturbed(BLOCKS[name](8, direction=direction)), token=3) == expected


@pytest.mark.parametrize("name", BLOCKS)
def test_backward_is_forward_on_the_flipped_sequence_and_bidirectional_their_mean(name):
    x = torch.randn(2, 9, 8, dtype=torch.float64)
    forward, backward, both = (
        _perturbed(BLOCKS[name](8, direction=direction))
        for direction in ("forward", "backward", "bidirectional")
    )
    backward.load_state_dict(forward.state_dict())
    both.load_state_dict(forward.state_dict())
    torch.testing.assert_close(backward(x), forward(x.flip(1)).flip(1))
    torch.testing.assert_close(both(x), (forward(x) + backward(x)) / 2)


def test_causal_convolution_sees_four_tokens_in_reading_order():
    layer = CausalConvolution(3)
    x = torch.randn(1, 9, 3, requires_grad=True)
    for reverse, expected in ((False, {2, 3, 4, 5}), (True, {5, 6, 7, 8})):
        x.grad = None
        layer(x, reverse=reverse)[0, 5].sum().backward()
        assert set(x.grad.abs().sum(-1)[0].nonzero().flatten().tolist()) == expected


@pytest.mark.parametrize("dim", [8, 6, 5])
def test_vil_starts_as_published(dim):
    torch.manual_seed(0)
    block, heads = ViLBlock(dim), 4 if dim % 4 == 0 else 2
    cell = block.cell
    assert cell.num_heads == heads
    torch.testing.assert_close(cell.fgate.bias.detach(), torch.linspace(3, 6, heads))
    for parameter in (cell.igate.weight, cell.fgate.weight, block.norm.weight, cell.outnorm.weight):
        assert (parameter == 0).all()
    assert cell.igate.bias.abs().max() < 0.6
    assert (block.learnable_skip == 1).all()
    assert block.q_proj.weight.shape == (2 * dim // heads, heads, heads)
    assert block(torch.randn(2, 3, dim)).shape == (2, 3, dim)


def test_vil_projections_start_with_the_published_spread():
    torch.manual_seed(0)
    block = ViLBlock(256)
    for projection in (block.proj_up, block.q_proj, block.k_proj, block.v_proj):
        assert projection.weight.std().item() == pytest.approx(math.sqrt(2 / (5 * 256)), rel=0.05)
    assert block.proj_down.weight.std().item() == pytest.approx(2 / math.sqrt(256), rel=0.05)


def test_block_diagonal_linear_mixes_contiguous_features_only():
    layer = BlockDiagonalLinear(12, 4).double()
    torch.nn.init.normal_(layer.weight)
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    expected = torch.einsum("boi,ntbi->ntbo", layer.weight, x.unflatten(-1, (3, 4))).flatten(-2)
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_under_autocast_stay_near_float32(name):
    block = _perturbed(BLOCKS[name](16)).float()
    x = torch.randn(2, 32, 16)
    exact = block(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = block(x)
    rounded.float().sum().backward()
    # bfloat16 keeps 8 bits: a chain of a dozen roundings; measured below 1e-2.
    assert (rounded.float() - exact).norm() < 0.05 * exact.norm()
    assert all(parameter.grad.isfinite().all() for parameter in block.parameters())


def test_gates_are_float32_under_autocast():
    cell = ViLBlock(16).cell
    q, k, v = torch.randn(3, 1, 8, 32).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        igate, fgate = cell._gates(q, k, v)
    assert igate.dtype == fgate.dtype == torch.float32
    assert igate.shape == (1, 4, 8)


@pytest.mark.parametrize("space", [(3, 4), (2, 3, 2)])
@pytest.mark.parametrize("tokens", ["voxel", "channel"])
def test_a_sequence_layer_keeps_the_shape_and_adds_its_block(space, tokens):
    channels = 6
    dim = channels if tokens == "voxel" else math.prod(space)
    block = _perturbed(ViLBlock(dim))
    x = torch.randn(2, channels, *space, dtype=torch.float64)
    sequence = x.flatten(2).mT if tokens == "voxel" else x.flatten(2)
    mixed = block(sequence)
    expected = x + (mixed.mT if tokens == "voxel" else mixed).reshape(x.shape)
    torch.testing.assert_close(SequenceLayer(block, tokens=tokens)(x), expected)
