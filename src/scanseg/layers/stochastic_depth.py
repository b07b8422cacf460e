"""Stochastic depth: random omission of residual branches during training."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class StochasticDepth(nn.Module):
    """Zero random samples of a branch during training.

    The other samples are scaled by 1 / (1 - rate), which keeps the mean. In evaluation the input passes unchanged.
    Source: Huang et al. 2016, arXiv:1603.09382.

    Args:
        rate: Probability, in [0, 1), of zeroing a sample.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Float[Tensor, "batch *rest"]) -> Float[Tensor, "batch *rest"]:
        """Zero random samples of the batch during training."""
        scale = self.sample_scale(x)
        return x if scale is None else x * scale.to(x.dtype).view(-1, *(1,) * (x.ndim - 1))

    def sample_scale(self, x: Float[Tensor, "batch *rest"]) -> Float[Tensor, " batch"] | None:
        """Draw the factor of each sample of a batch.

        Returns:
            The factors, or `None` if all are 1 (in evaluation, or with rate 0).
        """
        if not self.training or self.rate == 0:
            return None
        keep = 1 - self.rate
        dtype = torch.promote_types(x.dtype, torch.float32)
        return x.new_empty(x.shape[0], dtype=dtype).bernoulli_(keep).div_(keep)

    def extra_repr(self) -> str:
        """Return the rate for the representation of the module."""
        return f"rate={self.rate:g}"
