"""mLSTM cell by plain operators, for `torch.export`.

The quadratic form is used inside a chunk of tokens, and another one between the states of all earlier chunks. The graph
has the same nodes for every number of tokens. All weights have the form exp(D - m), with m the exact maximum of D. Sums
of log forget gates are kept as an exact integer and a remainder, as in `gates`.

Names: see the package. Layout: (batch, head, chunk, token, ...).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from scanseg.ops._support.contract import state_dtype, without_autocast
from scanseg.ops._support.plain_recurrence import count_chunks
from scanseg.ops.mlstm.gates import ABSENT
from scanseg.ops.mlstm.reference import EPSILON

_CHUNK = 64


def mlstm_plain(q: Tensor, k: Tensor, v: Tensor, igate: Tensor, fgate: Tensor, *, reverse: bool) -> Tensor:
    """Compute the cell, with the arguments of `mlstm`."""
    dtype, wide, token = q.dtype, state_dtype(q, k, v, igate, fgate), q.shape[2]
    with without_autocast(q):
        inputs = [tensor.to(wide) for tensor in (q, k, v, igate, fgate)]
        if reverse:
            inputs = [tensor.flip(2) for tensor in inputs]
        queries, keys, values, igates, fgates = inputs
        h = _cell(
            _cut(queries / math.sqrt(q.shape[3]), fill=0.0),
            _cut(keys, fill=0.0),
            _cut(values, fill=0.0),
            _cut(igates, fill=ABSENT),
            _cut(F.logsigmoid(fgates), fill=0.0),
        )
        h = h.flatten(2, 3)[:, :, :token]
        return (h.flip(2) if reverse else h).to(dtype)


def _cell(q: Tensor, k: Tensor, v: Tensor, igate: Tensor, log_forget: Tensor) -> Tensor:
    """Compute h by chunks, in reading order."""
    whole = log_forget.round()
    whole, part = whole.cumsum(-1), (log_forget - whole).cumsum(-1)
    pairs = _differences(whole, whole) + _differences(part, part) + igate[..., None, :]
    pairs = _masked(pairs, strict=False)
    # A state holds the tokens of a chunk, relative to the strongest one.
    end = (whole[..., -1:] - whole) + (part[..., -1:] - part) + igate
    strongest = end.amax(-1)
    key = k * (end - strongest[..., None]).exp()[..., None]
    C, n = key.mT @ v, key.sum(-2)
    before, m_before = _earlier_chunks(whole[..., -1], part[..., -1], strongest)
    m_read = whole + part + m_before[..., None]
    m = torch.maximum(pairs.amax(-1), m_read)
    scores = (q @ k.mT) * (pairs - m[..., None]).exp()
    query = q * (m_read - m).exp()[..., None]
    numerator = scores @ v + query @ torch.einsum("bhij,bhjkv->bhikv", before, C)
    row_sum = scores.sum(-1) + (query * torch.einsum("bhij,bhjk->bhik", before, n)[..., None, :]).sum(-1)
    p = m.clamp(max=0).exp()
    denominator = torch.maximum(p * row_sum.abs(), (-m.clamp(min=0)).exp()) + EPSILON * p
    return numerator * (p / denominator)[..., None]


def _earlier_chunks(whole: Tensor, part: Tensor, strongest: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weights of earlier chunks' states at the start of each chunk, and their largest D.

    Args:
        whole: Integer part of the sum of log forget gates of each chunk, (batch, head, chunk).
        part: Remainder of that sum.
        strongest: Largest D of a chunk at its end.

    Returns:
        Weights (batch, head, chunk, earlier chunk), and m (batch, head, chunk).
    """
    whole_end, part_end = whole.cumsum(-1), part.cumsum(-1)
    D = _differences(whole_end - whole, whole_end) + _differences(part_end - part, part_end)
    D = _masked(D + strongest[..., None, :], strict=True)
    m = D.amax(-1)
    return (D - m[..., None]).exp().tril(-1), m


def _differences(later: Tensor, earlier: Tensor) -> Tensor:
    """Return later[t] - earlier[s] as (..., t, s)."""
    return later[..., :, None] - earlier[..., None, :]


def _masked(pairs: Tensor, *, strict: bool) -> Tensor:
    """Give the weight 0 to pairs (..., t, s) with s after t, or also with s = t (strict)."""
    index = torch.arange(pairs.shape[-1], device=pairs.device)
    kept = index[:, None] > index if strict else index[:, None] >= index
    return pairs.masked_fill(~kept, ABSENT)


def _cut(tensor: Tensor, *, fill: float) -> Tensor:
    """Cut (batch, head, token, ...) into chunks, and fill the last one."""
    token = tensor.shape[2]
    num_chunks = count_chunks(token, _CHUNK)
    padding = num_chunks * _CHUNK - token
    padded = F.pad(tensor, (*(0, 0) * (tensor.ndim - 3), 0, padding), value=fill)
    return padded.reshape(*tensor.shape[:2], num_chunks, _CHUNK, *tensor.shape[3:])
