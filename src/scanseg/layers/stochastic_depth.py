"""Stochastic depth: while training, a branch is left out for some samples of the batch."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class StochasticDepth(nn.Module):
    """Zero whole samples with a given rate while training, and scale the others so that the mean stays.

    Source: Huang et al. 2016, arXiv:1603.09382. In evaluation the input passes unchanged.

    Args:
        rate: Probability, in [0, 1), with which a sample is zeroed.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Float[Tensor, "batch *rest"]) -> Float[Tensor, "batch *rest"]:
        """Zero some samples of the batch while training."""
        scale = self.sample_scale(x)
        return x if scale is None else x * scale.to(x.dtype).view(-1, *(1,) * (x.ndim - 1))

    def sample_scale(self, x: Float[Tensor, "batch *rest"]) -> Float[Tensor, " batch"] | None:
        """Draw the factor of each sample of a batch; None where all are 1."""
        if not self.training or self.rate == 0:
            return None
        keep = 1 - self.rate
        dtype = torch.promote_types(x.dtype, torch.float32)
        return x.new_empty(x.shape[0], dtype=dtype).bernoulli_(keep) / keep

    def extra_repr(self) -> str:
        """Return the rate for the printed form of the module."""
        return f"rate={self.rate:g}"
