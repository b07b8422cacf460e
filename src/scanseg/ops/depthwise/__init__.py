"""Depthwise 2D convolution with optional GELU before and SiLU after.

    h = GELU(x) or x,    y[c] = weight[c] * h[c] + bias[c] (+ h[c]),    result = SiLU(y) or y

Kernels are odd squares, the stride is 1, and the map is padded with zeros. Maps that lie in memory with channels last
are not copied.
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
        weight: The kernels, of an odd size and any floating dtype.
        bias: Added to the convolution. `None`: no bias.
        input_activation: Activation of the map before the convolution. `None`: no activation.
        activation: Activation of the result. `None`: no activation.
        residual: Whether the map, after `input_activation`, is added to its convolution.
        backend: Name of the backend. `None`: the first one that accepts the call.

    Returns:
        The result, in the dtype of `x`, or that of autocast with the PyTorch backend.

    Raises:
        InputError: Shapes, dtypes or devices do not fit together, or the kernel size is even.
        UsageError: The backend is unknown or cannot run the call.

    Example:
        >>> import torch
        >>> from scanseg.ops import depthwise_conv
        >>> x, weight = torch.ones(1, 2, 5, 5), torch.ones(2, 1, 3, 3)
        >>> y = depthwise_conv(x, weight, residual=True)
        >>> y.shape, y[0, 0, 2, 2].item()
        (torch.Size([1, 2, 5, 5]), 10.0)
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
        raise InputError(
            f"depthwise_conv: expected kernels of an odd size, got {size}. Use an odd size such as {size + 1}."
        )
    chosen = choose("depthwise_conv", BACKENDS, backend, x, weight, bias)
    return chosen.run(
        x, weight, bias, input_activation=input_activation, activation=activation, residual=residual
    )
