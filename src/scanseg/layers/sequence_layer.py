"""Residual layer that applies a block over tokens to an image."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

TokenAxis = Literal["voxel", "channel"]


class SequenceLayer(nn.Module):
    """Residual layer x + block(x) over the map in raster order.

    Args:
        block: A module from (batch, token, dim) to the same shape.
        tokens: `voxel`: voxels are the tokens, with channels as features. The map may have any size. `channel`:
            channels are the tokens, with the flattened map as features. The dim of the block fixes the size of the
            map.
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
        """Return the token axis for the representation of the module."""
        return f"tokens={self.tokens}"
