"""Four-direction scan by plain operators, for `torch.export`.

Names: see the package.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from scanseg.ops._support.contract import state_dtype, without_autocast
from scanseg.ops.selective_scan.plain_backend import selective_scan_plain


def ss2d_scan_plain(
    x: Tensor, projected: Tensor, dt_weight: Tensor, dt_bias: Tensor, A_log: Tensor, D_skip: Tensor
) -> Tensor:
    """Compute the merged scan, with the arguments of `ss2d_scan`."""
    wide = state_dtype(x)
    rank, state = dt_weight.shape[2], A_log.shape[2]
    with without_autocast(x):
        x, projected = x.to(wide), projected.to(wide)
        by_rows, by_columns = projected.unflatten(1, (2, 2)).unbind(2)
        low, B, C = _directions(by_rows, by_columns).split([rank, state, state], dim=2)
        dt = dt_weight.to(wide) @ low + dt_bias.to(wide)[..., None]
        sequences = _directions(*(x[:, None].expand(-1, 2, -1, -1, -1),) * 2)
        rates = -torch.exp(A_log.to(wide))
        y = selective_scan_plain(sequences, F.softplus(dt), rates, B, C, None, reverse=False)
        return D_skip.to(wide).sum(0)[:, None, None] * x + _merged(y, like=x)


def _directions(by_rows: Tensor, by_columns: Tensor) -> Tensor:
    """Flatten maps to the sequences of the four directions.

    Args:
        by_rows: Maps of the directions 0 and 2, (batch, 2, channel, height, width).
        by_columns: Maps of the directions 1 and 3.

    Returns:
        The sequences (batch, 4, channel, token).
    """
    forward, backward = torch.stack([by_rows.flatten(3), by_columns.mT.flatten(3)], dim=2).unbind(1)
    return torch.cat([forward, backward.flip(-1)], dim=1)


def _merged(y: Tensor, *, like: Tensor) -> Tensor:
    """Sum the sequences of the four directions as a map."""
    height, width = like.shape[2:]
    forward, backward = y.chunk(2, dim=1)
    rows, columns = (forward + backward.flip(-1)).unbind(1)
    return rows.unflatten(2, (height, width)) + columns.unflatten(2, (width, height)).mT
