"""The start of a residual branch by separate operators."""

import torch
from torch import Tensor

from scanseg.ops._support.branch import BranchStart
from scanseg.ops.channel_norm import channel_norm, residual_channel_norm


def start_branch(start: BranchStart, *, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the sum, and the input of the new branch."""
    x, added, sample_scale, weight, bias = start
    if weight is None or bias is None:
        return x, x
    if added is None:
        return x, channel_norm(x, weight, bias, eps=eps, dtype=dtype)
    return residual_channel_norm(x, added, weight, bias, sample_scale=sample_scale, eps=eps, dtype=dtype)
