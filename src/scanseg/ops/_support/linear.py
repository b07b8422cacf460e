"""Matrix products of fused operators, on maps with channels last in memory."""

from collections.abc import Sequence

import torch
from torch import Tensor


def as_pixels(x: Tensor) -> Tensor:
    """Return a map as contiguous pixels (batch, y, x, channel)."""
    return x.permute(0, 2, 3, 1).contiguous()


def as_map(pixels: Tensor) -> Tensor:
    """Return pixels as a map (batch, channel, y, x)."""
    return pixels.permute(0, 3, 1, 2)


def as_rows(pixels: Tensor) -> Tensor:
    """Return contiguous pixels (batch, y, x, channel) as a matrix (pixel, channel)."""
    return pixels.view(-1, pixels.shape[-1])


def rows_of_map(x: Tensor) -> Tensor:
    """Return a map (batch, channel, y, x) as a matrix (pixel, channel).

    A map in channels-last memory is not copied.
    """
    if not x.is_contiguous(memory_format=torch.channels_last):
        x = x.contiguous(memory_format=torch.channels_last)
    batch, channels, height, width = x.shape
    return x.as_strided((batch * height * width, channels), (channels, 1))


def map_of_rows(rows: Tensor, shape: Sequence[int]) -> Tensor:
    """Return a contiguous matrix (pixel, channel) as a map.

    Args:
        rows: The matrix.
        shape: Batch, height and width, and others, which are ignored.
    """
    (batch, height, width), channels = shape[:3], rows.shape[1]
    return rows.as_strided(
        (batch, channels, height, width), (height * width * channels, 1, width * channels, channels)
    )


def as_dtype(weights: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Return weights in a dtype, converted by one kernel."""
    found = [weight if weight.dtype == dtype else torch.empty_like(weight, dtype=dtype) for weight in weights]
    sources = [weight for weight in weights if weight.dtype != dtype]
    if sources:
        targets = [new for new, weight in zip(found, weights, strict=True) if new is not weight]
        with torch.no_grad():
            torch._foreach_copy_(targets, sources)
    return found


def weight_gradient(grad: Tensor, rows: Tensor, weight: Tensor) -> Tensor:
    """Return the gradient of a weight (out_channel, ..., channel) of a product.

    It is computed in the dtype of the weight, also from 16-bit matrices.

    Args:
        grad: Gradient of the result, (pixel, out_channel).
        rows: Matrix that was multiplied, (pixel, channel).
        weight: The weight, which may have another dtype than the matrices.
    """
    if weight.dtype == grad.dtype:
        product = torch.mm(grad.t(), rows)
    elif grad.is_cuda and weight.dtype == torch.float32 and torch.version.cuda is not None:
        product = torch.mm(grad.t(), rows, out_dtype=torch.float32)
    else:
        product = torch.mm(grad.t().to(weight.dtype), rows.to(weight.dtype))
    return product.view(weight.shape)


def bias_gradient(grad: Tensor, bias: Tensor) -> Tensor:
    """Return the gradient of a bias that was added to every row."""
    return grad.sum(0, dtype=bias.dtype)
