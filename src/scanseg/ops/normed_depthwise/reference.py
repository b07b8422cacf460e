"""Batch normalization, ReLU and depthwise convolution in PyTorch, for any device."""

from torch import Tensor
from torch.nn import functional as F


def normed_depthwise_conv_pytorch(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    *,
    momentum: float | None,
    eps: float,
) -> Tensor:
    """Normalize, rectify and convolve, with the arguments of `normed_depthwise_conv`."""
    training = momentum is not None
    normed = F.batch_norm(
        x,
        running_mean,
        running_var,
        norm_weight,
        norm_bias,
        training=training,
        momentum=momentum or 0.0,
        eps=eps,
    )
    rectified = F.relu(normed, inplace=True)
    weight, bias = weight.to(rectified.dtype), bias.to(rectified.dtype)
    return F.conv2d(rectified, weight, bias, padding=weight.shape[-1] // 2, groups=x.shape[1])
