"""Convolutions of 2D and 3D U-Nets: He-normal weights, instance norm, leaky ReLU."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from scanseg.layers.instance_norm import InstanceNorm

NEGATIVE_SLOPE = 0.01
# Explicit value types: mypy joins Conv2d and Conv3d to a base without constructor.
CONVOLUTIONS: Mapping[int, Callable[..., nn.Conv2d | nn.Conv3d]] = MappingProxyType(
    {2: nn.Conv2d, 3: nn.Conv3d}
)
TRANSPOSED: Mapping[int, Callable[..., nn.ConvTranspose2d | nn.ConvTranspose3d]] = MappingProxyType(
    {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
)


def convolution(
    in_channels: int,
    out_channels: int,
    *,
    kernel_size: Sequence[int],
    stride: Sequence[int] | None = None,
    bias: bool = True,
) -> nn.Conv2d | nn.Conv3d:
    """Return a convolution that pads kernel // 2, with He-normal weights (a = 0.01) and zero bias.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Kernel per axis, odd; its length decides between 2D and 3D.
        stride: Stride per axis; None: 1.
        bias: Whether there is a bias.
    """
    layer = CONVOLUTIONS[len(kernel_size)](
        in_channels,
        out_channels,
        tuple(kernel_size),
        stride=tuple(stride) if stride is not None else 1,
        padding=tuple(size // 2 for size in kernel_size),
        bias=bias,
    )
    _initialise(layer.weight, layer.bias)
    return layer


def transposed_convolution(in_channels: int, out_channels: int, *, stride: Sequence[int]) -> nn.Module:
    """Return a transposed convolution whose kernel is its stride, with He-normal weights and zero bias.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Voxels out for each voxel in, per axis; its length decides between 2D and 3D.
    """
    layer = TRANSPOSED[len(stride)](in_channels, out_channels, tuple(stride), stride=tuple(stride))
    _initialise(layer.weight, layer.bias)
    return layer


def convolve_without_bias(
    layer: nn.Conv2d | nn.Conv3d, x: Float[Tensor, "batch channel *space"]
) -> Float[Tensor, "batch out_channel *out_space"]:
    """Convolve and leave the bias to the pass that follows: adding it would be one more pass over the map.

    Args:
        layer: The convolution.
        x: The map.
    """
    return _convolve(layer, x, None)


def convolve(
    layer: nn.Module, x: Float[Tensor, "batch channel *space"]
) -> Float[Tensor, "batch out_channel *out_space"]:
    """Convolve, as a call of the layer does; on CUDA flat kernels slice by slice, those of one voxel as a product.

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
    """Convolve with kernels of one voxel by a matrix product over the channels; the result has channels last.

    Args:
        layer: The convolution.
        x: The map.
        bias: Added, if any.
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
    """Convolve by kernels of one voxel along z as 2D convolutions of all slices; the result has channels last.

    With channels last the slices of a batch lie one behind the other: nothing is copied. For what is most probably such
    layers cuDNN falls to a generic 3D kernel in bfloat16: at 2x1x48x160x224 xLSTM-UNet Enc's forward took 65 ms in
    bfloat16 and 21 in float16 on an H100 (docs/experiments.md).

    Args:
        layer: The convolution, of kernel size 1 and padding 0 along z.
        x: The map, channels last.
        bias: Added, if any.
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
    """Convolve for an instance norm, which takes any bias away again: it is not added, and its gradient is 0.

    Computed, that gradient is rounding noise, and costs a pass over the map.

    Args:
        layer: The convolution.
        x: The map.
    """
    y = convolve_without_bias(layer, x)
    if layer.bias is None or not torch.is_grad_enabled():
        return y
    return _WithoutEffect.apply(y, layer.bias)


class _WithoutEffect(torch.autograd.Function):
    """Return the first argument; the gradient of the second is 0."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, parameter: Tensor) -> Tensor:
        ctx.shape, ctx.dtype = parameter.shape, parameter.dtype
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        return grads[0], grads[0].new_zeros(ctx.shape, dtype=ctx.dtype)


class ConvNormAct(nn.Module):
    """Convolution, instance norm, the sum with a shortcut if one is given and, unless left out, leaky ReLU.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Kernel per axis, odd.
        stride: Stride per axis; None: 1.
        bias: Whether the convolution has a bias.
        activation: Whether the leaky ReLU follows.
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
        """Convolve, normalise, add `residual`, activate."""
        return self.normalise(self.convolve(x), residual=residual)

    def convolve(
        self, x: Float[Tensor, "batch channel *space"]
    ) -> Float[Tensor, "batch out_channel *out_space"]:
        """Convolve: the first half of the layer."""
        return convolve_before_norm(self.conv, x)

    def normalise(
        self,
        y: Float[Tensor, "batch out_channel *out_space"],
        *,
        residual: Float[Tensor, "batch out_channel *out_space"] | None = None,
    ) -> Float[Tensor, "batch out_channel *out_space"]:
        """Normalise, add `residual`, activate: the second half of the layer."""
        return self.norm(y, residual=residual, negative_slope=self.negative_slope)


def _initialise(weight: Tensor, bias: Tensor | None) -> None:
    nn.init.kaiming_normal_(weight, a=NEGATIVE_SLOPE)
    if bias is not None:
        nn.init.zeros_(bias)
