"""Linear layer over channels: a 1x1 convolution with a matrix as weight."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scanseg.ops import Wanted, linear, wanted_by_layer


class ChannelLinear(nn.Module):
    """Linear layer over the channel axis of a channels-first map.

    The result has the shape (batch, channel, *space) and lies in memory with channels last. A map in that layout
    is not copied, and the layer is one matrix product.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        bias: Whether the layer has a bias.
    """

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        nn.init.trunc_normal_(self.weight, std=0.02)

    def forward(self, x: Float[Tensor, "batch channel *space"]) -> Float[Tensor, "batch out_channel *space"]:
        """Map the channels of every voxel."""
        return linear(x.movedim(1, -1), self.weight, self.bias).movedim(-1, 1)

    def converted(self) -> tuple[Wanted, ...]:
        """Return the parameters that a pass of a network converts at once."""
        return wanted_by_layer(self.weight, self.bias)
