"""Depthwise convolution in PyTorch, for any device and dtype."""

from torch import Tensor
from torch.nn import functional as F


def depthwise_conv_pytorch(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    input_activation: str | None,
    activation: str | None,
    residual: bool,
) -> Tensor:
    """Convolve each channel, with the arguments of `depthwise_conv`."""
    if input_activation == "gelu":
        x = F.gelu(x)
    padding = weight.shape[-1] // 2
    bias = None if bias is None else bias.to(x.dtype)
    y = F.conv2d(x, weight.to(x.dtype), bias, padding=padding, groups=x.shape[1])
    if residual:
        y = x + y
    return F.silu(y) if activation == "silu" else y
