"""Nearest upsampling and concatenation by PyTorch's operators."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def upsample_join_pytorch(x: Tensor, skip: Tensor | None, factors: Sequence[int]) -> Tensor:
    """Interpolate and concatenate, with the arguments of `upsample_join`."""
    if max(factors) > 1:
        x = F.interpolate(x, scale_factor=[float(factor) for factor in factors], mode="nearest")
    return x if skip is None else torch.cat([x, skip], dim=1)
