"""A linear map over the channels of an image: a 1x1 convolution whose weight is a matrix."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class ChannelLinear(nn.Module):
    """Linear layer over the channel axis of a channels-first map.

    The result has the shape (batch, channel, y, x), laid out in memory with channels last: a map in that
    layout enters and leaves without a copy, and the map is one matrix product.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        bias: Whether a bias is added.
    """

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        nn.init.trunc_normal_(self.weight, std=0.02)

    def forward(self, x: Float[Tensor, "batch channel *space"]) -> Float[Tensor, "batch out_channel *space"]:
        """Map the channels of every voxel."""
        return F.linear(x.movedim(1, -1), self.weight, self.bias).movedim(-1, 1)
