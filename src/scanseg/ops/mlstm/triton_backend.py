"""mLSTM cell by Triton, as custom operators.

Short sequences are one chunk. Every block of tokens reads the blocks before it, and no token x token matrix is ever in
memory. Longer sequences are cut into chunks with a state between them: the kernels compute the updates of the states,
scan over them, and compute the outputs, each step in parallel over the chunks, forward and backward. The backward pass
keeps the inputs, h, row sums and five numbers per token of the gates, and recomputes the states.

Minimum work of forward and backward in bfloat16, with DIM features, chunks of L tokens and blocks of 64, for one token
and head: nine products with (L + 64) / 2 tokens and six with a state, 2 DIM operations each, which is
9 (L + 64) DIM + 12 DIM^2. Minimum bytes: 44 DIM for q, k, v, h and gradients, as often as kernels read them,
32 DIM^2 / L for states, and about 250 for gates. (batch, head, token, dim) = (12, 4, 4096, 128) takes 111 GFLOP, 1.6 GB
and 0.53 ms at 2.98 TB/s. (13, 4, 15360, 64) takes 128 GFLOP, 3.3 GB and 1.1 ms.

Names: see the package. The kernels are in `triton_gates`, `triton_states`, `triton_outputs` and `triton_gradients`,
which are imported on first use.
"""

from typing import Any

import torch
from torch import Tensor

from scanseg.ops._support.contract import state_dtype
from scanseg.ops._support.eager import short_path
from scanseg.ops._support.triton import on_its_device
from scanseg.ops.mlstm.triton_layout import lay_out, like_tokens


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
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return h, row sums, and planes and frames of the gates.

    The backward pass keeps these and the inputs.
    """
    from scanseg.ops.mlstm.triton_launch import Launcher

    q, k, v = (_with_adjacent_features(tensor) for tensor in (q, k, v))
    launcher = Launcher.of(q, lay_out(q.shape[2], q.shape[3], q.dtype), reverse=reverse)
    planes, frames = launcher.gates(igate, fgate)
    h, row_sums = launcher.outputs(q, k, v, planes, frames)
    return h, row_sums, planes, frames


@run_forward.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    igate: Tensor,
    fgate: Tensor,
    reverse: bool,  # noqa: FBT001
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, head, token, dim = q.shape
    layout, wide = lay_out(token, dim, q.dtype), state_dtype(q)
    rows = batch * head
    return (
        like_tokens(q),
        q.new_empty((rows, token), dtype=wide),
        q.new_empty((5, rows, layout.num_chunks * layout.padded), dtype=wide),
        q.new_empty((rows, layout.num_chunks), dtype=wide),
    )


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
    reverse: bool,  # noqa: FBT001
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of q, k, v, igate and fgate.

    Those of the gates have the dtype of the state.
    """
    from scanseg.ops.mlstm.triton_launch import Launcher

    q, k, v, h, grad_h = (_with_adjacent_features(tensor) for tensor in (q, k, v, h, grad_h))
    launcher = Launcher.of(q, lay_out(q.shape[2], q.shape[3], q.dtype), reverse=reverse)
    return launcher.gradients(grad_h, q, k, v, fgate, h, row_sums, planes, frames)


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
    ctx.igate_dtype, ctx.reverse = igate.dtype, reverse


def _gradients(ctx: Any, grad_h: Tensor | None, *others: Tensor | None) -> tuple[Tensor | None, ...]:
    if grad_h is None:
        return (None,) * 6
    q, k, v, fgate, h, row_sums, planes, frames = ctx.saved_tensors
    grads = _direct_backward(grad_h, q, k, v, fgate, h, row_sums, planes, frames, ctx.reverse)
    grad_q, grad_k, grad_v, grad_igate, grad_fgate = grads
    return grad_q, grad_k, grad_v, grad_igate.to(ctx.igate_dtype), grad_fgate.to(fgate.dtype), None


run_forward.register_autograd(_gradients, setup_context=_keep)
_direct = short_path(run_forward, _keep, _gradients)
_direct_backward = short_path(run_backward)
