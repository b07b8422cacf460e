"""Four-direction scan by definition, one direction after the other.

Each direction is flattened to a sequence, scanned, reshaped to a map and summed. Names: see the package.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from scanseg.ops._support.contract import state_dtype
from scanseg.ops.selective_scan.reference import selective_scan_reference


def ss2d_scan_reference(
    x: Float[Tensor, "batch dim height width"],
    projected: Float[Tensor, "batch 4 rank_2state height width"],
    dt_weight: Float[Tensor, "4 dim rank"],
    dt_bias: Float[Tensor, "4 dim"],
    A_log: Float[Tensor, "4 dim state"],
    D_skip: Float[Tensor, "4 dim"],
) -> Float[Tensor, "batch dim height width"]:
    """Compute and sum the four scans, with the arguments of `ss2d_scan`."""
    wide = state_dtype(x)
    x, projected = x.to(wide), projected.to(wide)
    dt_weight, dt_bias, A_log, D_skip = (p.to(wide) for p in (dt_weight, dt_bias, A_log, D_skip))
    rank, state = dt_weight.shape[2], A_log.shape[2]
    merged = torch.zeros_like(x)
    for k in range(4):
        columns, reverse = k % 2 == 1, k >= 2
        dt_low, B, C = _sequence(projected[:, k], columns=columns).split([rank, state, state], dim=1)
        # A sum instead of a matrix product, which autocast would run in 16 bits.
        dt = (dt_weight[k][:, :, None] * dt_low[:, None]).sum(2)
        y = selective_scan_reference(
            _sequence(x, columns=columns)[:, None],
            F.softplus(dt + dt_bias[k, :, None])[:, None],
            -torch.exp(A_log[k])[None],
            B[:, None],
            C[:, None],
            D_skip[k][None],
            reverse=reverse,
        )[:, 0]
        merged = merged + _map(y, like=x, columns=columns)
    return merged


def _sequence(image: Tensor, *, columns: bool) -> Tensor:
    """Flatten a map (batch, channel, height, width) by rows or by columns."""
    return (image.mT if columns else image).flatten(2)


def _map(sequence: Tensor, *, like: Tensor, columns: bool) -> Tensor:
    """Invert `_sequence`, with the size of `like`."""
    height, width = like.shape[2:]
    return sequence.unflatten(2, (width, height)).mT if columns else sequence.unflatten(2, (height, width))
