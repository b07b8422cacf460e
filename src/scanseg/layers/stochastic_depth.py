"""Stochastic depth: while training, a branch is left out for some samples of the batch."""

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
        if not self.training or self.rate == 0:
            return x
        keep = 1 - self.rate
        mask = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep)
        return x * (mask / keep)

    def extra_repr(self) -> str:
        """Return the rate for the printed form of the module."""
        return f"rate={self.rate:g}"
