"""Depthwise 2D convolution, with what stands around it in a network: GELU before, bias, identity and SiLU after.

    h = GELU(x) or x,    y[c] = weight[c] * h[c] + bias[c] (+ h[c]),    result = SiLU(y) or y

Odd square kernels, stride 1, zeros around the map. Maps that lie in memory with channels last are not copied.
"""

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from scanseg.errors import InputError
from scanseg.ops._support.contract import Expected, require_axes, require_shapes
from scanseg.ops._support.dispatch import Backend, choose
from scanseg.ops._support.triton import as_triton_backend
from scanseg.ops.depthwise.reference import depthwise_conv_pytorch
from scanseg.ops.depthwise.triton_backend import depthwise_conv_triton
from scanseg.ops.depthwise.triton_backend import refuses as _triton_refuses

__all__ = ["BACKENDS", "depthwise_conv"]

BACKENDS = {
    "triton": as_triton_backend(depthwise_conv_triton)._replace(refuses=_triton_refuses),
    "pytorch": Backend(depthwise_conv_pytorch),
}


def depthwise_conv(
    x: Float[Tensor, "batch channel height width"],
    weight: Float[Tensor, "channel 1 size size"],
    *,
    bias: Float[Tensor, " channel"] | None = None,
    input_activation: Literal["gelu"] | None = None,
    activation: Literal["silu"] | None = None,
    residual: bool = False,
    backend: str | None = None,
) -> Float[Tensor, "batch channel height width"]:
    """Convolve each channel of a map with its own kernel.

    Args:
        x: The map.
        weight: The kernels, of an odd size; in any precision.
        bias: Added to the convolution.
        input_activation: Applied to the map first.
        activation: Applied to the result.
        residual: Whether the map, after `input_activation`, is added to its convolution.
        backend: Name of the backend that must serve; None for the first that accepts.

    Returns:
        The result, in the dtype of `x` (under autocast with PyTorch: in that of the autocast).

    Raises:
        InputError: If shapes, dtypes or devices do not fit together, or the size of the kernels is even.
        UsageError: If the backend asked for is unknown or refuses.
    """
    require_axes("depthwise_conv", "x", x, "batch channel height width")
    require_axes("depthwise_conv", "weight", weight, "channel 1 size size")
    channels, size = x.shape[1], weight.shape[-1]
    expected = [
        Expected("x", x, "batch, channel, height, width", tuple(x.shape)),
        Expected("weight", weight, "channel, 1, size, size", (channels, 1, size, size)),
    ]
    if bias is not None:
        expected.append(Expected("bias", bias, "channel", (channels,)))
    require_shapes("depthwise_conv", *expected)
    if size % 2 == 0:
        raise InputError(f"depthwise_conv: kernels of size {size}; the size must be odd, as {size + 1}.")
    chosen = choose("depthwise_conv", BACKENDS, backend, x, weight, bias)
    return chosen.run(
        x, weight, bias, input_activation=input_activation, activation=activation, residual=residual
    )
