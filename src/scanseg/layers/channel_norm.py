"""Layer norm over the channels of an image."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class ChannelNorm(nn.Module):
    """Layer norm over the channel axis of a channels-first map, voxel by voxel.

    The result is laid out in memory with channels last; a map that is already laid out so is not copied.

    Args:
        num_channels: Channels of the map.
        eps: Added to the variance.
    """

    def __init__(self, num_channels: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))

    def forward(self, x: Float[Tensor, "batch channel *space"]) -> Float[Tensor, "batch channel *space"]:
        """Normalise every voxel over its channels."""
        normed = F.layer_norm(x.movedim(1, -1), self.weight.shape, self.weight, self.bias, self.eps)
        return normed.movedim(-1, 1)
