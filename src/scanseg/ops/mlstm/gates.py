"""The weights that the gates of the mLSTM cell give to pairs of tokens and to the states between chunks.

All are of the form exp(D - m) with m close to the exact maximum of D, hence at most about 1. Sums of log forget
gates are kept as an exact integer and a remainder: a difference of two sums behind a closed gate (log f = -50,
say) would otherwise lose all the digits that tell the tokens after it apart.

Names: see the package. F is the sum inside a chunk unless said otherwise. Layout: (row, chunk, token).
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

ABSENT = -1e30
"""Input gate of a token that pads the last chunk: weight 0 beside any other, and differences stay finite."""


class Gates(NamedTuple):
    """What the weights are made of.

    Attributes:
        igate: i.
        whole: Integer part of F, from the start of the chunk (in reading order) to the token, inclusive.
        part: The remainder of F.
        m: Stabiliser, the maximum of D over all tokens read so far up to rounding (any value near it serves).
        strongest: Index of that maximum in the (padded) sequence, (row, token).
        reverse: Whether tokens are read from the last to the first.
    """

    igate: Tensor
    whole: Tensor
    part: Tensor
    m: Tensor
    strongest: Tensor
    reverse: bool


class StateWeights(NamedTuple):
    """Weights of what passes from chunk to chunk; the last chunk read writes no state, the first reads none.

    Attributes:
        write: Weight of a token in the state at the end of its chunk, (row, chunk - 1, token).
        read: Weight of the state at the start of a chunk for a token in it, (row, chunk - 1, token).
        decay: Factor on a state over a chunk that writes, (row, chunk - 1).
    """

    write: Tensor
    read: Tensor
    decay: Tensor


def measure_gates(igate: Tensor, fgate: Tensor, *, chunk: int, reverse: bool) -> Gates:
    """Prepare the gates (row, token) for chunks of `chunk` tokens."""
    padding = -igate.shape[1] % chunk
    igate = F.pad(igate, (0, padding), value=ABSENT)
    log_forget = F.pad(F.logsigmoid(fgate), (0, padding))
    total = running_sum(log_forget, reverse=reverse)
    highest, strongest = _running_maximum(igate - total, reverse=reverse)
    chunked = log_forget.unflatten(1, (-1, chunk))
    integers = chunked.round()
    return Gates(
        igate=igate.unflatten(1, (-1, chunk)),
        whole=running_sum(integers, reverse=reverse),
        part=running_sum(chunked - integers, reverse=reverse),
        m=(highest + total).unflatten(1, (-1, chunk)),
        strongest=strongest,
        reverse=reverse,
    )


def pair_weights(gates: Gates, *, scale: float) -> Tensor:
    """Return scale * exp(D[t,s] - m[t]) inside each chunk, 0 where s is read after t: (row, chunk, t, s)."""
    _, whole, part, m, _, reverse = gates
    weights = whole[..., :, None] - whole[..., None, :]
    weights.add_((gates.igate - part)[..., None, :]).add_((part - m + math.log(scale))[..., :, None]).exp_()
    return weights.triu_() if reverse else weights.tril_()


def state_weights(gates: Gates, *, scale: float) -> StateWeights:
    """Return the weights between chunks; `read` holds `scale`."""
    igate, whole, part, m, _, reverse = gates
    end = slice(0, 1) if reverse else slice(-1, None)
    writers, readers = writing_and_reading(m.shape[1], reverse=reverse)
    m_end = m[..., end]
    write = torch.exp((whole[..., end] - whole) + (part[..., end] - part) + igate - m_end)[:, writers]
    read = torch.exp((whole + part)[:, readers] + m_end[:, writers] - m[:, readers]).mul_(scale)
    m_start = torch.cat((m_end[:, 1:], m_end[:, -1:]) if reverse else (m_end[:, :1], m_end[:, :-1]), dim=1)
    decay = torch.exp(whole[..., end] + part[..., end] + m_start - m_end)[:, writers, 0]
    return StateWeights(write, read, decay)


def writing_and_reading(num_chunks: int, *, reverse: bool) -> tuple[slice, slice]:
    """Return which chunks write a state and which read one; they correspond one to one."""
    early, late = slice(0, num_chunks - 1), slice(1, num_chunks)
    return (late, early) if reverse else (early, late)


def running_sum(tensor: Tensor, *, reverse: bool) -> Tensor:
    """Sum over the last axis up to each token in reading order, inclusive."""
    return tensor.flip(-1).cumsum(-1).flip(-1) if reverse else tensor.cumsum(-1)


def sum_before(tensor: Tensor, *, reverse: bool) -> Tensor:
    """Sum over the last axis up to each token in reading order, exclusive."""
    if reverse:
        return F.pad(running_sum(tensor, reverse=True)[..., 1:], (0, 1))
    return F.pad(running_sum(tensor, reverse=False)[..., :-1], (1, 0))


def sum_across(pairs: Tensor, *, reverse: bool) -> Tensor:
    """Sum a quantity of pairs [..., t, s] over those that each token r lies between.

    In reading order these are the pairs with s before r, and t at r or after it.
    """
    if reverse:
        return pairs.cumsum(-2).triu_(1).sum(-1)
    return F.pad(pairs.cumsum(-1).tril_(-1).sum(-2)[..., :-1], (1, 0))


def _running_maximum(tensor: Tensor, *, reverse: bool) -> tuple[Tensor, Tensor]:
    """Return the maximum over the last axis up to each token in reading order, and its index."""
    if not reverse:
        values, indices = tensor.cummax(-1)
        return values, indices
    values, indices = tensor.flip(-1).cummax(-1)
    return values.flip(-1), tensor.shape[-1] - 1 - indices.flip(-1)
