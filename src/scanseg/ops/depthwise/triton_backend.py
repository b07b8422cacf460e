"""Depthwise convolution by Triton: custom operators on channels-last maps."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from scanseg.ops._support import triton as triton_support
from scanseg.ops._support.contract import state_dtype
from scanseg.ops._support.eager import short_path
from scanseg.ops.depthwise.triton_launch import FORWARD, convolve, gradients


def refuses(x: Tensor, weight: Tensor, *others: Tensor | None) -> str | None:
    """Return why the kernels cannot run a call, or `None`."""
    if weight.shape[-1] not in FORWARD:
        return f"expected a kernel size of {', '.join(map(str, FORWARD))}, got {weight.shape[-1]}"
    return triton_support.refuses(x, weight, *others)


def depthwise_conv_triton(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    input_activation: str | None,
    activation: str | None,
    residual: bool,
) -> Tensor:
    """Convolve each channel, with the arguments of `depthwise_conv`."""
    tensors = (x, weight) if bias is None else (x, weight, bias)
    save_pre = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    rows = x.permute(0, 2, 3, 1).contiguous()
    taps = weight.flatten(1).t().contiguous()
    gelu, silu = input_activation == "gelu", activation == "silu"
    result: Tensor = _direct(rows, taps, bias, gelu=gelu, silu=silu, residual=residual, save_pre=save_pre)[0]
    return result.permute(0, 3, 1, 2)


@torch.library.custom_op("scanseg::depthwise_conv_triton", mutates_args=())
@triton_support.on_its_device
def _convolve(
    x: Tensor, taps: Tensor, bias: Tensor | None, *, gelu: bool, silu: bool, residual: bool, save_pre: bool
) -> tuple[Tensor, Tensor]:
    # Each element is read once for each column of the kernel, so a separate pass for GELU is cheaper.
    h = F.gelu(x) if gelu else x
    out, pre = convolve(h, taps, bias, before=None, silu=silu, residual=residual, save_pre=save_pre)
    return out, x.new_empty(0) if pre is None else pre


@_convolve.register_fake
def _(
    x: Tensor, taps: Tensor, bias: Tensor | None, *, gelu: bool, silu: bool, residual: bool, save_pre: bool
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(x) if silu and save_pre else x.new_empty(0)


@torch.library.custom_op("scanseg::depthwise_conv_triton_backward", mutates_args=())
@triton_support.on_its_device
def _convolve_backward(
    grad: Tensor,
    x: Tensor,
    pre: Tensor,
    taps: Tensor,
    *,
    has_bias: bool,
    gelu: bool,
    silu: bool,
    residual: bool,
) -> tuple[Tensor, Tensor]:
    return gradients(
        grad.contiguous(),
        x,
        pre if silu else None,
        taps,
        before=None,
        gelu=gelu,
        has_bias=has_bias,
        residual=residual,
    )


@_convolve_backward.register_fake
def _(
    grad: Tensor,
    x: Tensor,
    pre: Tensor,
    taps: Tensor,
    *,
    has_bias: bool,
    gelu: bool,
    silu: bool,
    residual: bool,
) -> tuple[Tensor, Tensor]:
    slots = taps.shape[0] + int(has_bias)
    return torch.empty_like(x), x.new_empty((slots, x.shape[3]), dtype=state_dtype(x))


def _keep(
    ctx: Any, inputs: tuple[Any, ...], keyword_only_inputs: dict[str, bool], output: tuple[Tensor, Tensor]
) -> None:
    x, taps, bias = inputs
    ctx.save_for_backward(x, output[1], taps)
    ctx.bias_dtype = None if bias is None else bias.dtype
    ctx.flags = {name: keyword_only_inputs[name] for name in ("gelu", "silu", "residual")}
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, grad: Tensor | None, grad_pre: Tensor | None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return None, None, None
    x, pre, taps = ctx.saved_tensors
    has_bias = ctx.bias_dtype is not None
    grad_x, sums = _direct_backward(grad, x, pre, taps, has_bias=has_bias, **ctx.flags)
    grad_bias = sums[-1].to(ctx.bias_dtype) if has_bias else None
    return grad_x, sums[: taps.shape[0]].to(taps.dtype), grad_bias


_convolve.register_autograd(_gradients, setup_context=_keep)
_direct = short_path(_convolve, _keep, _gradients)
_direct_backward = short_path(_convolve_backward)
