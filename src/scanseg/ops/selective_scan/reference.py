"""Selective scan token by token, with autograd.

Names: see the package.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from scanseg.ops._support.contract import state_dtype


def selective_scan_reference(
    u: Float[Tensor, "batch group dim token"],
    delta: Float[Tensor, "batch group dim token"],
    A: Float[Tensor, "group dim state"],
    B: Float[Tensor, "batch group state token"],
    C: Float[Tensor, "batch group state token"],
    D: Float[Tensor, "group dim"] | None,
    *,
    reverse: bool,
) -> Float[Tensor, "batch group dim token"]:
    """Compute the scan token by token, with the arguments of `selective_scan`."""
    dtype = u.dtype
    wide = state_dtype(u, delta, A, B, C)
    u, delta, A, B, C = (tensor.to(wide) for tensor in (u, delta, A, B, C))
    token = u.shape[3]
    h = u.new_zeros((*u.shape[:3], A.shape[2]))
    outputs: list[Tensor] = []
    for t in reversed(range(token)) if reverse else range(token):
        decay = torch.exp(delta[..., t, None] * A)
        h = decay * h + (delta[..., t] * u[..., t])[..., None] * B[:, :, None, :, t]
        outputs.append((C[:, :, None, :, t] * h).sum(-1))
    y = torch.stack(outputs[::-1] if reverse else outputs, dim=-1)
    if D is not None:
        y = y + D.to(wide)[..., None] * u
    return y.to(dtype)
