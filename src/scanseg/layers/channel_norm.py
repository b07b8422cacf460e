"""Layer norm over the channels of an image."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scanseg.layers.branch import Branch
from scanseg.ops import channel_norm, residual_channel_norm


class ChannelNorm(nn.Module):
    """Layer norm over the channel axis of a channels-first map, voxel by voxel.

    The result is laid out in memory with channels last; a map that is already laid out so is not copied. Under
    autocast it has the dtype of the autocast, unless a residual stream starts with it.

    Args:
        num_channels: Channels of the result.
        eps: Added to the variance.
        factor: p: channels of a 2D map, split as (row offset, column offset, channel) with the first slowest, first
            become p times p pixels.
        starts_stream: Whether the result is what residual branches are added to: float32 under autocast.
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
        """Normalise every voxel over its channels."""
        return channel_norm(
            x, self.weight, self.bias, eps=self.eps, dtype=self._result_dtype(x), factor=self.factor
        )

    def after(
        self, x: Float[Tensor, "batch channel *space"], branch: Branch | None
    ) -> tuple[Float[Tensor, "batch channel *space"], Float[Tensor, "batch channel *space"]]:
        """Return a map with a branch added, and that normalised; without a branch the map as it is."""
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
        kind = x.device.type
        if kind == "meta" or not torch.is_autocast_enabled(kind):
            return None
        return torch.float32 if self.starts_stream else torch.get_autocast_dtype(kind)
