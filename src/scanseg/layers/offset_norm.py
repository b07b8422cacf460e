"""Layer norm with a scale stored as its difference from one."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class OffsetNorm(nn.Module):
    """Layer norm of feature groups without bias, scaled by 1 + weight.

    Source: Beck et al. 2024, arXiv:2405.04517, as in its public code.

    Args:
        dim: Size of the last axis.
        num_groups: Number of contiguous, equal groups of the last axis, each normalized separately (the heads of an
            mLSTM).
        eps: Added to the variance.
    """

    def __init__(self, dim: int, *, num_groups: int = 1, eps: float = 1e-5) -> None:
        super().__init__()
        self.num_groups = num_groups
        self.eps = eps
        self.weight = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """Normalize each group of features and scale."""
        if self.num_groups == 1:
            return F.layer_norm(x, self.weight.shape, 1 + self.weight, None, self.eps)
        grouped = x.unflatten(-1, (self.num_groups, -1))
        normed = F.layer_norm(grouped, grouped.shape[-1:], eps=self.eps).flatten(-2)
        return normed * (1 + self.weight)
