"""Stochastic depth: random omission of residual branches during training."""

from collections.abc import Sequence

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


class SharedDraws(nn.Module):
    """Random factors of stochastic depth for many branches, drawn at once.

    Single draws take two launches for each branch, and are as many as branches. A compiled network draws the same
    numbers as one outside of `torch.compile` if inductor's `fallback_random` is set.

    Args:
        rates: Rates of the branches.
    """

    keep: Tensor

    def __init__(self, rates: Sequence[float]) -> None:
        super().__init__()
        self.rates = tuple(rates)
        keep = torch.tensor([1 - rate for rate in rates if rate > 0]).view(-1, 1)
        self.register_buffer("keep", keep, persistent=False)

    def forward(
        self, depths: Sequence[StochasticDepth], x: Float[Tensor, "batch *rest"]
    ) -> list[Float[Tensor, " batch"] | None]:
        """Draw the factors of a batch for each branch.

        Args:
            depths: The module of each branch. Rates that were changed, and modules in evaluation, draw themselves.
            x: The batch.
        """
        if not self.training or not self.keep.numel():
            return [depth.sample_scale(x) for depth in depths]
        if any(
            depth.rate != rate or not depth.training for depth, rate in zip(depths, self.rates, strict=True)
        ):
            return [depth.sample_scale(x) for depth in depths]
        keep = self.keep.to(torch.promote_types(x.dtype, torch.float32))
        draws = torch.rand(keep.shape[0], x.shape[0], dtype=keep.dtype, device=keep.device)
        drawn = iter((draws < keep).div(keep).unbind())
        return [next(drawn) if rate > 0 else None for rate in self.rates]

    def extra_repr(self) -> str:
        """Return the rates for the representation of the module."""
        return f"rates={tuple(round(rate, 4) for rate in self.rates)}"
