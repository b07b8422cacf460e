"""mLSTM cell token by token, with autograd.

Names: see the package.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from scanseg.ops._support.contract import state_dtype

EPSILON = 1e-6


def mlstm_reference(
    q: Float[Tensor, "batch head token dim"],
    k: Float[Tensor, "batch head token dim"],
    v: Float[Tensor, "batch head token dim"],
    igate: Float[Tensor, "batch head token"],
    fgate: Float[Tensor, "batch head token"],
    *,
    reverse: bool,
) -> Float[Tensor, "batch head token dim"]:
    """Compute the cell token by token, with the arguments of `mlstm`."""
    dtype = q.dtype
    wide = state_dtype(q, k, v, igate, fgate)
    q, k, v, igate, fgate = (tensor.to(wide) for tensor in (q, k, v, igate, fgate))
    batch, head, token, dim = q.shape
    q = q / math.sqrt(dim)
    log_forget = F.logsigmoid(fgate)
    C = q.new_zeros(batch, head, dim, dim)
    n = q.new_zeros(batch, head, dim)
    m = q.new_full((batch, head), -math.inf)
    outputs: list[Tensor] = []
    for t in reversed(range(token)) if reverse else range(token):
        m_next = torch.maximum(log_forget[..., t] + m, igate[..., t])
        forget = torch.exp(log_forget[..., t] + m - m_next)[..., None]
        written = torch.exp(igate[..., t] - m_next)[..., None] * k[:, :, t]
        C = forget[..., None] * C + written[..., None] * v[:, :, t, None, :]
        n = forget * n + written
        m = m_next
        numerator = (q[:, :, t, :, None] * C).sum(-2)
        outputs.append(_normalised(numerator, (q[:, :, t] * n).sum(-1), m))
    return torch.stack(outputs[::-1] if reverse else outputs, dim=2).to(dtype)


def _normalised(numerator: Tensor, normaliser: Tensor, m: Tensor) -> Tensor:
    """Return numerator / (max(|normaliser|, exp(-m)) + epsilon).

    Both sides of the fraction are multiplied by exp(min(m, 0)).
    """
    scale = torch.exp(m.clamp(max=0))
    denominator = torch.maximum(scale * normaliser.abs(), torch.exp(-m.clamp(min=0))) + EPSILON * scale
    return (scale / denominator)[..., None] * numerator
