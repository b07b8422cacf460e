import math

import pytest
import torch
from torch.nn import functional as F

from scanseg.layers import SS2D, VSSBlock
from scanseg.layers.step_size import initial_step_bias


def test_a_pixel_reaches_every_other_in_one_layer():
    layer = SS2D(8).double()
    image = torch.zeros(1, 8, 5, 6, dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        image += torch.randn(image.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    layer(image)[0, :, 0, 0].sum().backward()
    assert (image.grad.abs().sum(1) > 0).all()


@pytest.mark.parametrize("state_size", [1, 4])
def test_parameters_have_the_shapes_and_first_values_of_the_paper(state_size):
    layer = SS2D(40, state_size=state_size)
    assert layer.x_proj_weight.shape == (4, 3 + 2 * state_size, 40)
    assert layer.dt_weight.shape == (4, 40, 3)
    assert layer.dt_weight.abs().max() <= 3**-0.5
    assert layer.D_skip.shape == (4, 40)
    assert (layer.D_skip == 1).all()
    expected = torch.log(torch.arange(1, state_size + 1).float()).expand(4, 40, -1)
    torch.testing.assert_close(layer.A_log.detach(), expected)
    assert layer.in_proj.bias is None
    assert layer.out_proj.bias is None
    assert layer.in_proj.weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_first_step_sizes_are_log_uniform_between_a_thousandth_and_a_tenth():
    step = F.softplus(initial_step_bias(4, 5000))
    assert step.min() >= 1e-3 - 1e-7
    assert step.max() <= 0.1 + 1e-5
    logs = step.log()
    # The mean of 20000 uniform draws is within 5 standard errors, 5 * 1.33 / sqrt(20000), of the middle.
    assert logs.mean().item() == pytest.approx(math.log(1e-2), abs=0.05)
    assert logs.std().item() == pytest.approx(math.log(100) / math.sqrt(12), rel=0.03)


def test_the_layout_in_memory_does_not_change_the_result():
    layer = SS2D(16).double()
    image = torch.randn(2, 16, 7, 4, dtype=torch.float64)
    torch.testing.assert_close(layer(image), layer(image.contiguous(memory_format=torch.channels_last)))


def test_autocast_keeps_the_scan_in_float32():
    layer = SS2D(16)
    image = torch.randn(1, 16, 8, 8)
    exact = layer(image)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = layer(image)
    assert rounded.dtype == torch.bfloat16
    # bfloat16 keeps 8 bits: a few roundings in a row; measured 4e-3.
    assert (rounded.float() - exact).norm() < 0.03 * exact.norm()


def test_a_vss_block_without_scan_sees_single_pixels_only():
    block = VSSBlock(8, scan=False)
    image = torch.randn(1, 8, 4, 4, requires_grad=True)
    block(image)[0, :, 0, 0].sum().backward()
    assert (image.grad.abs().sum(1) > 0).sum() == 1
    assert not any("scan" in name for name, _ in block.named_parameters())


def test_a_vss_block_drops_its_branches_only_while_it_trains():
    torch.manual_seed(0)
    block = VSSBlock(8, drop_path=0.99)
    image = torch.randn(64, 8, 2, 2)
    unchanged = (block(image) == image).flatten(1).all(1)
    assert unchanged.float().mean() > 0.8
    block.eval()
    assert not (block(image) == image).flatten(1).all(1).any()
