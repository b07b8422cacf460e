"""The running average of a network's weights over the steps of its training (EMA)."""

from collections.abc import Mapping
from copy import deepcopy

import torch
from torch import Tensor, nn

_SLOWEST_START = 10
"""Steps in which the average follows the weights quickly: it begins with random ones."""


class EMANetwork:
    """A copy of a network whose parameters are a running average; its buffers are the network's own."""

    def __init__(self, network: nn.Module, *, decay: float) -> None:
        """Begin with the network as it is.

        Args:
            network: The network in training.
            decay: Part of itself that the average keeps at a step, late in the training.
        """
        self.network = deepcopy(network).requires_grad_(False).eval()
        self._decay = decay

    @torch.no_grad()
    def follow(self, network: nn.Module, *, steps: int) -> None:
        """Take a step into the average.

        Args:
            network: The network in training.
            steps: Steps that it has taken.
        """
        decay = min(self._decay, (1 + steps) / (_SLOWEST_START + steps))
        torch._foreach_lerp_(list(self.network.parameters()), list(network.parameters()), 1 - decay)
        for ours, theirs in zip(self.network.buffers(), network.buffers(), strict=True):
            ours.copy_(theirs)

    def restore(self, weights: Mapping[str, Tensor]) -> None:
        """Go back to an average that was stored."""
        self.network.load_state_dict(weights)
