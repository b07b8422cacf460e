"""SS2D, a selective scan of an image in four directions.

Legend, as in the paper: D channels, N state size, R rank of the step size, A decay, B and C the input and
output vectors of the state, dt the step size.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from scanseg.layers.autocast import autocast_dtype
from scanseg.layers.channel_linear import ChannelLinear
from scanseg.layers.channel_norm import ChannelNorm
from scanseg.layers.step_size import initial_step_bias
from scanseg.ops import BranchStart, Wanted, depthwise_conv, ss2d_branch, ss2d_scan, wanted_by_ss2d_branch

NUM_DIRECTIONS = 4


class SS2D(nn.Module):
    """Selective scans along rows and columns of a map, in both orders.

    Source: Liu et al. 2024, arXiv:2401.10166 ("v05_noz": no gate, expansion 1), as in MSVM-UNet, arXiv:2408.13735.
    Parameters in float32 (`A_log`, `D_skip`, `dt_bias`) take no weight decay.

    Args:
        dim: Channels D of the map.
        state_size: Size N of the state of each channel.
    """

    def __init__(self, dim: int, *, state_size: int = 1) -> None:
        super().__init__()
        self.state_size = state_size
        rank = math.ceil(dim / 16)
        self.in_proj = ChannelLinear(dim, dim, bias=False)
        self.conv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=False)
        self.x_proj_weight = nn.Parameter(torch.empty(NUM_DIRECTIONS, rank + 2 * state_size, dim))
        self.dt_weight = nn.Parameter(torch.empty(NUM_DIRECTIONS, dim, rank))
        self.dt_bias = nn.Parameter(initial_step_bias(NUM_DIRECTIONS, dim))
        self.A_log = nn.Parameter(
            torch.arange(1, state_size + 1).float().log().repeat(NUM_DIRECTIONS, dim, 1)
        )
        self.D_skip = nn.Parameter(torch.ones(NUM_DIRECTIONS, dim))
        self.out_norm = ChannelNorm(dim)
        self.out_proj = ChannelLinear(dim, dim, bias=False)
        nn.init.uniform_(self.x_proj_weight, -(dim**-0.5), dim**-0.5)
        nn.init.uniform_(self.dt_weight, -(rank**-0.5), rank**-0.5)

    def forward(self, x: Float[Tensor, "batch dim y x"]) -> Float[Tensor, "batch dim y x"]:
        """Mix the pixels of the map."""
        x = self.in_proj(x)
        if not x.is_cuda:
            x = x.contiguous()  # kernels on the CPU read channel by channel
        x = depthwise_conv(x, self.conv.weight, activation="silu")
        # The projection acts on single pixels, so one product serves all four orders, without a copy of the map.
        weight = self.x_proj_weight.flatten(0, 1)
        projected = (
            F.linear(x.movedim(1, -1), weight).movedim(-1, 1)
            if x.is_cuda
            else F.conv2d(x, weight[:, :, None, None])
        )
        y = ss2d_scan(
            x,
            projected.unflatten(1, self.x_proj_weight.shape[:2]),
            dt_weight=self.dt_weight,
            dt_bias=self.dt_bias,
            A_log=self.A_log,
            D_skip=self.D_skip,
        )
        return self.out_proj(self.out_norm(y).to(x.dtype))

    def converted(self) -> tuple[Wanted, ...]:
        """Return the parameters that a pass of a network converts at once."""
        return wanted_by_ss2d_branch(
            self.in_proj.weight,
            self.conv.weight,
            self.x_proj_weight,
            self.A_log,
            self.D_skip,
            self.out_proj.weight,
        )

    def branch(
        self, start: BranchStart
    ) -> tuple[Float[Tensor, "batch dim y x"], Float[Tensor, "batch dim y x"]]:
        """Add the last branch, normalize and mix, by one operator.

        Returns:
            The sum of the map and the last branch, and the new branch.
        """
        return ss2d_branch(
            start,
            self.in_proj.weight,
            conv_weight=self.conv.weight,
            x_weight=self.x_proj_weight,
            dt_weight=self.dt_weight,
            dt_bias=self.dt_bias,
            A_log=self.A_log,
            D_skip=self.D_skip,
            norm_weight=self.out_norm.weight,
            norm_bias=self.out_norm.bias,
            out_weight=self.out_proj.weight,
            eps=self.out_norm.eps,
            dtype=autocast_dtype(start.x),
        )
