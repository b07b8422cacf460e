"""Weights of token pairs and of states, from the mLSTM gates.

All weights have the form exp(D - m) with m close to the exact maximum of D, so they are at most about 1. Sums of log
forget gates are kept as an exact integer and a remainder. Otherwise a difference of two sums behind a closed gate (such
as log f = -50) would lose all the digits that distinguish the tokens after it.

Names: see the package. Unless stated otherwise, F is the sum inside a chunk. Layout: (row, chunk, token).
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

ABSENT = -1e30
"""Input gate of a padding token in the last chunk. Its weight is 0, and differences stay finite."""


class Gates(NamedTuple):
    """Gates, their sums and their maxima.

    Attributes:
        igate: Input gates i.
        whole: Integer part of F, from the start of the chunk (in reading order) to the token, inclusive.
        part: Remainder of F.
        m: Stabilizer, the maximum of D over all tokens read so far, up to rounding. Any value near it is valid.
        strongest: Index of this maximum in the (padded) sequence, (row, token).
        reverse: Whether tokens are read from the last to the first.
    """

    igate: Tensor
    whole: Tensor
    part: Tensor
    m: Tensor
    strongest: Tensor
    reverse: bool


class StateWeights(NamedTuple):
    """Weights of the states between chunks.

    The last chunk in reading order writes no state, and the first one reads none.

    Attributes:
        write: Weight of a token in the state at the end of its chunk, (row, chunk - 1, token).
        read: Weight of the state at the start of a chunk for a token in it, (row, chunk - 1, token).
        decay: Factor on a state over a writing chunk, (row, chunk - 1).
    """

    write: Tensor
    read: Tensor
    decay: Tensor


def measure_gates(igate: Tensor, fgate: Tensor, *, chunk: int, reverse: bool) -> Gates:
    """Sum and maximize the gates (row, token) for chunks of `chunk` tokens."""
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
    """Return scale * exp(D[t,s] - m[t]) inside each chunk.

    The result is (row, chunk, t, s), with 0 if s is read after t.
    """
    _, whole, part, m, _, reverse = gates
    weights = whole[..., :, None] - whole[..., None, :]
    weights.add_((gates.igate - part)[..., None, :]).add_((part - m + math.log(scale))[..., :, None]).exp_()
    return weights.triu_() if reverse else weights.tril_()


def state_weights(gates: Gates, *, scale: float) -> StateWeights:
    """Return the weights between chunks, with `scale` in `read`."""
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
    """Return the chunks that write states and the chunks that read them.

    They correspond one to one.
    """
    early, late = slice(0, num_chunks - 1), slice(1, num_chunks)
    return (late, early) if reverse else (early, late)


def running_sum(tensor: Tensor, *, reverse: bool) -> Tensor:
    """Sum over the last axis up to and including each token.

    Tokens are taken in reading order.
    """
    return tensor.flip(-1).cumsum(-1).flip(-1) if reverse else tensor.cumsum(-1)


def sum_before(tensor: Tensor, *, reverse: bool) -> Tensor:
    """Sum over the last axis before each token, in reading order."""
    if reverse:
        return F.pad(running_sum(tensor, reverse=True)[..., 1:], (0, 1))
    return F.pad(running_sum(tensor, reverse=False)[..., :-1], (1, 0))


def sum_across(pairs: Tensor, *, reverse: bool) -> Tensor:
    """Sum a quantity of pairs [..., t, s] across each token r.

    In reading order these are the pairs with s before r, and t at r or after it.
    """
    if reverse:
        return pairs.cumsum(-2).triu_(1).sum(-1)
    return F.pad(pairs.cumsum(-1).tril_(-1).sum(-2)[..., :-1], (1, 0))


def _running_maximum(tensor: Tensor, *, reverse: bool) -> tuple[Tensor, Tensor]:
    """Return the running maximum over the last axis, and its index.

    Tokens are taken in reading order.
    """
    if not reverse:
        values, indices = tensor.cummax(-1)
        return values, indices
    values, indices = tensor.flip(-1).cummax(-1)
    return values.flip(-1), tensor.shape[-1] - 1 - indices.flip(-1)
