"""Upsampling by LKPE and by the methods that MSVM-UNet compares."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from scanseg.layers.channel_linear import ChannelLinear
from scanseg.layers.channel_norm import ChannelNorm
from scanseg.ops import Wanted, normed_depthwise_conv, wanted_by_normed_depthwise

UpsamplingMethod = Literal["lkpe", "patch-expand", "transposed-convolution", "bilinear"]


class Upsampling(nn.Module):
    """Upsampling of a 2D map by a whole factor, with channel norm.

    Source: Chen et al. 2024, arXiv:2408.13735 (LKPE, and FLKPE with factor 4). All methods end in the same norm.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        factor: Output pixels for each input pixel, per axis.
        method: `lkpe`: linear layer to factor^2 * out_channels, BatchNorm, ReLU, depthwise 3x3 convolution,
            rearrangement of channels to pixels. `patch-expand`: linear layer without bias, rearrangement.
            `transposed-convolution`: kernel and stride `factor`. `bilinear`: interpolation, 3x3 convolution.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, factor: int = 2, method: UpsamplingMethod = "lkpe"
    ) -> None:
        super().__init__()
        self.expand = METHODS[method](in_channels, out_channels, factor)
        self.norm = ChannelNorm(out_channels, factor=factor if method in CHANNELS_TO_PIXELS else 1)

    def forward(
        self, x: Float[Tensor, "batch channel y x"]
    ) -> Float[Tensor, "batch out_channel out_y out_x"]:
        """Upsample the map."""
        return self.norm(self.expand(x))


class NormedExpansion(nn.Sequential):
    """Linear layer over channels, BatchNorm, ReLU and depthwise 3x3 convolution.

    The last three are one operator.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the result.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        conv = nn.Conv2d(out_channels, out_channels, 3, padding=1, groups=out_channels)
        # Number 2 is the ReLU, which has no parameters.
        named = {"0": ChannelLinear(in_channels, out_channels), "1": nn.BatchNorm2d(out_channels), "3": conv}
        super().__init__(OrderedDict(named))

    def forward(self, x: Float[Tensor, "batch channel y x"]) -> Float[Tensor, "batch out_channel y x"]:
        """Expand the channels."""
        linear, norm, conv = self.children()
        assert isinstance(norm, nn.BatchNorm2d)
        if norm.training:
            norm.get_buffer("num_batches_tracked").add_(1)
        return normed_depthwise_conv(
            linear(x),
            conv.get_parameter("weight"),
            conv.get_parameter("bias"),
            norm_weight=norm.weight,
            norm_bias=norm.bias,
            running_mean=norm.get_buffer("running_mean"),
            running_var=norm.get_buffer("running_var"),
            momentum=norm.momentum if norm.training else None,
            eps=norm.eps,
        )

    def converted(self) -> tuple[Wanted, ...]:
        """Return the parameters that a pass of a network converts at once.

        The linear layer has requests of its own.
        """
        return wanted_by_normed_depthwise(self.get_parameter("3.weight"))


class Bilinear(nn.Module):
    """Bilinear interpolation by a whole factor, with half-pixel centres.

    Args:
        factor: Output pixels for each input pixel, per axis.
    """

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = float(factor)

    def forward(self, x: Float[Tensor, "batch channel y x"]) -> Float[Tensor, "batch channel out_y out_x"]:
        """Interpolate the map."""
        return F.interpolate(x, scale_factor=self.factor, mode="bilinear", align_corners=False)


def _lkpe(in_channels: int, out_channels: int, factor: int) -> nn.Module:
    return NormedExpansion(in_channels, out_channels * factor**2)


def _patch_expand(in_channels: int, out_channels: int, factor: int) -> nn.Module:
    return nn.Sequential(ChannelLinear(in_channels, out_channels * factor**2, bias=False))


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

CHANNELS_TO_PIXELS: frozenset[UpsamplingMethod] = frozenset({"lkpe", "patch-expand"})
"""Methods that return the new pixels as channels. The norm rearranges them."""
