"""Mamba block over tokens, as in U-Mamba.

Legend: dim features of a token, inner = 2 * dim, N state size, R rank of the step size, A decay, B and C the
input and output vectors of the state, dt the step size.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from scanseg.layers.causal_convolution import CausalConvolution
from scanseg.layers.direction import Direction, read_tokens
from scanseg.layers.step_size import initial_step_bias
from scanseg.ops import selective_scan, without_autocast


class MambaBlock(nn.Module):
    """Layer norm and Mamba, a gated selective scan over tokens.

    The caller adds the residual. Sources: Gu and Dao 2023, arXiv:2312.00752, and Ma et al. 2024, arXiv:2401.04722
    (state 16, convolution 4, expansion 2).

    Args:
        dim: Features of a token.
        state_size: Size N of the state of each feature.
        direction: Reading order of the tokens. `bidirectional`: the mean of both orders, with the same weights.
    """

    def __init__(self, dim: int, *, state_size: int = 16, direction: Direction = "forward") -> None:
        super().__init__()
        inner, rank = 2 * dim, math.ceil(dim / 16)
        self.sizes = (rank, state_size, state_size)
        self.direction: Direction = direction
        self.norm = nn.LayerNorm(dim)
        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.conv = CausalConvolution(inner)
        self.x_proj = nn.Linear(inner, sum(self.sizes), bias=False)
        self.dt_weight = nn.Parameter(torch.empty(inner, rank).uniform_(-(rank**-0.5), rank**-0.5))
        self.dt_bias = nn.Parameter(initial_step_bias(inner))
        self.A_log = nn.Parameter(torch.arange(1, state_size + 1).float().log().repeat(inner, 1))
        self.D_skip = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, dim, bias=False)

    def forward(self, x: Float[Tensor, "batch token dim"]) -> Float[Tensor, "batch token dim"]:
        """Mix the tokens."""
        inner, gate = self.in_proj(self.norm(x)).chunk(2, dim=-1)
        mixed = read_tokens(self._read, inner, direction=self.direction)
        return self.out_proj(mixed * F.silu(gate))

    def _read(
        self, x: Float[Tensor, "batch token inner"], *, reverse: bool
    ) -> Float[Tensor, "batch token inner"]:
        u = F.silu(self.conv(x, reverse=reverse))
        dt_low, B, C = self.x_proj(u).split(self.sizes, dim=-1)
        with without_autocast(u):
            dtype = torch.promote_types(u.dtype, torch.float32)
            delta = F.softplus(F.linear(dt_low.to(dtype), self.dt_weight.to(dtype), self.dt_bias.to(dtype)))
            y = selective_scan(
                _one_group(u),
                _one_group(delta),
                -torch.exp(self.A_log.to(dtype))[None],
                _one_group(B),
                _one_group(C),
                self.D_skip.to(dtype)[None],
                reverse=reverse,
            )
        return y.squeeze(1).transpose(1, 2).to(u.dtype)


def _one_group(x: Float[Tensor, "batch token dim"]) -> Float[Tensor, "batch 1 dim token"]:
    return x.transpose(1, 2)[:, None]
