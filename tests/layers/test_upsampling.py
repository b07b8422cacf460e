import pytest
import torch

from scanseg.layers import Upsampling
from scanseg.ops.channel_norm import channels_to_pixels


def test_channels_become_pixels_with_the_row_offset_slowest():
    p, c, h, w = 2, 3, 4, 5
    x = torch.randn(1, p * p * c, h, w)
    y = channels_to_pixels(x, p)
    assert y.shape == (1, c, h * p, w * p)
    for row in range(p):
        for column in range(p):
            first = (row * p + column) * c
            assert torch.equal(y[:, :, row::p, column::p], x[:, first : first + c])


@pytest.mark.parametrize("method", ["lkpe", "patch-expand", "transposed-convolution", "bilinear"])
@pytest.mark.parametrize("factor", [2, 4])
def test_every_method_raises_the_resolution_and_normalises_channels(method, factor):
    layer = Upsampling(8, 6, factor=factor, method=method)
    y = layer(torch.randn(2, 8, 3, 5))
    assert y.shape == (2, 6, 3 * factor, 5 * factor)
    torch.testing.assert_close(y.mean(1), torch.zeros(2, 3 * factor, 5 * factor), atol=1e-5, rtol=0)


def test_lkpe_sees_the_neighbours_that_patch_expand_does_not():
    seen = {}
    for method in ("lkpe", "patch-expand"):
        layer = Upsampling(4, 4, method=method).eval()
        x = torch.randn(1, 4, 5, 5, requires_grad=True)
        (layer(x)[0, :, 4:6, 4:6] * torch.arange(4.0)[:, None, None]).sum().backward()
        seen[method] = (x.grad.abs().sum(1) > 0).sum().item()
    assert seen == {"lkpe": 9, "patch-expand": 1}
