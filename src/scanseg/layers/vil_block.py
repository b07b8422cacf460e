"""Vision-LSTM block, an mLSTM over tokens with projections and gates.

Legend: dim features of a token, inner = 2 * dim, NH heads of DH = inner / NH features, q, k, v query, key and
value.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from scanseg.layers.causal_convolution import CausalConvolution
from scanseg.layers.direction import Direction, read_tokens
from scanseg.layers.offset_norm import OffsetNorm
from scanseg.ops import mlstm, without_autocast


class ViLBlock(nn.Module):
    """Norm and a gated mLSTM between an up and a down projection.

    The caller adds the residual. The number of heads is the block size of the q, k and v projections: 4, or 2 if dim
    is not divisible by 4. Source: Alkin et al. 2024, arXiv:2406.04303, as used by Chen et al. 2024, arXiv:2407.01530.

    Args:
        dim: Features of a token.
        direction: Reading order of the tokens. `bidirectional`: the mean of both orders, with the same weights.
    """

    def __init__(self, dim: int, *, direction: Direction = "forward") -> None:
        super().__init__()
        inner, block_size = 2 * dim, 4 if dim % 4 == 0 else 2
        self.direction: Direction = direction
        self.norm = OffsetNorm(dim)
        self.proj_up = nn.Linear(dim, 2 * inner, bias=False)
        self.conv = CausalConvolution(inner)
        self.q_proj = BlockDiagonalLinear(inner, block_size)
        self.k_proj = BlockDiagonalLinear(inner, block_size)
        self.v_proj = BlockDiagonalLinear(inner, block_size)
        self.cell = MLSTMCell(inner, num_heads=block_size)
        self.learnable_skip = nn.Parameter(torch.ones(inner))
        self.proj_down = nn.Linear(inner, dim, bias=False)
        for projection in (self.proj_up, self.q_proj, self.k_proj, self.v_proj):
            nn.init.normal_(projection.weight, std=math.sqrt(2 / (5 * dim)))
        nn.init.normal_(self.proj_down.weight, std=2 / math.sqrt(dim))

    def forward(self, x: Float[Tensor, "batch token dim"]) -> Float[Tensor, "batch token dim"]:
        """Mix the tokens."""
        inner, gate = self.proj_up(self.norm(x)).chunk(2, dim=-1)
        mixed = read_tokens(self._read, inner, direction=self.direction)
        return self.proj_down(mixed * F.silu(gate))

    def _read(
        self, x: Float[Tensor, "batch token inner"], *, reverse: bool
    ) -> Float[Tensor, "batch token inner"]:
        convolved = F.silu(self.conv(x, reverse=reverse))
        h = self.cell(self.q_proj(convolved), self.k_proj(convolved), self.v_proj(x), reverse=reverse)
        return h + self.learnable_skip * convolved


class BlockDiagonalLinear(nn.Module):
    """Linear layer without bias over contiguous blocks of features.

    y[b, o] = sum_i W[b, o, i] x[b, i]. It is computed as one dense product, because a batch of products with 2x2 or
    4x4 matrices is slower on every device.

    Args:
        dim: Features of the input and the output.
        block_size: Features of a block, a divisor of dim.
    """

    def __init__(self, dim: int, block_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim // block_size, block_size, block_size))

    def forward(self, x: Float[Tensor, "batch token dim"]) -> Float[Tensor, "batch token dim"]:
        """Apply the layer to every token."""
        return F.linear(x, self.dense_weight())

    def dense_weight(self) -> Float[Tensor, "dim dim"]:
        """Return the matrix with the weights as diagonal blocks."""
        num_blocks, size, _ = self.weight.shape
        dim = num_blocks * size
        # Each block begins `size` columns after the previous one. So the rows of a block are laid out with `dim`
        # columns, and blocks with `size` more elements between them.
        rows = F.pad(self.weight, (0, dim - size)).flatten(1)
        return F.pad(rows, (0, size)).flatten()[: dim * dim].view(dim, dim)


class MLSTMCell(nn.Module):
    """The mLSTM with its gates and the norm of its heads.

    The gates are computed in float32 at least, also under autocast, because their errors add up over the tokens.

    Args:
        inner: Features of q, k and v.
        num_heads: Number of heads, contiguous groups of features.
    """

    def __init__(self, inner: int, *, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.igate = nn.Linear(3 * inner, num_heads)
        self.fgate = nn.Linear(3 * inner, num_heads)
        self.outnorm = OffsetNorm(inner, num_groups=num_heads)
        nn.init.zeros_(self.igate.weight)
        nn.init.zeros_(self.fgate.weight)
        nn.init.normal_(self.igate.bias, std=0.1)
        self.fgate.bias = nn.Parameter(torch.linspace(3, 6, num_heads))

    def forward(
        self,
        q: Float[Tensor, "batch token inner"],
        k: Float[Tensor, "batch token inner"],
        v: Float[Tensor, "batch token inner"],
        *,
        reverse: bool,
    ) -> Float[Tensor, "batch token inner"]:
        """Run the heads over the tokens and normalize each head.

        Args:
            q: Queries.
            k: Keys.
            v: Values.
            reverse: Whether to read from the last token to the first.
        """
        igate, fgate = self._gates(q, k, v)
        q_heads, k_heads, v_heads = (x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in (q, k, v))
        h = mlstm(q_heads, k_heads, v_heads, igate, fgate, reverse=reverse)
        return self.outnorm(h.transpose(1, 2).flatten(2)).to(q.dtype)

    def _gates(
        self,
        q: Float[Tensor, "batch token inner"],
        k: Float[Tensor, "batch token inner"],
        v: Float[Tensor, "batch token inner"],
    ) -> tuple[Float[Tensor, "batch head token"], Float[Tensor, "batch head token"]]:
        with without_autocast(q):
            weight = torch.cat([self.igate.weight, self.fgate.weight])
            dtype = torch.promote_types(q.dtype, torch.float32)
            parts = zip((q, k, v), weight.to(dtype).chunk(3, dim=1), strict=True)
            gates = torch.stack([F.linear(x.to(dtype), part) for x, part in parts]).sum(0)
            gates = gates + torch.cat([self.igate.bias, self.fgate.bias])
            igate, fgate = gates.transpose(1, 2).chunk(2, dim=1)
        return igate, fgate
