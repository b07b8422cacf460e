"""The VSS block: a scan of the map, then a feed-forward part, each a residual branch."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from scanseg.layers.channel_norm import ChannelNorm
from scanseg.layers.feed_forward import FeedForward
from scanseg.layers.ss2d import SS2D
from scanseg.layers.stochastic_depth import StochasticDepth


class VSSBlock(nn.Module):
    """x + SS2D(norm(x)), then x + FFN(norm(x)), with stochastic depth on both branches.

    Source: Liu et al. 2024, arXiv:2401.10166; Chen et al. 2024, arXiv:2408.13735.

    Args:
        dim: Channels of the map.
        state_size: Size of the scan's state per channel.
        ffn_kernels: Kernels of a multi-scale feed-forward part; empty for a plain one.
        drop_path: Rate of stochastic depth.
        scan: Whether the block has its SS2D branch.
    """

    def __init__(
        self,
        dim: int,
        *,
        state_size: int = 1,
        ffn_kernels: Sequence[int] = (),
        drop_path: float = 0.0,
        scan: bool = True,
    ) -> None:
        super().__init__()
        self.drop_path = StochasticDepth(drop_path)
        self.scan_norm = ChannelNorm(dim) if scan else None
        self.scan = SS2D(dim, state_size=state_size) if scan else None
        self.ffn_norm = ChannelNorm(dim)
        self.ffn = FeedForward(dim, kernels=ffn_kernels)

    def forward(self, x: Float[Tensor, "batch dim y x"]) -> Float[Tensor, "batch dim y x"]:
        """Mix the pixels, then the channels."""
        if self.scan is not None and self.scan_norm is not None:
            x = x + self.drop_path(self.scan(self.scan_norm(x)))
        return x + self.drop_path(self.ffn(self.ffn_norm(x)))
