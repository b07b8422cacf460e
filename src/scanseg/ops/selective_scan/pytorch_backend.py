"""Selective scan in PyTorch, parallel over tokens, with a hand-written gradient.

Tokens come before channels in memory, so that every level of the recurrence moves whole rows. The backward pass keeps
the inputs only and recomputes the states.

Layout, here and in `ss2d`: (pass, group, token, batch, state, dim), with size 1 for missing axes: the state of u, delta
and y, the token and batch of A, and the dim of B and C. Names: see the package.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from scanseg.ops._support.contract import state_dtype
from scanseg.ops._support.recurrence import solve_recurrence_


class ScanGradients(NamedTuple):
    """Gradients of one scan, each in the layout of its tensor.

    If all passes share one u, its gradient is summed over the passes.
    """

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor


def scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, *, reverse: list[bool]) -> Tensor:
    """Compute y[t] = <C[t], h[t]> without the skip.

    Tensors have the layout of this module. `reverse` holds one value per pass.
    """
    _, h = _states(u, delta, A, B, reverse=reverse)
    return _sum_state(h.mul_(C))


def scan_gradients(
    grad_y: Tensor, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, *, reverse: list[bool]
) -> ScanGradients:
    """Compute the gradients of `scan` from the gradient of its result.

    `grad_y` has one pass, or one for each pass of the scan.
    """
    decay, h = _states(u, delta, A, B, reverse=reverse)
    grad_C = (grad_y * h).sum(-1, keepdim=True)
    grad_h = grad_y * C
    solve_recurrence_(decay, grad_h, reverse, True)
    grad_exponent = _times_previous(decay.mul_(grad_h), h, reverse=reverse)
    del decay, h
    written = delta * u
    grad_B = (grad_h * written).sum(-1, keepdim=True)
    del written
    grad_A = (grad_exponent * delta).sum((2, 3), keepdim=True)
    grad_written = _sum_state(grad_h.mul_(B))
    grad_delta = torch.addcmul(_sum_state(grad_exponent.mul_(A)), grad_written, u)
    grad_u = grad_written.mul_(delta)
    if u.shape[0] < grad_u.shape[0]:
        grad_u = grad_u.sum(0, keepdim=True)
    return ScanGradients(grad_u, grad_delta, grad_A, grad_B, grad_C)


def selective_scan_chunked(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, *, reverse: bool
) -> Tensor:
    """Compute the scan, with the arguments of `selective_scan`."""
    y: Tensor = _SelectiveScan.apply(u, delta, A, B, C, reverse)
    if D is not None:
        y = y + D.to(y.dtype)[..., None] * u
    return y.to(u.dtype)


class _SelectiveScan(torch.autograd.Function):
    """Scan without the skip, in the dtype of the state."""

    @staticmethod
    def forward(
        ctx: Any,
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        reverse: bool,  # noqa: FBT001 (apply takes no keywords)
    ) -> Tensor:
        ctx.save_for_backward(u, delta, A, B, C)
        ctx.reverse = reverse
        return _from_rows(scan(*_rows(u, delta, A, B, C), reverse=[reverse]))

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        u, delta, A, B, C = ctx.saved_tensors
        rows = _rows(u, delta, A, B, C)
        grads = scan_gradients(_row_channels(grad_y, grad_y.dtype), *rows, reverse=[ctx.reverse])
        return (
            _from_rows(grads.u).to(u.dtype),
            _from_rows(grads.delta).to(delta.dtype),
            grads.A[0, :, 0, 0].mT.to(A.dtype),
            grads.B[0, ..., 0].permute(2, 0, 3, 1).to(B.dtype),
            grads.C[0, ..., 0].permute(2, 0, 3, 1).to(C.dtype),
            None,
        )


def _states(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, *, reverse: list[bool]) -> tuple[Tensor, Tensor]:
    """Return the decays exp(delta A) and the states h."""
    decay = (delta * A).exp_()
    h = (delta * u) * B
    solve_recurrence_(decay, h, reverse, False)
    return decay, h


def _times_previous(tensor: Tensor, h: Tensor, *, reverse: list[bool]) -> Tensor:
    """Multiply by the state before each token, in place.

    The state before the first token is 0.
    """
    for index, is_reverse in enumerate(reverse):
        first = -1 if is_reverse else 0
        later, previous = (slice(0, -1), slice(1, None)) if is_reverse else (slice(1, None), slice(0, -1))
        tensor[index, :, later].mul_(h[index, :, previous])
        tensor[index, :, first].zero_()
    return tensor


def _sum_state(tensor: Tensor) -> Tensor:
    """Sum over the state axis, without a copy for one state."""
    return tensor if tensor.shape[4] == 1 else tensor.sum(4, keepdim=True)


def _rows(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, ...]:
    """Convert the arguments of `selective_scan` to the layout of this module.

    The result has the dtype of the state.
    """
    wide = state_dtype(u, delta, A, B, C)
    rates = A.mT[None, :, None, None].to(wide)
    return (
        _row_channels(u, wide),
        _row_channels(delta, wide),
        rates,
        _row_states(B, wide),
        _row_states(C, wide),
    )


def _row_channels(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Convert (batch, group, dim, token) to (1, group, token, batch, 1, dim)."""
    return tensor.permute(1, 3, 0, 2).to(dtype).contiguous()[None, ..., None, :]


def _row_states(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Convert (batch, group, state, token) to (1, group, token, batch, state, 1)."""
    return tensor.permute(1, 3, 0, 2).to(dtype).contiguous()[None, ..., None]


def _from_rows(tensor: Tensor) -> Tensor:
    """Convert (1, group, token, batch, 1, dim) to (batch, group, dim, token)."""
    return tensor[0, ..., 0, :].permute(2, 0, 3, 1)
