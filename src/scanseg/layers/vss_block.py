"""VSS block: two residual branches, a scan and a feed-forward part."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from scanseg.layers.branch import Branch
from scanseg.layers.channel_norm import ChannelNorm
from scanseg.layers.feed_forward import FeedForward
from scanseg.layers.ss2d import SS2D
from scanseg.layers.stochastic_depth import StochasticDepth
from scanseg.ops import BranchStart, is_one_operator

Scales = Sequence[Tensor | None]
"""Random factors of the samples of branches. `None`: 1."""


class VSSBlock(nn.Module):
    """Block of x + SS2D(norm(x)) and x + FFN(norm(x)), with stochastic depth.

    Sources: Liu et al. 2024, arXiv:2401.10166, and Chen et al. 2024, arXiv:2408.13735.

    Args:
        dim: Channels of the map.
        state_size: Size of the scan's state per channel.
        ffn_kernels: Kernels of a multi-scale feed-forward part. Defaults to none, a plain feed-forward part.
        drop_path: Rate of stochastic depth, for both branches.
        scan: Whether the block has an SS2D branch.
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
        x, branch = self.branches(x, None)
        return branch.added_to(x)

    def branches(
        self,
        x: Float[Tensor, "batch dim y x"],
        pending: Branch | None,
        scales: Scales | None = None,
    ) -> tuple[Float[Tensor, "batch dim y x"], Branch]:
        """Apply the block except for its last addition.

        Args:
            x: The map.
            pending: Last branch of the previous block, which the first norm adds to the map. `None`: nothing is added.
            scales: Random factors of both branches. `None`: they are drawn here.

        Returns:
            The map after the first branch, and the second branch.
        """
        if self.scan is not None and self.scan_norm is not None:
            x, value = _apply(self.scan_norm, self.scan, x, pending)
            pending = Branch(value, self.drop_path.sample_scale(value) if scales is None else scales[0])
        x, value = _apply(self.ffn_norm, self.ffn, x, pending)
        return x, Branch(value, self.drop_path.sample_scale(value) if scales is None else scales[1])


def _apply(
    norm: ChannelNorm, module: SS2D | FeedForward, x: Tensor, pending: Branch | None
) -> tuple[Tensor, Tensor]:
    """Return the sum with the pending branch, and the new branch.

    On GPUs one operator computes both. Otherwise the modules are called, so that hooks see their results.
    """
    if is_one_operator(x):
        added, sample_scale = (None, None) if pending is None else pending
        return module.branch(BranchStart(x, added, sample_scale, norm.weight, norm.bias))
    x, normed = norm.after(x, pending)
    return x, module(normed)


class VSSStage(nn.Sequential):
    """A sequence of VSS blocks.

    The last branch of each block is added in the first norm of the next block.
    """

    def __init__(self, *blocks: VSSBlock) -> None:
        super().__init__(*blocks)

    def forward(
        self, x: Float[Tensor, "batch dim y x"], scales: Scales | None = None
    ) -> Float[Tensor, "batch dim y x"]:
        """Apply the blocks.

        Args:
            x: The map.
            scales: Random factors of the branches, two for each block. `None`: each block draws them.
        """
        branch = None
        for index, block in enumerate(self.children()):
            assert isinstance(block, VSSBlock)
            x, branch = block.branches(x, branch, scales and scales[2 * index : 2 * index + 2])
        return x if branch is None else branch.added_to(x)
