"""Convolutions of 2D and 3D U-Nets: He-normal weights, instance norm, leaky ReLU."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from scanseg.layers.instance_norm import InstanceNorm
from scanseg.ops import Wanted, wanted_by_layer
from scanseg.ops import convolve as convolve_map

NEGATIVE_SLOPE = 0.01
# Explicit value types: mypy joins Conv2d and Conv3d to a base without constructor.
CONVOLUTIONS: Mapping[int, Callable[..., nn.Conv2d | nn.Conv3d]] = MappingProxyType(
    {2: nn.Conv2d, 3: nn.Conv3d}
)
TRANSPOSED: Mapping[int, Callable[..., nn.ConvTranspose2d | nn.ConvTranspose3d]] = MappingProxyType(
    {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
)


class PlainConvolution(nn.Conv2d):
    """2D convolution with parameters that are converted once per pass.

    It has one group and pads with zeros.
    """

    def forward(
        self, input: Float[Tensor, "batch channel y x"]
    ) -> Float[Tensor, "batch out_channel out_y out_x"]:
        """Convolve a map."""
        assert isinstance(self.padding, tuple)
        return convolve_map(input, self.weight, self.bias, stride=self.stride, padding=self.padding)

    def converted(self) -> tuple[Wanted, ...]:
        """Return the parameters that a pass of a network converts at once."""
        return wanted_by_layer(self.weight, self.bias)


def convolution(
    in_channels: int,
    out_channels: int,
    *,
    kernel_size: Sequence[int],
    stride: Sequence[int] | None = None,
    bias: bool = True,
) -> nn.Conv2d | nn.Conv3d:
    """Create a padded 2D or 3D convolution with He-normal weights.

    The padding is kernel // 2, the weights are He-normal with a = 0.01, and the bias is zero.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Kernel per axis, odd. Its length decides between 2D and 3D.
        stride: Stride per axis. `None`: 1.
        bias: Whether the convolution has a bias.
    """
    layer = CONVOLUTIONS[len(kernel_size)](
        in_channels,
        out_channels,
        tuple(kernel_size),
        stride=tuple(stride) if stride is not None else 1,
        padding=tuple(size // 2 for size in kernel_size),
        bias=bias,
    )
    _initialize(layer.weight, layer.bias)
    return layer


def transposed_convolution(in_channels: int, out_channels: int, *, stride: Sequence[int]) -> nn.Module:
    """Create a transposed convolution with kernel size equal to its stride.

    The weights are He-normal with a = 0.01, and the bias is zero.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Output voxels for each input voxel, per axis. Its length decides between 2D and 3D.
    """
    layer = TRANSPOSED[len(stride)](in_channels, out_channels, tuple(stride), stride=tuple(stride))
    _initialize(layer.weight, layer.bias)
    return layer


def convolve_without_bias(
    layer: nn.Conv2d | nn.Conv3d, x: Float[Tensor, "batch channel *space"]
) -> Float[Tensor, "batch out_channel *out_space"]:
    """Convolve a map without adding the bias.

    The next operator adds the bias, which saves a pass over the map.

    Args:
        layer: The convolution.
        x: The map.
    """
    return _convolve(layer, x, None)


def convolve(
    layer: nn.Module, x: Float[Tensor, "batch channel *space"]
) -> Float[Tensor, "batch out_channel *out_space"]:
    """Convolve a map, like a call of the layer.

    On CUDA, kernels of one voxel become a matrix product, and kernels with size 1 along z are applied slice by slice.

    Args:
        layer: The convolution.
        x: The map.
    """
    assert isinstance(layer, nn.Conv2d | nn.Conv3d)
    return _convolve(layer, x, layer.bias)


def _convolve(layer: nn.Conv2d | nn.Conv3d, x: Tensor, bias: Tensor | None) -> Tensor:
    if x.is_cuda and max(layer.kernel_size) == 1:
        return pointwise_product(layer, x, bias)
    if x.is_cuda and isinstance(layer, nn.Conv3d) and layer.kernel_size[0] == 1:
        return convolve_slices(layer, x, bias)
    operator = F.conv2d if isinstance(layer, nn.Conv2d) else F.conv3d
    return operator(x, layer.weight, bias, stride=layer.stride, padding=layer.padding)


def pointwise_product(
    layer: nn.Conv2d | nn.Conv3d,
    x: Float[Tensor, "batch channel *space"],
    bias: Float[Tensor, " out_channel"] | None,
) -> Float[Tensor, "batch out_channel *out_space"]:
    """Convolve with kernels of one voxel by a matrix product over channels.

    Args:
        layer: The convolution.
        x: The map.
        bias: Added to the result. `None`: no bias.

    Returns:
        The result, in memory with channels last.
    """
    steps = tuple(slice(None, None, step) for step in layer.stride)
    # Sliced with channels last: the gradient of a slice is laid out as its input is indexed.
    voxels = x.movedim(1, -1)[(slice(None), *steps)]
    return F.linear(voxels, layer.weight.flatten(1), bias).movedim(-1, 1)


def convolve_slices(
    layer: nn.Conv3d,
    x: Float[Tensor, "batch channel z y x"],
    bias: Float[Tensor, " out_channel"] | None,
) -> Float[Tensor, "batch out_channel out_z out_y out_x"]:
    """Convolve all slices in 2D, for kernels with size 1 along z.

    With channels last the slices of a batch lie one behind the other, and nothing is copied. In bfloat16, cuDNN most
    probably uses a generic 3D kernel for such layers: at 2x1x48x160x224 the forward pass of xLSTM-UNet Enc took 65 ms
    in bfloat16 and 21 ms in float16 on an H100 (docs/experiments.md).

    Args:
        layer: The convolution, with kernel size 1 and padding 0 along z.
        x: The map, channels last.
        bias: Added to the result. `None`: no bias.

    Returns:
        The result, in memory with channels last.
    """
    # Sliced with channels last: the gradient of a slice is laid out as its input is indexed.
    slices = x.movedim(1, -1)[:, :: layer.stride[0]]
    batch, depth = slices.shape[:2]
    y = F.conv2d(
        slices.flatten(0, 1).movedim(-1, 1),
        layer.weight.squeeze(2),
        bias,
        stride=layer.stride[1:],
        padding=layer.padding[1:],
    )
    return y.movedim(1, -1).unflatten(0, (batch, depth)).movedim(-1, 1)


def convolve_before_norm(
    layer: nn.Conv2d | nn.Conv3d, x: Float[Tensor, "batch channel *space"]
) -> Float[Tensor, "batch out_channel *out_space"]:
    """Convolve a map for an instance norm, without the bias.

    The norm removes any bias, so the bias is not added and its gradient is set to 0. The computed gradient would be
    rounding noise, and it would cost a pass over the map.

    Args:
        layer: The convolution.
        x: The map.
    """
    y = convolve_without_bias(layer, x)
    if layer.bias is None or not torch.is_grad_enabled():
        return y
    return _WithoutEffect.apply(y, layer.bias)


class _WithoutEffect(torch.autograd.Function):
    """Identity of the first argument, with a zero gradient for the second."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, parameter: Tensor) -> Tensor:
        ctx.shape, ctx.dtype = parameter.shape, parameter.dtype
        # A slice keeps all strides. `view_as` changes that of a batch of one, and convolutions would transpose the map.
        return x[:]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        return grads[0], grads[0].new_zeros(ctx.shape, dtype=ctx.dtype)


class ConvNormAct(nn.Module):
    """Convolution, instance norm, optional residual sum and leaky ReLU.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Kernel per axis, odd.
        stride: Stride per axis. `None`: 1.
        bias: Whether the convolution has a bias.
        activation: Whether a leaky ReLU follows.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: Sequence[int],
        stride: Sequence[int] | None = None,
        bias: bool = True,
        activation: bool = True,
    ) -> None:
        super().__init__()
        self.conv = convolution(in_channels, out_channels, kernel_size=kernel_size, stride=stride, bias=bias)
        self.norm = InstanceNorm(out_channels)
        self.negative_slope = NEGATIVE_SLOPE if activation else None

    def forward(
        self,
        x: Float[Tensor, "batch channel *space"],
        *,
        residual: Float[Tensor, "batch out_channel *out_space"] | None = None,
    ) -> Float[Tensor, "batch out_channel *out_space"]:
        """Convolve, normalize, add the residual and activate.

        Args:
            x: The map.
            residual: Added before the activation. `None`: nothing is added.
        """
        return self.normalize(self.convolve(x), residual=residual)

    def convolve(
        self, x: Float[Tensor, "batch channel *space"]
    ) -> Float[Tensor, "batch out_channel *out_space"]:
        """Apply the convolution, the first half of the layer."""
        return convolve_before_norm(self.conv, x)

    def normalize(
        self,
        y: Float[Tensor, "batch out_channel *out_space"],
        *,
        residual: Float[Tensor, "batch out_channel *out_space"] | None = None,
    ) -> Float[Tensor, "batch out_channel *out_space"]:
        """Normalize, add the residual and activate, the second half of the layer.

        Args:
            y: The result of `convolve`.
            residual: Added before the activation. `None`: nothing is added.
        """
        return self.norm(y, residual=residual, negative_slope=self.negative_slope)


def _initialize(weight: Tensor, bias: Tensor | None) -> None:
    nn.init.kaiming_normal_(weight, a=NEGATIVE_SLOPE)
    if bias is not None:
        nn.init.zeros_(bias)
