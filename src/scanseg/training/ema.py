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
        # Kept, because walking over the modules takes longer than the update.
        self._averages: list[Tensor] = [*self.network.parameters()]
        self._parameters: list[Tensor] = [*network.parameters()]
        self._buffers = list(zip(self.network.buffers(), network.buffers(), strict=True))

    @torch.no_grad()
    def follow(self, *, steps: int) -> None:
        """Update the average after a step.

        Args:
            steps: Optimizer steps of the network so far.
        """
        decay = min(self._decay, (1 + steps) / (_WARM_UP_STEPS + steps))
        torch._foreach_lerp_(self._averages, self._parameters, 1 - decay)
        for buffer, current in self._buffers:
            buffer.copy_(current)

    def restore(self, weights: Mapping[str, Tensor]) -> None:
        """Restore stored EMA weights."""
        self.network.load_state_dict(weights)
