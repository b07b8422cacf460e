"""The depthwise convolution on the GPU, by Triton: custom operators on maps with channels last."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from scanseg.ops import triton_support
from scanseg.ops.depthwise.launch import FORWARD, convolve, gradients


def refuses(x: Tensor, weight: Tensor, *others: Tensor | None) -> str | None:
    """Say why the kernels cannot serve a call, or None."""
    if weight.shape[-1] not in FORWARD:
        return f"its kernels have the sizes {', '.join(map(str, FORWARD))}, not {weight.shape[-1]}"
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
    """Convolve; arguments as `depthwise_conv`."""
    tensors = (x, weight) if bias is None else (x, weight, bias)
    save_pre = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    rows = x.permute(0, 2, 3, 1).contiguous()
    gelu, silu = input_activation == "gelu", activation == "silu"
    result: Tensor = _convolve(
        rows, weight, bias, gelu=gelu, silu=silu, residual=residual, save_pre=save_pre
    )[0]
    return result.permute(0, 3, 1, 2)


@torch.library.custom_op("scanseg::depthwise_conv_triton", mutates_args=())
def _convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, *, gelu: bool, silu: bool, residual: bool, save_pre: bool
) -> tuple[Tensor, Tensor]:
    # Each element is read once for each column of the kernel: GELU is cheaper in a pass of its own.
    h = F.gelu(x) if gelu else x
    return convolve(h, weight, bias, before=None, silu=silu, residual=residual, save_pre=save_pre)


@_convolve.register_fake
def _(
    x: Tensor, weight: Tensor, bias: Tensor | None, *, gelu: bool, silu: bool, residual: bool, save_pre: bool
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(x) if silu and save_pre else x.new_empty(0)


@torch.library.custom_op("scanseg::depthwise_conv_triton_backward", mutates_args=())
def _convolve_backward(
    grad: Tensor,
    x: Tensor,
    pre: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    gelu: bool,
    silu: bool,
    residual: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    grad_x, sums = gradients(
        grad.contiguous(),
        x,
        pre if silu else None,
        weight,
        before=None,
        gelu=gelu,
        has_bias=bias is not None,
        residual=residual,
    )
    grad_weight = sums.taps.t().contiguous().view(weight.shape).to(weight.dtype)
    if bias is None or sums.bias is None:
        return grad_x, grad_weight, x.new_empty(0)
    return grad_x, grad_weight, sums.bias.to(bias.dtype, copy=True)


@_convolve_backward.register_fake
def _(
    grad: Tensor,
    x: Tensor,
    pre: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    gelu: bool,
    silu: bool,
    residual: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.empty_like(x),
        weight.new_empty(weight.shape),
        x.new_empty(0) if bias is None else bias.new_empty(bias.shape),
    )


def _keep(
    ctx: Any, inputs: tuple[Any, ...], keyword_only_inputs: dict[str, bool], output: tuple[Tensor, Tensor]
) -> None:
    x, weight, bias = inputs
    ctx.save_for_backward(x, output[1], weight, bias)
    ctx.flags = {name: keyword_only_inputs[name] for name in ("gelu", "silu", "residual")}
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, grad: Tensor | None, grad_pre: Tensor | None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return None, None, None
    x, pre, weight, bias = ctx.saved_tensors
    grad_x, grad_weight, grad_bias = _convolve_backward(grad, x, pre, weight, bias, **ctx.flags)
    return grad_x, grad_weight, None if bias is None else grad_bias


_convolve.register_autograd(_gradients, setup_context=_keep)
