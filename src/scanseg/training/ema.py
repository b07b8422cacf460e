"""EMA weights: an exponential moving average of the weights over steps."""

from collections.abc import Mapping
from copy import deepcopy

import torch
from torch import Tensor, nn

_WARM_UP_STEPS = 10
"""The decay at step n is at most (1 + n) / (this + n), because the initial weights are random."""


class EMANetwork:
    """A copy of a network with EMA weights and the current buffers."""

    def __init__(self, network: nn.Module, *, decay: float) -> None:
        """Copy the network with its initial weights.

        Args:
            network: The network in training.
            decay: Fraction of the average that a step keeps, late in the training.
        """
        self.network = deepcopy(network).requires_grad_(False).eval()
        self._decay = decay

    @torch.no_grad()
    def follow(self, network: nn.Module, *, steps: int) -> None:
        """Update the average after a step.

        Args:
            network: The network in training.
            steps: Its optimizer steps so far.
        """
        decay = min(self._decay, (1 + steps) / (_WARM_UP_STEPS + steps))
        torch._foreach_lerp_(list(self.network.parameters()), list(network.parameters()), 1 - decay)
        for buffer, current in zip(self.network.buffers(), network.buffers(), strict=True):
            buffer.copy_(current)

    def restore(self, weights: Mapping[str, Tensor]) -> None:
        """Restore stored EMA weights."""
        self.network.load_state_dict(weights)
