"""Nearest upsampling and concatenation, axis by axis."""

from collections.abc import Sequence

import torch
from torch import Tensor


def upsample_join_reference(x: Tensor, skip: Tensor | None, factors: Sequence[int]) -> Tensor:
    """Repeat and concatenate, with the arguments of `upsample_join`."""
    for axis, factor in enumerate(factors, start=2):
        x = x.repeat_interleave(factor, dim=axis)
    return x if skip is None else torch.cat([x, skip], dim=1)
