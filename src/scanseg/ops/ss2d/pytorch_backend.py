"""Four-direction scan in PyTorch, with a hand-written gradient.

Directions k and k + 2 read the same sequence from its two ends. So the layout of `selective_scan.pytorch_backend` has
two passes here (forward, reverse) over two groups (rows, columns): direction k is pass k // 2, group k % 2. x exists
once per group, and nothing is flipped. The backward pass keeps the inputs only.

Names: see the package.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from scanseg.ops._support.contract import state_dtype, without_autocast
from scanseg.ops.selective_scan.pytorch_backend import scan, scan_gradients

PASSES = [False, True]  # whether in reverse


def ss2d_scan_chunked(
    x: Tensor, projected: Tensor, dt_weight: Tensor, dt_bias: Tensor, A_log: Tensor, D_skip: Tensor
) -> Tensor:
    """Compute the merged scan, with the arguments of `ss2d_scan`."""
    merged: Tensor = _SS2DScan.apply(x, projected, dt_weight, dt_bias, A_log, D_skip)
    return merged


class _SS2DScan(torch.autograd.Function):
    """Merged sum of the four directions, in the dtype of the state."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        projected: Tensor,
        dt_weight: Tensor,
        dt_bias: Tensor,
        A_log: Tensor,
        D_skip: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(x, projected, dt_weight, dt_bias, A_log, D_skip)
        wide = state_dtype(x)
        with without_autocast(x):
            u = _map_sequences(x, wide)
            low, B, C = _split(projected, dt_weight, A_log, dtype=wide)
            delta = F.softplus(_step_sizes(low, dt_weight, dt_bias))
            y = scan(u, delta, _rates(A_log, wide), B, C, reverse=PASSES)
            return _skip(x, D_skip.to(wide)).add_(_merged_map(y.sum(0, keepdim=True), like=x))

    @staticmethod
    def backward(ctx: Any, grad_merged: Tensor) -> tuple[Tensor, ...]:
        x, projected, dt_weight, dt_bias, A_log, D_skip = ctx.saved_tensors
        wide = state_dtype(x)
        with without_autocast(x):
            u = _map_sequences(x, wide)
            grad_y = _map_sequences(grad_merged, wide)
            low, B, C = _split(projected, dt_weight, A_log, dtype=wide)
            dt = _step_sizes(low, dt_weight, dt_bias)
            rates = _rates(A_log, wide)
            grads = scan_gradients(grad_y, u, F.softplus(dt), rates, B, C, reverse=PASSES)
            grad_dt = grads.delta.mul_(dt.sigmoid_()).flatten(0, 1).flatten(1, 3)
            grad_low = torch.bmm(grad_dt, dt_weight.to(wide)).view(low.shape)
            grad_projected = torch.cat((grad_low, grads.B.squeeze(-1), grads.C.squeeze(-1)), dim=-1)
            grad_x = _skip(grad_merged, D_skip.to(wide)).add_(_merged_map(grads.u, like=x))
            grad_skip = (grad_merged * x).sum((0, 2, 3))
            return (
                grad_x.to(x.dtype),
                _direction_maps(grad_projected, like=projected).to(projected.dtype),
                torch.bmm(grad_dt.mT, low.flatten(0, 1).flatten(1, 2)).to(dt_weight.dtype),
                grad_dt.sum(1).to(dt_bias.dtype),
                (grads.A * rates).flatten(0, 4).unflatten(0, (4, -1)).mT.to(A_log.dtype),
                grad_skip.to(D_skip.dtype).expand(4, -1),
            )


def _split(projected: Tensor, dt_weight: Tensor, A_log: Tensor, *, dtype: torch.dtype) -> list[Tensor]:
    """Return dt_low, B and C as sequences.

    dt_low is (pass, group, token, batch, R). B and C are (pass, group, token, batch, N, 1).
    """
    rank, state = dt_weight.shape[2], A_log.shape[2]
    sequences = _sequences(projected.unflatten(1, (2, 2)), dtype)
    low, B, C = sequences.split([rank, state, state], dim=-1)
    return [low, B[..., None], C[..., None]]


def _step_sizes(low: Tensor, dt_weight: Tensor, dt_bias: Tensor) -> Tensor:
    """Return dt before softplus, (pass, group, token, batch, 1, dim)."""
    rows = low.flatten(0, 1).flatten(1, 2)
    dt = torch.bmm(rows, dt_weight.to(low.dtype).mT).add_(dt_bias.to(low.dtype)[:, None])
    return dt.view(*low.shape[:-1], 1, -1)


def _rates(A_log: Tensor, dtype: torch.dtype) -> Tensor:
    """Return A = -exp(A_log), (pass, group, 1, 1, N, dim)."""
    return -torch.exp(A_log.to(dtype)).unflatten(0, (2, 2)).mT[:, :, None, None]


def _skip(image: Tensor, D_skip: Tensor) -> Tensor:
    """Multiply a map by the sum of the four skips."""
    return D_skip.sum(0)[:, None, None] * image


def _sequences(maps: Tensor, dtype: torch.dtype) -> Tensor:
    """Flatten maps to sequences by rows and by columns.

    Group 0 is flattened by rows, group 1 by columns: (batch, pass, group, channel, height, width) becomes (pass, group,
    token, batch, channel).
    """
    batch, passes, _, channel, height, width = maps.shape
    sequences = maps.new_empty((passes, 2, height * width, batch, channel), dtype=dtype)
    by_rows, by_columns = sequences.unbind(1)
    by_rows.unflatten(1, (height, width)).copy_(maps[:, :, 0].permute(1, 3, 4, 0, 2))
    by_columns.unflatten(1, (width, height)).copy_(maps[:, :, 1].permute(1, 4, 3, 0, 2))
    return sequences


def _maps(sequences: Tensor, *, height: int, width: int) -> tuple[Tensor, Tensor]:
    """View sequences as the maps of each group.

    (pass, group, token, batch, channel) becomes two tensors (batch, pass, channel, height, width).
    """
    by_rows, by_columns = sequences.unbind(1)
    rows = by_rows.unflatten(1, (height, width)).permute(3, 0, 4, 1, 2)
    return rows, by_columns.unflatten(1, (width, height)).permute(3, 0, 4, 2, 1)


def _map_sequences(image: Tensor, dtype: torch.dtype) -> Tensor:
    """Flatten one map by rows and by columns.

    The map is (batch, channel, height, width). The result has the layout of the scan.
    """
    maps = image[:, None, None].expand(-1, 1, 2, -1, -1, -1)
    return _sequences(maps, dtype)[..., None, :]


def _merged_map(sequences: Tensor, *, like: Tensor) -> Tensor:
    """Sum the two groups of sequences as a map.

    The sequences are (1, group, token, batch, 1, channel). The map has the size of `like`.
    """
    rows, columns = _maps(sequences.squeeze(4), height=like.shape[2], width=like.shape[3])
    return rows[:, 0] + columns[:, 0]


def _direction_maps(sequences: Tensor, *, like: Tensor) -> Tensor:
    """Convert sequences to maps of the four directions.

    The sequences are (pass, group, token, batch, channel). The maps have the size of `like`.
    """
    rows, columns = _maps(sequences, height=like.shape[3], width=like.shape[4])
    return torch.stack((rows, columns), dim=2).flatten(1, 2)
