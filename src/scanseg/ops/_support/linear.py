"""Matrix products of fused operators: maps with channels last as matrices, weights in the dtype of the products."""

import torch
from torch import Tensor


def as_rows(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a map (batch, channel, y, x) as a matrix (pixel, channel) in memory order."""
    return x.permute(0, 2, 3, 1).contiguous().view(-1, x.shape[1]).to(dtype)


def as_map(rows: Tensor, x: Tensor) -> Tensor:
    """Return a matrix (pixel, channel) as a map with the batch and size of `x`."""
    batch, _, height, width = x.shape
    return rows.view(batch, height, width, -1).permute(0, 3, 1, 2)


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
    elif grad.is_cuda and weight.dtype == torch.float32:
        product = torch.mm(grad.t(), rows, out_dtype=torch.float32)
    else:
        product = torch.mm(grad.t().to(weight.dtype), rows.to(weight.dtype))
    return product.view(weight.shape)


def bias_gradient(grad: Tensor, bias: Tensor) -> Tensor:
    """Return the gradient of a bias that was added to every row."""
    return grad.sum(0, dtype=bias.dtype)
