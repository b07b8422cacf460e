"""mLSTM cell in PyTorch, by chunks, with a hand-written gradient.

The quadratic form is used inside a chunk, and the matrix state between chunks. Sequences of one chunk have the
quadratic form only. The states at the ends of the chunks follow from one linear recurrence over the chunks. The
backward pass keeps the inputs, h and the row sums, and recomputes the rest, so that memory is linear in tokens.

The gates enter only through D[t,s] = F[t] - F[s] + i[s]. So the gradient of a log forget gate r is the sum of dL/dD
over the pairs across it, s < r <= t. It is summed from these pairs only, because the common alternative, the difference
of the sums over t and over s, leaves rounding errors behind closed gates. Between chunks the sums over s and over t are
q[t] . dL/dq[t] and k[s] . dL/dk[s], because the weight of a pair multiplies q[t] . k[s].

Names: see the package. Layout: q, k, v, h (row, chunk, token, dim), gates (row, chunk, token), C (row, chunk, dim of
k, dim of v), n (row, chunk, dim), with row = batch * head.
"""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from scanseg.ops._support.contract import state_dtype, without_autocast
from scanseg.ops._support.recurrence import solve_recurrence_
from scanseg.ops.mlstm.gates import (
    Gates,
    StateWeights,
    measure_gates,
    pair_weights,
    running_sum,
    state_weights,
    sum_across,
    sum_before,
    writing_and_reading,
)
from scanseg.ops.mlstm.reference import EPSILON

LONGEST_CHUNK = 128
"""Maximum number of tokens in a chunk. Longer chunks reduce the accuracy in float32."""


def chunk_size(token: int, dim: int) -> int:
    """Return the number of tokens in a chunk.

    Per token, the quadratic form costs the length of a chunk, and the states cost dim^2 / chunk. They balance near dim.
    A divisor of `token` avoids a padded copy, and a multiple of 8 keeps matrix products aligned.
    """
    if token <= LONGEST_CHUNK:
        return token
    longest = 64 if dim <= 64 else LONGEST_CHUNK
    for chunk in range(longest, longest // 2 - 1, -8):
        if token % chunk == 0:
            return chunk
    balanced = -(-token // -(-token // longest))
    return balanced + -balanced % 8


def mlstm_chunked(q: Tensor, k: Tensor, v: Tensor, igate: Tensor, fgate: Tensor, *, reverse: bool) -> Tensor:
    """Compute the cell, with the arguments of `mlstm`."""
    h: Tensor = _MLSTM.apply(q, k, v, igate, fgate, reverse)
    return h


class _MLSTM(torch.autograd.Function):
    """mLSTM cell in the dtype of q, for any number of chunks."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        igate: Tensor,
        fgate: Tensor,
        reverse: bool,  # noqa: FBT001 (apply takes no keywords)
    ) -> Tensor:
        with without_autocast(q):
            cell = _prepare(q, k, v, igate, fgate, reverse=reverse)
            numerator, row_sum = _sums(cell)
            factor, _ = _normalisation(row_sum, cell.gates.m)
            h = _joined(numerator.mul_(factor[..., None]), like=q)
        ctx.save_for_backward(q, k, v, igate, fgate, h, row_sum)
        ctx.reverse = reverse
        return h

    @staticmethod
    def backward(ctx: Any, grad_h: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, igate, fgate, h, row_sum = ctx.saved_tensors
        with without_autocast(q):
            cell = _prepare(q, k, v, igate, fgate, reverse=ctx.reverse)
            upstream = _upstream(cell, grad_h, h, row_sum)
            grads = _gradients(cell, upstream)
            grad_igate, grad_log_forget = _gate_gradients(cell.gates, upstream, grads)
            grad_igate, grad_log_forget = (
                grad[:, : q.shape[2]].view(igate.shape) for grad in (grad_igate, grad_log_forget)
            )
            return (
                _joined(grads.q, like=q),
                _joined(grads.k, like=k),
                _joined(grads.v, like=v),
                grad_igate.to(igate.dtype),
                (grad_log_forget * torch.sigmoid(-fgate.to(grad_igate.dtype))).to(fgate.dtype),
                None,
            )


class _CellInputs(NamedTuple):
    """Inputs by chunks, in the dtype of the state.

    `scale` is 1 / sqrt(dim).
    """

    q: Tensor
    k: Tensor
    v: Tensor
    gates: Gates
    scale: float


class _Upstream(NamedTuple):
    """Gradients of the numerator, of the row sum, and of m.

    m enters only through the term 1e-6.
    """

    numerator: Tensor
    row_sum: Tensor
    m: Tensor


class _Gradients(NamedTuple):
    """Gradients by chunks.

    `by_key` is the gradient of D summed over t, which is that of the input gates.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    log_forget: Tensor
    by_key: Tensor


def _prepare(q: Tensor, k: Tensor, v: Tensor, igate: Tensor, fgate: Tensor, *, reverse: bool) -> _CellInputs:
    """Cut the inputs into chunks."""
    wide = state_dtype(q, k, v, igate, fgate)
    chunk = chunk_size(q.shape[2], q.shape[3])
    igate, fgate = (gate.to(wide).flatten(0, 1) for gate in (igate, fgate))
    gates = measure_gates(igate, fgate, chunk=chunk, reverse=reverse)
    q_chunks, k_chunks, v_chunks = (_cut(tensor.to(wide), chunk) for tensor in (q, k, v))
    return _CellInputs(q_chunks, k_chunks, v_chunks, gates, 1 / math.sqrt(q.shape[3]))


def _cut(tensor: Tensor, chunk: int) -> Tensor:
    """Cut (batch, head, token, dim) into (row, chunk, token, dim).

    The last chunk is padded with zeros.
    """
    padding = -tensor.shape[2] % chunk
    padded = F.pad(tensor, (0, 0, 0, padding)) if padding else tensor
    return padded.flatten(0, 1).unflatten(1, (-1, chunk))


def _joined(tensor: Tensor, *, like: Tensor) -> Tensor:
    """Invert `_cut`, with the shape and dtype of `like`."""
    tokens = tensor.flatten(1, 2)[:, : like.shape[2]].unflatten(0, like.shape[:2])
    # In PyTorch 2.11, torch.compile loses the gradients of a kept result that passes a `to` without effect.
    return tokens if tokens.dtype == like.dtype else tokens.to(like.dtype)


def _sums(cell: _CellInputs) -> tuple[Tensor, Tensor]:
    """Return the numerator of h and the row sum of the weights."""
    scores = (cell.q @ cell.k.mT).mul_(pair_weights(cell.gates, scale=cell.scale))
    numerator, row_sum = scores @ cell.v, scores.sum(-1)
    if cell.q.shape[1] > 1:
        between = state_weights(cell.gates, scale=cell.scale)
        _, readers = writing_and_reading(cell.q.shape[1], reverse=cell.gates.reverse)
        C, n = _unpacked(_states(cell, between), cell.v.shape[3])
        query = cell.q[:, readers] * between.read[..., None]
        numerator[:, readers].add_(query @ C)
        row_sum[:, readers].add_((query @ n[..., None]).squeeze(-1))
    return numerator, row_sum


def _states(cell: _CellInputs, between: StateWeights) -> Tensor:
    """Return the packed states at the ends of the writing chunks.

    The result is (row, chunk - 1, dim * dim + dim).
    """
    writers, _ = writing_and_reading(cell.k.shape[1], reverse=cell.gates.reverse)
    key = cell.k[:, writers] * between.write[..., None]
    states = _packed(key.mT @ cell.v[:, writers], key.sum(2))
    _pass_on(states, between.decay, reverse=cell.gates.reverse, adjoint=False)
    return states


def _pass_on(states: Tensor, decay: Tensor, *, reverse: bool, adjoint: bool) -> None:
    """Solve the recurrence of the states over the chunks, in place."""
    solve_recurrence_(decay[None, ..., None], states[None], [reverse], adjoint)


def _packed(C: Tensor, n: Tensor) -> Tensor:
    """Concatenate C and n, for one recurrence over both."""
    return torch.cat((C.flatten(2), n), dim=2)


def _unpacked(states: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """View packed states as C and n.

    C is (row, chunk, dim, dim), and n is (row, chunk, dim).
    """
    C, n = states.split([dim * dim, dim], dim=2)
    return C.unflatten(2, (dim, dim)), n


def _normalisation(row_sum: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
    """Return h / numerator and a mask where |row sum| > exp(-m).

    Both sides of the fraction are multiplied by p = exp(min(m, 0)), so that exp(-m) cannot overflow.
    """
    p = torch.exp(m.clamp(max=0))
    floor = torch.exp(-m.clamp(min=0))
    magnitude = p * row_sum.abs()
    denominator = torch.maximum(magnitude, floor) + EPSILON * p
    return p / denominator, magnitude > floor


def _upstream(cell: _CellInputs, grad_h: Tensor, h: Tensor, row_sum: Tensor) -> _Upstream:
    """Compute the gradients before the normalization from that of h."""
    wide, chunk = cell.q.dtype, cell.q.shape[2]
    grad_h, h = (_cut(tensor.to(wide), chunk) for tensor in (grad_h, h))
    factor, exceeds = _normalisation(row_sum, cell.gates.m)
    grad_scaled = -factor * (grad_h * h).sum(-1)  # of the denominator before the factor p
    return _Upstream(
        numerator=grad_h * factor[..., None],
        row_sum=torch.where(exceeds, grad_scaled * row_sum.sign(), 0),
        m=EPSILON * grad_scaled,
    )


def _gradients(cell: _CellInputs, upstream: _Upstream) -> _Gradients:
    """Return the gradients through pairs inside chunks and states between them."""
    grads = _pair_gradients(cell, upstream)
    if cell.q.shape[1] > 1:
        writers, readers = writing_and_reading(cell.q.shape[1], reverse=cell.gates.reverse)
        passed = _state_gradients(cell, upstream)
        by_query = (cell.q[:, readers] * passed.q).sum(-1)
        by_key = (cell.k[:, writers] * passed.k).sum(-1)
        grads.q[:, readers].add_(passed.q)
        grads.k[:, writers].add_(passed.k)
        grads.v[:, writers].add_(passed.v)
        grads.by_key[:, writers].add_(by_key)
        reverse = cell.gates.reverse
        grads.log_forget[:, readers].add_(running_sum(by_query, reverse=not reverse))
        grads.log_forget[:, writers].add_(sum_before(by_key, reverse=reverse))
        grads.log_forget[:, 1:-1].add_(passed.over_chunk[..., None])
    return grads


def _pair_gradients(cell: _CellInputs, upstream: _Upstream) -> _Gradients:
    """Return the gradients through the quadratic form inside the chunks."""
    weights = pair_weights(cell.gates, scale=cell.scale)
    scores = (cell.q @ cell.k.mT).mul_(weights)
    grad_v = scores.mT @ upstream.numerator
    grad_scores = (upstream.numerator @ cell.v.mT).add_(upstream.row_sum[..., None])
    grad_D = scores.mul_(grad_scores)
    by_key = grad_D.sum(-2)
    log_forget = sum_across(grad_D, reverse=cell.gates.reverse)
    grad_dots = grad_scores.mul_(weights)
    return _Gradients(grad_dots @ cell.k, grad_dots.mT @ cell.q, grad_v, log_forget, by_key)


class _StateGradients(NamedTuple):
    """Gradients through the states between chunks.

    q has the chunks that read a state, and k and v those that write one. `over_chunk` is the sum of dL/dD over the
    pairs with a whole chunk between them, for all chunks except the first and the last.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    over_chunk: Tensor


def _state_gradients(cell: _CellInputs, upstream: _Upstream) -> _StateGradients:
    """Return the gradients through the states between the chunks."""
    reverse = cell.gates.reverse
    writers, readers = writing_and_reading(cell.q.shape[1], reverse=reverse)
    between = state_weights(cell.gates, scale=cell.scale)
    read, write = between.read[..., None], between.write[..., None]
    states = _states(cell, between)
    C, n = _unpacked(states, cell.v.shape[3])
    grad_numerator, grad_row_sum = upstream.numerator[:, readers], upstream.row_sum[:, readers, :, None]
    grad_q = (grad_numerator @ C.mT).addcmul_(grad_row_sum, n[:, :, None]).mul_(read)
    query = cell.q[:, readers] * read
    grad_states = _packed(query.mT @ grad_numerator, (query * grad_row_sum).sum(2))
    _pass_on(grad_states, between.decay, reverse=reverse, adjoint=True)
    grad_C, grad_n = _unpacked(grad_states, cell.v.shape[3])
    grad_k = (cell.v[:, writers] @ grad_C.mT).add_(grad_n[:, :, None]).mul_(write)
    grad_v = (cell.k[:, writers] * write) @ grad_C
    after, before = (slice(0, -1), slice(1, None)) if reverse else (slice(1, None), slice(0, -1))
    over_chunk = (grad_states[:, after] * states[:, before]).sum(-1) * between.decay[:, after]
    return _StateGradients(grad_q, grad_k, grad_v, over_chunk)


def _gate_gradients(gates: Gates, upstream: _Upstream, grads: _Gradients) -> tuple[Tensor, Tensor]:
    """Return the gradients of the input and log forget gates.

    Both are (row, token) with padding. They are the sum of the gradients through the weights and through
    m[t] = D[t, strongest[t]].
    """
    grad_m = upstream.m.flatten(1)
    from_m = torch.zeros_like(grad_m).scatter_add_(1, gates.strongest, grad_m)
    grad_log_forget = running_sum(grad_m - from_m, reverse=not gates.reverse).add_(
        grads.log_forget.flatten(1)
    )
    return grads.by_key.flatten(1) + from_m, grad_log_forget
