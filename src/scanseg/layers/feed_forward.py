"""Feed-forward part of a VSS block, plain or multi-scale."""

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from scanseg.layers.autocast import autocast_dtype
from scanseg.layers.channel_linear import ChannelLinear
from scanseg.ops import (
    BranchStart,
    Wanted,
    depthwise_conv,
    feed_forward,
    merged_kernel,
    wanted_by_feed_forward,
)


class FeedForward(nn.Module):
    """Two linear layers with a GELU and optional depthwise convolutions between.

    Source: Chen et al. 2024, arXiv:2408.13735 (MS-FFN). The convolutions of several sizes, h + sum_k DW_k(h), stand
    between the GELU and the second linear layer.

    Args:
        dim: Channels of the map.
        expansion: Hidden channels for each channel.
        kernels: Sizes of the depthwise convolutions, odd. Defaults to none, a plain feed-forward part.
    """

    def __init__(self, dim: int, *, expansion: int = 4, kernels: Sequence[int] = ()) -> None:
        super().__init__()
        self.fc1 = ChannelLinear(dim, expansion * dim)
        self.multi_scale = MultiScaleDepthwise(expansion * dim, kernels) if kernels else None
        self.fc2 = ChannelLinear(expansion * dim, dim)

    def forward(self, x: Float[Tensor, "batch dim y x"]) -> Float[Tensor, "batch dim y x"]:
        """Mix the channels of every pixel, and its surroundings if kernels exist."""
        hidden = self.fc1(x)
        if self.multi_scale is None:
            return self.fc2(F.gelu(hidden))
        return self.fc2(self.multi_scale(hidden, input_activation="gelu"))

    def converted(self) -> tuple[Wanted, ...]:
        """Return the parameters that a pass of a network converts at once."""
        assert self.fc1.bias is not None
        assert self.fc2.bias is not None
        kernels = () if self.multi_scale is None else self.multi_scale.kernels
        return wanted_by_feed_forward(self.fc1.weight, self.fc1.bias, self.fc2.weight, self.fc2.bias, kernels)

    def branch(
        self, start: BranchStart
    ) -> tuple[Float[Tensor, "batch dim y x"], Float[Tensor, "batch dim y x"]]:
        """Add the last branch, normalize and mix, by one operator.

        Returns:
            The sum of the map and the last branch, and the new branch.
        """
        assert self.fc1.bias is not None
        assert self.fc2.bias is not None
        return feed_forward(
            start,
            self.fc1.weight,
            bias1=self.fc1.bias,
            weight2=self.fc2.weight,
            bias2=self.fc2.bias,
            kernels=() if self.multi_scale is None else self.multi_scale.kernels,
            dtype=autocast_dtype(start.x),
        )


class MultiScaleDepthwise(nn.Module):
    """Sum of a map and its depthwise convolutions of several sizes.

    The convolutions have stride 1 and no bias. Convolution is linear, so the kernels are padded to the largest size
    and summed, and one convolution replaces all. The map itself is added separately: a one in a 16-bit kernel would
    absorb small weights.

    Args:
        dim: Channels of the map.
        kernels: Sizes of the convolutions, odd.
    """

    def __init__(self, dim: int, kernels: Sequence[int]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(dim, dim, size, padding=size // 2, groups=dim, bias=False) for size in kernels
        )

    def forward(
        self, x: Float[Tensor, "batch dim y x"], *, input_activation: Literal["gelu"] | None = None
    ) -> Float[Tensor, "batch dim y x"]:
        """Add the convolutions to the map.

        Args:
            x: The map.
            input_activation: Activation of the map before the sum. `None`: no activation.
        """
        return depthwise_conv(x, self.merged_kernel(), input_activation=input_activation, residual=True)

    def merged_kernel(self) -> Float[Tensor, "dim 1 largest largest"]:
        """Return the sum of all kernels, padded to the largest size."""
        return merged_kernel(self.kernels)

    @property
    def kernels(self) -> tuple[Float[Tensor, "dim 1 size size"], ...]:
        """The kernels of all convolutions."""
        return tuple(conv.get_parameter("weight") for conv in self.convs)
