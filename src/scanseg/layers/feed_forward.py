"""The feed-forward part of a VSS block, plain or with several scales."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from scanseg.layers.channel_linear import ChannelLinear
from scanseg.ops import depthwise_conv


class FeedForward(nn.Module):
    """Two linear maps over channels with a GELU between, then depthwise convolutions of several sizes.

    Source: Chen et al. 2024, arXiv:2408.13735 (MS-FFN). h + sum_k DW_k(h) stands between GELU and the second
    map.

    Args:
        dim: Channels of the map.
        expansion: Hidden channels for each channel.
        kernels: Sizes of the depthwise convolutions, odd; empty for a plain feed-forward part.
    """

    def __init__(self, dim: int, *, expansion: int = 4, kernels: Sequence[int] = ()) -> None:
        super().__init__()
        self.fc1 = ChannelLinear(dim, expansion * dim)
        self.multi_scale = MultiScaleDepthwise(expansion * dim, kernels) if kernels else None
        self.fc2 = ChannelLinear(expansion * dim, dim)

    def forward(self, x: Float[Tensor, "batch dim y x"]) -> Float[Tensor, "batch dim y x"]:
        """Map the channels of every pixel, seeing its neighbours when there are kernels."""
        hidden = self.fc1(x)
        if self.multi_scale is None:
            return self.fc2(F.gelu(hidden))
        return self.fc2(self.multi_scale(hidden, input_activation="gelu"))


class MultiScaleDepthwise(nn.Module):
    """Add to a map the sum of its depthwise convolutions with kernels of several sizes (stride 1, no bias).

    Convolution is linear, so the kernels are padded to the largest and summed, and one convolution does the
    work of all. The identity is added apart from it: as a one in a 16-bit kernel it would swallow small
    weights.

    Args:
        dim: Channels of the map.
        kernels: Sizes of the convolutions, odd.
    """

    def __init__(self, dim: int, kernels: Sequence[int]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(dim, dim, size, padding=size // 2, groups=dim, bias=False) for size in kernels
        )
        self.largest = max(kernels)

    def forward(
        self, x: Float[Tensor, "batch dim y x"], *, input_activation: Literal["gelu"] | None = None
    ) -> Float[Tensor, "batch dim y x"]:
        """Add the convolutions to the map, after `input_activation` of it."""
        return depthwise_conv(x, self.merged_kernel(), input_activation=input_activation, residual=True)

    def merged_kernel(self) -> Float[Tensor, "dim 1 largest largest"]:
        """Return the one kernel that does what all kernels do together."""
        weights = [conv.get_parameter("weight") for conv in self.convs]
        margins = [(self.largest - weight.shape[-1]) // 2 for weight in weights]
        padded = [F.pad(weight, (margin,) * 4) for weight, margin in zip(weights, margins, strict=True)]
        return torch.stack(padded).sum(0)
