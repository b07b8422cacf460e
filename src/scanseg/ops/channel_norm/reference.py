"""Norm over channels in PyTorch, for any device and dtype."""

import torch
from torch import Tensor
from torch.nn import functional as F


def channel_norm_pytorch(
    x: Tensor,
    added: Tensor | None,
    sample_scale: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    *,
    eps: float,
    dtype: torch.dtype | None,
    factor: int,
) -> tuple[Tensor, Tensor]:
    """Add a branch and normalize the sum.

    Arguments are those of `residual_channel_norm`, with the factor of `channel_norm`.
    """
    if added is not None:
        scaled = added
        if sample_scale is not None:
            scaled = added * sample_scale.to(added.dtype).view(-1, *(1,) * (x.ndim - 1))
        x = x + scaled
    rows = channels_to_pixels(x, factor).movedim(1, -1)
    if torch.promote_types(rows.dtype, weight.dtype) == rows.dtype:  # 16-bit parameters after a float32 scan
        weight, bias = weight.to(rows.dtype), bias.to(rows.dtype)
    normed = F.layer_norm(rows, weight.shape, weight, bias, eps).movedim(-1, 1)
    return x, normed if dtype is None else normed.to(dtype)


def channels_to_pixels(x: Tensor, factor: int) -> Tensor:
    """Rearrange channels of a map to pixels.

    Channels are split as (row offset, column offset, channel), the first one slowest.

    Args:
        x: A map (batch, factor^2 * channel, y, x).
        factor: Output pixels for each input pixel, per axis.

    Returns:
        The map (batch, channel, factor * y, factor * x), in memory with channels last. With factor 1, `x` itself.
    """
    if factor == 1:
        return x
    tiles = x.permute(0, 2, 3, 1).unflatten(3, (factor, factor, -1))
    return tiles.transpose(2, 3).flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)
