"""Four-direction scan on the CPU, compiled by numba on first use.

Numba comes with the extra `cpu`. The kernels are in `numba_kernels`, which this module imports on first use only. The
other operations use PyTorch: the skips, sums over batch and channels, and matrix products with the gradients of the
step sizes. The backward pass keeps the inputs only.

Names: see the package.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from scanseg.ops._support.contract import state_dtype, without_autocast
from scanseg.ops._support.cpu import LANES, run_tasks
from scanseg.ops._support.eager import short_path


def ss2d_scan_compiled_cpu(
    x: Tensor, projected: Tensor, dt_weight: Tensor, dt_bias: Tensor, A_log: Tensor, D_skip: Tensor
) -> Tensor:
    """Compute the merged scan, with the arguments of `ss2d_scan`."""
    merged: Tensor = _direct(x, projected, dt_weight, dt_bias, A_log, D_skip)
    return merged


@torch.library.custom_op("scanseg::ss2d_scan_compiled_cpu", mutates_args=(), device_types="cpu")
def _scan(
    x: Tensor, projected: Tensor, dt_weight: Tensor, dt_bias: Tensor, A_log: Tensor, D_skip: Tensor
) -> Tensor:
    from scanseg.ops.ss2d.numba_kernels import scan_maps

    with without_autocast(x):
        arguments = _arguments(x, projected, dt_weight, dt_bias, A_log)
        merged = arguments[0].new_empty(x.shape)
        run_tasks(scan_maps, _num_tasks(x), *(tensor.numpy() for tensor in (*arguments, merged.flatten(2))))
        return merged.addcmul_(D_skip.to(merged.dtype).sum(0)[:, None, None], x.to(merged.dtype))


@_scan.register_fake
def _(
    x: Tensor, projected: Tensor, dt_weight: Tensor, dt_bias: Tensor, A_log: Tensor, D_skip: Tensor
) -> Tensor:
    return x.new_empty(x.shape, dtype=state_dtype(x))


@torch.library.custom_op("scanseg::ss2d_scan_compiled_cpu_backward", mutates_args=(), device_types="cpu")
def _scan_backward(
    grad_merged: Tensor,
    x: Tensor,
    projected: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    A_log: Tensor,
    D_skip: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    from scanseg.ops.ss2d.numba_kernels import scan_maps_gradients

    batch, dim, height, width = x.shape
    state, padded = A_log.shape[2], dim + -dim % LANES
    with without_autocast(x):
        arguments = _arguments(x, projected, dt_weight, dt_bias, A_log)
        maps, rows = arguments[:2]
        rates = arguments[4].view(4, state, padded)[..., :dim]
        grad_merged = grad_merged.to(maps.dtype).contiguous()
        grad_x = maps.new_empty(x.shape)
        grad_steps = maps.new_empty((batch, 4, height * width, padded))
        grad_states = maps.new_empty((batch, 4, padded // LANES, height * width, 2 * state))
        grad_rates = maps.new_empty((batch, 4, state, padded))
        results = (grad_x.flatten(2), grad_steps.view(-1), grad_states, grad_rates.view(-1))
        run_tasks(
            scan_maps_gradients,
            _num_tasks(x),
            *(tensor.numpy() for tensor in (*arguments, grad_merged.flatten(2), *results)),
        )
        grad_x.addcmul_(D_skip.to(maps.dtype).sum(0)[:, None, None], grad_merged)
        # (4, batch * token, ...), so that one product per direction sums over batch and tokens.
        grad_steps = grad_steps[..., :dim].transpose(0, 1).flatten(1, 2)
        low = rows[..., : dt_weight.shape[2]].transpose(0, 1).flatten(1, 2)
        grad_low = torch.bmm(grad_steps, dt_weight.to(maps.dtype)).unflatten(1, (batch, -1)).transpose(0, 1)
        grad_projected = torch.cat((grad_low, grad_states.sum(2)), dim=-1).mT
        return (
            grad_x.to(x.dtype),
            grad_projected.to(projected.dtype).contiguous().view(projected.shape),
            torch.bmm(grad_steps.mT, low).to(dt_weight.dtype),
            grad_steps.sum(1).to(dt_bias.dtype),
            (grad_rates[..., :dim].sum(0) * rates).mT.to(A_log.dtype).contiguous(),
            (grad_merged * x).sum((0, 2, 3)).to(D_skip.dtype).repeat(4, 1),
        )


@_scan_backward.register_fake
def _(
    grad_merged: Tensor,
    x: Tensor,
    projected: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    A_log: Tensor,
    D_skip: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    return (
        x.new_empty(x.shape),
        projected.new_empty(projected.shape),
        dt_weight.new_empty(dt_weight.shape),
        dt_bias.new_empty(dt_bias.shape),
        A_log.new_empty(A_log.shape),
        D_skip.new_empty(D_skip.shape),
    )


def _keep_inputs(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gradients(ctx: Any, grad_merged: Tensor) -> tuple[Tensor, ...]:
    grads: tuple[Tensor, ...] = _direct_backward(grad_merged, *ctx.saved_tensors)
    return grads


_scan.register_autograd(_gradients, setup_context=_keep_inputs)
# The first call of a custom operator loads PyTorch's compiler, which takes a second.
_direct = short_path(_scan, _keep_inputs, _gradients)
_direct_backward = short_path(_scan_backward)


def _num_tasks(x: Tensor) -> int:
    return x.shape[0] * -(-x.shape[1] // LANES)


def _arguments(
    x: Tensor, projected: Tensor, dt_weight: Tensor, dt_bias: Tensor, A_log: Tensor
) -> list[Tensor]:
    """Convert the arguments to the layout and dtype of the kernels."""
    wide = state_dtype(x)
    height, width = x.shape[2:]
    raster = torch.arange(height * width)
    padding = (0, -x.shape[1] % LANES)
    return [
        x.to(wide).contiguous().flatten(2),
        projected.to(wide).flatten(3).mT.contiguous(),
        F.pad(dt_weight.to(wide).mT, padding).flatten(),
        F.pad(dt_bias.to(wide), padding).flatten(),
        F.pad(-torch.exp(A_log.to(wide)).mT, padding).flatten(),
        torch.stack((raster, raster.view(height, width).t().flatten())),
    ]
