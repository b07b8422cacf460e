"""A block over tokens, applied to an image as a residual branch."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

TokenAxis = Literal["voxel", "channel"]


class SequenceLayer(nn.Module):
    """x + block(x), with the map read as a sequence in raster order.

    Args:
        block: Maps (batch, token, dim) to the same shape.
        tokens: `voxel`: voxels are the tokens and channels their features; maps of any size. `channel`:
            channels are the tokens and the flattened map is their features, so that the block's dim fixes the
            size of the map.
    """

    def __init__(self, block: nn.Module, *, tokens: TokenAxis = "voxel") -> None:
        super().__init__()
        self.block = block
        self.tokens = tokens

    def forward(self, x: Float[Tensor, "batch channel *space"]) -> Float[Tensor, "batch channel *space"]:
        """Mix the tokens of the map."""
        sequence = x.flatten(2)
        if self.tokens == "voxel":
            mixed = self.block(sequence.transpose(1, 2)).transpose(1, 2)
        else:
            mixed = self.block(sequence)
        return x + mixed.reshape(x.shape)

    def extra_repr(self) -> str:
        """Return the token axis for the printed form of the module."""
        return f"tokens={self.tokens}"
