"""Raising the resolution of a map: LKPE and the ways that MSVM-UNet compares it with."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from scanseg.layers.channel_linear import ChannelLinear
from scanseg.layers.channel_norm import ChannelNorm

UpsamplingMethod = Literal["lkpe", "patch-expand", "transposed-convolution", "bilinear"]


class Upsampling(nn.Module):
    """Raise the resolution of a 2D map by a whole factor, then normalise over channels.

    Source: Chen et al. 2024, arXiv:2408.13735 (LKPE; with factor 4, FLKPE). The compared ways end in the same
    norm.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        factor: Pixels out for each pixel in, per axis.
        method: `lkpe`: linear map to factor^2 * out_channels, BatchNorm, ReLU, depthwise 3x3 convolution,
            rearrange channels to pixels; `patch-expand`: linear map without bias, rearrange;
            `transposed-convolution`: kernel and stride `factor`; `bilinear`: interpolate, 3x3 convolution.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, factor: int = 2, method: UpsamplingMethod = "lkpe"
    ) -> None:
        super().__init__()
        self.expand = METHODS[method](in_channels, out_channels, factor)
        self.norm = ChannelNorm(out_channels)

    def forward(
        self, x: Float[Tensor, "batch channel y x"]
    ) -> Float[Tensor, "batch out_channel out_y out_x"]:
        """Raise the resolution."""
        return self.norm(self.expand(x))


class ChannelsToPixels(nn.Module):
    """Rearrange channels, split as (row offset, column offset, channel) with the first slowest, to pixels.

    Args:
        factor: Pixels out for each pixel in, per axis.
    """

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(
        self, x: Float[Tensor, "batch channel y x"]
    ) -> Float[Tensor, "batch out_channel out_y out_x"]:
        """Rearrange; the result is laid out with channels last."""
        p = self.factor
        tiles = x.permute(0, 2, 3, 1).unflatten(3, (p, p, -1))
        return tiles.transpose(2, 3).flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


class Bilinear(nn.Module):
    """Interpolate bilinearly by a whole factor (half-pixel centres).

    Args:
        factor: Pixels out for each pixel in, per axis.
    """

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = float(factor)

    def forward(self, x: Float[Tensor, "batch channel y x"]) -> Float[Tensor, "batch channel out_y out_x"]:
        """Interpolate."""
        return F.interpolate(x, scale_factor=self.factor, mode="bilinear", align_corners=False)


def _lkpe(in_channels: int, out_channels: int, factor: int) -> nn.Module:
    hidden = out_channels * factor**2
    return nn.Sequential(
        ChannelLinear(in_channels, hidden),
        nn.BatchNorm2d(hidden),
        nn.ReLU(inplace=True),
        nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden),
        ChannelsToPixels(factor),
    )


def _patch_expand(in_channels: int, out_channels: int, factor: int) -> nn.Module:
    return nn.Sequential(
        ChannelLinear(in_channels, out_channels * factor**2, bias=False), ChannelsToPixels(factor)
    )


def _transposed_convolution(in_channels: int, out_channels: int, factor: int) -> nn.Module:
    return nn.ConvTranspose2d(in_channels, out_channels, factor, stride=factor)


def _bilinear(in_channels: int, out_channels: int, factor: int) -> nn.Module:
    return nn.Sequential(Bilinear(factor), nn.Conv2d(in_channels, out_channels, 3, padding=1))


METHODS: Mapping[str, Callable[[int, int, int], nn.Module]] = MappingProxyType(
    {
        "lkpe": _lkpe,
        "patch-expand": _patch_expand,
        "transposed-convolution": _transposed_convolution,
        "bilinear": _bilinear,
    }
)
