"""Residual blocks of the U-Nets."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType

from jaxtyping import Float
from torch import Tensor, nn

from scanseg.layers.convolution import (
    NEGATIVE_SLOPE,
    ConvNormAct,
    convolution,
    convolve_before_norm,
    convolve_without_bias,
)
from scanseg.layers.instance_norm import InstanceNorm
from scanseg.layers.recomputation import recompute_between

AVERAGE_POOLS: Mapping[int, Callable[..., nn.Module]] = MappingProxyType({2: nn.AvgPool2d, 3: nn.AvgPool3d})


class BasicResBlock(nn.Module):
    """Two convolutions with instance norm and a 1x1 convolution as shortcut.

    Source: Chen et al. 2024, arXiv:2407.01530.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Kernel per axis, odd.
        stride: Stride per axis of the first convolution and of the shortcut. `None`: 1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: Sequence[int],
        stride: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        num_axes = len(kernel_size)
        self.conv1 = convolution(in_channels, out_channels, kernel_size=kernel_size, stride=stride)
        self.norm1 = InstanceNorm(out_channels)
        self.conv2 = convolution(out_channels, out_channels, kernel_size=kernel_size)
        self.norm2 = InstanceNorm(out_channels)
        self.shortcut = convolution(in_channels, out_channels, kernel_size=(1,) * num_axes, stride=stride)

    @property
    def recomputed_norm(self) -> InstanceNorm:
        """Norm with large results that the backward pass recomputes."""
        return self.norm1

    def forward(
        self, x: Float[Tensor, "batch channel *space"]
    ) -> Float[Tensor, "batch out_channel *out_space"]:
        """Apply the block."""
        y = recompute_between(
            convolve_before_norm(self.conv1, x),
            partial(self.norm1, negative_slope=NEGATIVE_SLOPE),
            partial(convolve_before_norm, self.conv2),
        )
        return self.norm2(
            y,
            residual=convolve_without_bias(self.shortcut, x),
            residual_bias=self.shortcut.bias,
            negative_slope=NEGATIVE_SLOPE,
        )


class BasicBlockD(nn.Module):
    """Two convolutions with instance norm, added to a shortcut of the input.

    Source: He et al. 2019, arXiv:1812.01187 (ResNet-D), as in nnU-Net's residual encoder, arXiv:2404.09556. In the
    shortcut, average pooling applies the stride, and a 1x1 convolution with norm changes the number of channels.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Kernel per axis, odd.
        stride: Stride per axis of the first convolution. `None`: 1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: Sequence[int],
        stride: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.conv1 = ConvNormAct(in_channels, out_channels, kernel_size=kernel_size, stride=stride)
        self.conv2 = ConvNormAct(out_channels, out_channels, kernel_size=kernel_size)
        num_axes = len(kernel_size)
        self.pool = (
            AVERAGE_POOLS[num_axes](tuple(stride))
            if stride is not None and max(stride) > 1
            else nn.Identity()
        )
        self.shortcut = (
            ConvNormAct(in_channels, out_channels, kernel_size=(1,) * num_axes, bias=False, activation=False)
            if in_channels != out_channels
            else nn.Identity()
        )

    @property
    def recomputed_norm(self) -> InstanceNorm:
        """Norm with large results that the backward pass recomputes."""
        return self.conv1.norm

    def forward(
        self, x: Float[Tensor, "batch channel *space"]
    ) -> Float[Tensor, "batch out_channel *out_space"]:
        """Apply the block."""
        y = recompute_between(self.conv1.convolve(x), self.conv1.normalize, self.conv2.convolve)
        return self.conv2.normalize(y, residual=self.shortcut(self.pool(x)))


def zero_init_residuals(network: nn.Module) -> None:
    """Initialize every `BasicBlockD` of a network as its shortcut alone.

    The scale of the last norm of each block is set to 0.
    """
    for block in network.modules():
        if isinstance(block, BasicBlockD):
            nn.init.zeros_(block.conv2.norm.weight)
