"""mLSTM cell by Triton, as custom operators.

Short sequences are one chunk. Every block of tokens reads the blocks before it, and no token x token matrix is ever in
memory. Longer sequences are cut into chunks with a state between them: the kernels compute the updates of the states,
pass them on, and compute the outputs, each step in parallel over the chunks, forward and backward. The backward pass
keeps the inputs, h, row sums and five numbers per token of the gates.

In a tiled layout (bfloat16, 64 or 128 features) it also keeps the states, and a kernel reads every tensor once.
Forward and backward together read or write a tensor of q's size 16 times and the states 10 times, and take
1472 DIM + 12 DIM^2 operations for a token and head. (batch, head, token, dim) = (12, 4, 4096, 128) takes 76 GFLOP,
1.29 GB and 0.30 ms at 4.27 TB/s. (13, 4, 15360, 64) takes 114 GFLOP, 2.1 GB and 0.50 ms. Other layouts read features in
parts and compute the states again.

Names: see the package. The kernels are in `triton_gates`, `triton_states`, `triton_outputs`, `triton_gradients`,
`triton_tile_states` and `triton_tile_gradients`, which are imported on first use.
"""

from typing import Any

import torch
from torch import Tensor

from scanseg.ops._support.contract import state_dtype
from scanseg.ops._support.eager import short_path
from scanseg.ops._support.triton import on_its_device
from scanseg.ops.mlstm.triton_layout import Layout, lay_out, like_tokens, states_shapes


def mlstm_triton(q: Tensor, k: Tensor, v: Tensor, igate: Tensor, fgate: Tensor, *, reverse: bool) -> Tensor:
    """Compute the cell, with the arguments of `mlstm`."""
    dtype = q.dtype
    common = torch.promote_types(torch.promote_types(q.dtype, k.dtype), v.dtype)
    if state_dtype(q, k, v, igate, fgate) == torch.float64:
        common = torch.float64
    h: Tensor = _direct(q.to(common), k.to(common), v.to(common), igate, fgate, reverse)[0]
    return h.to(dtype)


@torch.library.custom_op("scanseg::mlstm_triton", mutates_args=())
@on_its_device
def run_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    igate: Tensor,
    fgate: Tensor,
    reverse: bool,  # noqa: FBT001 (part of the operator's schema)
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return h, row sums, planes, frames and states.

    Planes and frames belong to the gates. The states between chunks are matrices and normalizers, empty without a tiled
    layout. The backward pass keeps these and the inputs.
    """
    from scanseg.ops.mlstm.triton_launch import Launcher
    from scanseg.ops.mlstm.triton_tile_launch import TileLauncher

    q, k, v = (_with_adjacent_features(tensor) for tensor in (q, k, v))
    layout = lay_out(q.shape[2], q.shape[3], q.dtype)
    launcher = (TileLauncher if layout.tiled else Launcher).of(q, layout, reverse=reverse)
    planes, frames = launcher.gates(igate, fgate)
    states = launcher.states(k, v, planes, frames)
    h, row_sums = launcher.outputs(q, k, v, planes, frames, states)
    return h, row_sums, planes, frames, *(states if layout.tiled else _empty_states(q, layout, planes.dtype))


@run_forward.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    igate: Tensor,
    fgate: Tensor,
    reverse: bool,  # noqa: FBT001
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    batch, head, token, dim = q.shape
    layout, wide = lay_out(token, dim, q.dtype), state_dtype(q)
    rows = batch * head
    return (
        like_tokens(q),
        q.new_empty((rows, token), dtype=wide),
        q.new_empty((5, rows, layout.num_chunks * layout.padded), dtype=wide),
        q.new_empty((rows, layout.num_chunks), dtype=wide),
        *_empty_states(q, layout, wide),
    )


def _empty_states(q: Tensor, layout: Layout, wide: torch.dtype) -> tuple[Tensor, Tensor]:
    """Allocate the states that are kept for the backward pass."""
    batch, head, _, dim = q.shape
    matrices, normalizers = states_shapes(batch * head, dim, layout)
    return q.new_empty(matrices), q.new_empty(normalizers, dtype=wide)


@torch.library.custom_op("scanseg::mlstm_triton_backward", mutates_args=())
@on_its_device
def run_backward(
    grad_h: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    fgate: Tensor,
    h: Tensor,
    row_sums: Tensor,
    planes: Tensor,
    frames: Tensor,
    matrices: Tensor,
    normalisers: Tensor,
    reverse: bool,  # noqa: FBT001
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of q, k, v, igate and fgate.

    Those of the gates have the dtype of the state.
    """
    from scanseg.ops.mlstm.triton_launch import Launcher
    from scanseg.ops.mlstm.triton_tile_launch import TileLauncher

    q, k, v, h, grad_h = (_with_adjacent_features(tensor) for tensor in (q, k, v, h, grad_h))
    layout = lay_out(q.shape[2], q.shape[3], q.dtype)
    launcher = (TileLauncher if layout.tiled else Launcher).of(q, layout, reverse=reverse)
    states = (matrices, normalisers)
    return launcher.gradients(grad_h, q, k, v, fgate, h, row_sums, planes, frames, states)


@run_backward.register_fake
def _(
    grad_h: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    fgate: Tensor,
    h: Tensor,
    row_sums: Tensor,
    planes: Tensor,
    frames: Tensor,
    matrices: Tensor,
    normalisers: Tensor,
    reverse: bool,  # noqa: FBT001
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    gate = (q.shape[:3], planes.dtype)
    return (
        like_tokens(q),
        like_tokens(q),
        like_tokens(q),
        q.new_empty(gate[0], dtype=gate[1]),
        q.new_empty(gate[0], dtype=gate[1]),
    )


def _with_adjacent_features(tensor: Tensor) -> Tensor:
    return tensor if tensor.stride(3) == 1 else tensor.contiguous()


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, k, v, igate, fgate, reverse = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(q, k, v, fgate, *output)
    ctx.igate_dtype, ctx.fgate_dtype, ctx.reverse = igate.dtype, fgate.dtype, reverse


def _gradients(ctx: Any, grad_h: Tensor | None, *others: Tensor | None) -> tuple[Tensor | None, ...]:
    if grad_h is None:
        return (None,) * 6
    grads = _direct_backward(grad_h, *ctx.saved_tensors, ctx.reverse)
    grad_q, grad_k, grad_v, grad_igate, grad_fgate = grads
    return grad_q, grad_k, grad_v, grad_igate.to(ctx.igate_dtype), grad_fgate.to(ctx.fgate_dtype), None


run_forward.register_autograd(_gradients, setup_context=_keep)
_direct = short_path(run_forward, _keep, _gradients)
_direct_backward = short_path(run_backward)
