"""Instance norm by Triton, as custom operators with a few kernels each.

The backward pass keeps x, mean and rstd. With a residual and an activation it also keeps y, which has the sign of the
sum before the activation. The next layer keeps y anyway, so y costs no additional memory.
"""

from typing import Any

import torch
from torch import Tensor

from scanseg.ops._support.contract import state_dtype
from scanseg.ops._support.eager import short_path
from scanseg.ops._support.triton import on_its_device
from scanseg.ops._support.triton import refuses as triton_refuses

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def refuses(*tensors: Tensor | None) -> str | None:
    """Return why Triton cannot run a call with these tensors, or `None`."""
    x = tensors[0]
    if x is not None and x[0].numel() >= 2**31:
        return f"expected fewer than 2^31 elements per sample (offsets have 32 bits), got {x[0].numel()}"
    return triton_refuses(*tensors)


def instance_norm_triton(
    x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None, eps: float, negative_slope: float | None
) -> Tensor:
    """Normalize, add and activate, with the arguments of `instance_norm`."""
    y, _ = _direct(x, weight, bias, residual, eps, negative_slope)
    return y


@torch.library.custom_op("scanseg::instance_norm", mutates_args=())
@on_its_device
def _normalise(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    residual: Tensor | None,
    eps: float,
    negative_slope: float | None,
) -> tuple[Tensor, Tensor]:
    from scanseg.ops.instance_norm.triton_launch import normalise

    x, channels_last = _dense(x)
    return normalise(
        x,
        weight.contiguous(),
        bias.contiguous(),
        None if residual is None else _as_dense(residual, x, channels_last=channels_last),
        eps=eps,
        negative_slope=negative_slope,
        channels_last=channels_last,
    )


@_normalise.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    residual: Tensor | None,
    eps: float,
    negative_slope: float | None,
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(_dense(x)[0]), x.new_empty((2, *x.shape[:2]), dtype=state_dtype(x))


@torch.library.custom_op("scanseg::instance_norm_backward", mutates_args=())
@on_its_device
def _gradients(
    grad: Tensor,
    x: Tensor,
    y: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    stats: Tensor,
    negative_slope: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    from scanseg.ops.instance_norm.triton_launch import gradients

    x, channels_last = _dense(x)
    return gradients(
        _as_dense(grad, x, channels_last=channels_last),
        x,
        None if y is None else _as_dense(y, x, channels_last=channels_last),
        weight.contiguous(),
        bias.contiguous(),
        stats,
        negative_slope=negative_slope,
        channels_last=channels_last,
    )


@_gradients.register_fake
def _(
    grad: Tensor,
    x: Tensor,
    y: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    stats: Tensor,
    negative_slope: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    dense, _ = _dense(x)
    masked = y is not None and negative_slope is not None
    g = torch.empty_like(dense, dtype=grad.dtype) if masked else grad.new_empty(0)
    return torch.empty_like(dense), torch.empty_like(stats), g


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, weight, bias, residual, _, negative_slope = inputs
    y, stats = output
    ctx.negative_slope, ctx.has_residual = negative_slope, residual is not None
    needs_y = residual is not None and negative_slope is not None
    ctx.save_for_backward(x, weight, bias, stats, y if needs_y else None)
    ctx.residual_dtype = None if residual is None else residual.dtype
    ctx.mark_non_differentiable(stats)


def _backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, bias, stats, y = ctx.saved_tensors
    grad_x, sums, g = _direct_gradients(grad, x, y, weight, bias, stats, ctx.negative_slope)
    grad_bias, grad_weight = sums.sum(1).unbind(0)
    grad_residual = None
    if ctx.has_residual:
        grad_residual = (grad if y is None else g).to(ctx.residual_dtype)
    return grad_x, grad_weight.to(weight.dtype), grad_bias.to(bias.dtype), grad_residual, None, None


_normalise.register_autograd(_backward, setup_context=_keep)
_direct = short_path(_normalise, _keep, _backward)
_direct_gradients = short_path(_gradients)


def _dense(x: Tensor) -> tuple[Tensor, bool]:
    """Return the map without gaps in memory, and whether channels come last."""
    if x.is_contiguous():
        return x, False
    channels_last = _CHANNELS_LAST.get(x.ndim)
    if channels_last is None:
        return x.contiguous(), False
    if x.is_contiguous(memory_format=channels_last):
        return x, True
    # A part of a channels-last map, such as the gradient of a concatenation, has channels side by side.
    if x.stride(1) == 1:
        return x.contiguous(memory_format=channels_last), True
    return x.contiguous(), False


def _as_dense(tensor: Tensor, x: Tensor, *, channels_last: bool) -> Tensor:
    """Bring a tensor into the memory format of `x`."""
    return tensor.contiguous(
        memory_format=_CHANNELS_LAST[x.ndim] if channels_last else torch.contiguous_format
    )
