"""Layer norm over the channels of an image."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scanseg.layers.autocast import autocast_dtype
from scanseg.layers.branch import Branch
from scanseg.ops import channel_norm, residual_channel_norm


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each voxel of a channels-first map.

    The result lies in memory with channels last. A map in that layout is not copied. Under autocast the result has
    the dtype of autocast, unless `starts_stream` is set.

    Args:
        num_channels: Channels of the result.
        eps: Added to the variance.
        factor: Factor p of a rearrangement before the norm: p * p channels of a 2D map become p * p pixels.
            Channels are split as (row offset, column offset, channel), the first one slowest.
        starts_stream: Whether residual branches are added to the result. It is then float32 under autocast.
    """

    def __init__(
        self, num_channels: int, *, eps: float = 1e-5, factor: int = 1, starts_stream: bool = False
    ) -> None:
        super().__init__()
        self.eps = eps
        self.factor = factor
        self.starts_stream = starts_stream
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))

    def forward(self, x: Float[Tensor, "batch channel *space"]) -> Float[Tensor, "batch channel *space"]:
        """Normalize every voxel over its channels."""
        return channel_norm(
            x, self.weight, self.bias, eps=self.eps, dtype=self._result_dtype(x), factor=self.factor
        )

    def after(
        self, x: Float[Tensor, "batch channel *space"], branch: Branch | None
    ) -> tuple[Float[Tensor, "batch channel *space"], Float[Tensor, "batch channel *space"]]:
        """Add a branch to a map and normalize the sum.

        Args:
            x: The map.
            branch: The branch. `None`: nothing is added.

        Returns:
            The sum (`x` itself without a branch) and the normalized sum.
        """
        if branch is None:
            return x, self(x)
        return residual_channel_norm(
            x,
            branch.value,
            self.weight,
            self.bias,
            sample_scale=branch.sample_scale,
            eps=self.eps,
            dtype=self._result_dtype(x),
        )

    def _result_dtype(self, x: Tensor) -> torch.dtype | None:
        dtype = autocast_dtype(x)
        return torch.float32 if self.starts_stream and dtype is not None else dtype
