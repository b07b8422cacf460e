"""Convolutions of 2D and 3D U-Nets: He-normal weights, instance norm, leaky ReLU."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

NEGATIVE_SLOPE = 0.01
# Explicit value types: mypy joins Conv2d and Conv3d to a base without constructor.
CONVOLUTIONS: Mapping[int, Callable[..., nn.Conv2d | nn.Conv3d]] = MappingProxyType(
    {2: nn.Conv2d, 3: nn.Conv3d}
)
TRANSPOSED: Mapping[int, Callable[..., nn.ConvTranspose2d | nn.ConvTranspose3d]] = MappingProxyType(
    {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
)
INSTANCE_NORMS: Mapping[int, Callable[..., nn.InstanceNorm2d | nn.InstanceNorm3d]] = MappingProxyType(
    {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
)


def convolution(
    in_channels: int,
    out_channels: int,
    *,
    kernel_size: Sequence[int],
    stride: Sequence[int] | None = None,
    bias: bool = True,
) -> nn.Module:
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


def instance_norm(num_channels: int, *, num_axes: int) -> nn.Module:
    """Return an instance norm with scale and bias (eps 1e-5) for maps of 2 or 3 axes.

    Args:
        num_channels: Channels of the map.
        num_axes: 2 or 3 spatial axes.
    """
    return INSTANCE_NORMS[num_axes](num_channels, eps=1e-5, affine=True)


def leaky_relu(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Apply LeakyReLU(0.01) in place, to the result of a norm or a sum: neither needs it for its gradient.

    Args:
        x: Any tensor; it is overwritten.
    """
    return F.leaky_relu(x, NEGATIVE_SLOPE, inplace=True)


class ConvNormAct(nn.Module):
    """Convolution, instance norm and, unless left out, leaky ReLU.

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
        self.norm = instance_norm(out_channels, num_axes=len(kernel_size))
        self.activation = activation

    def forward(
        self, x: Float[Tensor, "batch channel *space"]
    ) -> Float[Tensor, "batch out_channel *out_space"]:
        """Convolve, normalise, activate."""
        x = self.norm(self.conv(x))
        return leaky_relu(x) if self.activation else x


def _initialise(weight: Tensor, bias: Tensor | None) -> None:
    nn.init.kaiming_normal_(weight, a=NEGATIVE_SLOPE)
    if bias is not None:
        nn.init.zeros_(bias)
