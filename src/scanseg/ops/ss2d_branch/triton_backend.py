"""All of SS2D as one autograd function over Triton kernels and matrix products.

As separate operators, a branch passes autograd a dozen times, autocast converts each weight in a launch of its own,
and gradients of weights are rounded to 16 bits and converted back. Here the host only launches kernels. A call that is
traced, by `torch.compile` for example, is refused.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from scanseg.ops._support import triton as triton_support
from scanseg.ops._support.eager import is_traced
from scanseg.ops._support.linear import as_map, as_rows, weight_gradient
from scanseg.ops.channel_norm.triton_backend import MOST_CHANNELS, norm_gradients, normalise
from scanseg.ops.depthwise.triton_launch import FORWARD, convolve, gradients
from scanseg.ops.ss2d.triton_backend import scan, scan_gradients


def refuses(x: Tensor, conv_weight: Tensor, *others: Tensor) -> str | None:
    """Return why the function cannot run a call, or `None`."""
    if torch.compiler.is_compiling() or is_traced(x, conv_weight, *others):
        return (
            "expected a call outside of tracing, got one under torch.compile, a dispatch mode or a transform"
        )
    if conv_weight.shape[-1] not in FORWARD:
        return f"expected a kernel size of {', '.join(map(str, FORWARD))}, got {conv_weight.shape[-1]}"
    if x.shape[1] > MOST_CHANNELS:
        return f"expected at most {MOST_CHANNELS} channels, got {x.shape[1]}"
    return triton_support.refuses(x, conv_weight, *others)


def ss2d_branch_triton(*tensors: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """Compute the branch, with the arguments of `ss2d_branch`."""
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        result: Tensor = _Branch.apply(*tensors, eps, dtype)
        return result
    return _forward(*tensors, eps=eps, dtype=dtype, kept=None)


@triton_support.on_its_device
def _forward(
    x: Tensor,
    in_weight: Tensor,
    conv_weight: Tensor,
    x_weight: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    A_log: Tensor,
    D_skip: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    out_weight: Tensor,
    *,
    eps: float,
    dtype: torch.dtype,
    kept: list[Tensor] | None,
) -> Tensor:
    """Compute the branch and append the tensors for its gradients to `kept`, unless it is `None`."""
    rows = as_rows(x, dtype)
    of_in, of_x, of_out = (weight.to(dtype) for weight in (in_weight, x_weight, out_weight))
    entered = as_map(torch.mm(rows, of_in.t()), x)
    taps = conv_weight.flatten(1).t().contiguous()
    convolved, before_silu = convolve(
        entered.permute(0, 2, 3, 1),
        taps,
        None,
        before=None,
        silu=True,
        residual=False,
        save_pre=kept is not None,
    )
    convolved_rows = convolved.view(-1, convolved.shape[-1])
    projected = torch.mm(convolved_rows, of_x.flatten(0, 1).t())
    directions, channels, _ = x_weight.shape
    projected = projected.view(*convolved.shape[:3], directions, channels).permute(0, 3, 4, 1, 2)
    convolved = convolved.permute(0, 3, 1, 2)
    merged, states, rates, skips = scan(convolved, projected, dt_weight, dt_bias, A_log, D_skip)
    _, normed = normalise(merged.permute(0, 2, 3, 1), None, None, norm_weight, norm_bias, eps, dtype, 1)
    result = as_map(torch.mm(normed.view(-1, normed.shape[-1]), of_out.t()), x)
    if kept is not None:
        kept += [rows, of_in, entered, taps, convolved, before_silu, of_x, projected]
        kept += [merged, states, rates, skips, normed, of_out]
    return result


class _Branch(torch.autograd.Function):
    """The branch with its gradients."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        *tensors, eps, dtype = arguments
        kept: list[Tensor] = []
        result: Tensor = _forward(*tensors, eps=eps, dtype=dtype, kept=kept)
        ctx.save_for_backward(*tensors[1:], *kept)
        ctx.eps, ctx.x_dtype = eps, tensors[0].dtype
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return *_gradients(grad, *ctx.saved_tensors, eps=ctx.eps, x_dtype=ctx.x_dtype), None, None


@triton_support.on_its_device
def _gradients(
    grad: Tensor,
    in_weight: Tensor,
    conv_weight: Tensor,
    x_weight: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    A_log: Tensor,
    D_skip: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    out_weight: Tensor,
    rows: Tensor,
    of_in: Tensor,
    entered: Tensor,
    taps: Tensor,
    convolved: Tensor,
    before_silu: Tensor,
    of_x: Tensor,
    projected: Tensor,
    merged: Tensor,
    states: Tensor,
    rates: Tensor,
    skips: Tensor,
    normed: Tensor,
    of_out: Tensor,
    *,
    eps: float,
    x_dtype: torch.dtype,
) -> tuple[Tensor, ...]:
    """Return the gradients of the branch's tensors, from those of the backward pass and of `kept`."""
    grad_rows = as_rows(grad, rows.dtype)
    normed_rows = normed.view(grad_rows.shape[0], -1)
    grad_normed = torch.mm(grad_rows, of_out).view_as(normed)
    grad_merged, _, of_norm = norm_gradients(
        grad_normed, grad_normed, merged.permute(0, 2, 3, 1), None, norm_weight, eps, 1, merged.dtype, None
    )
    grad_convolved, grad_projected, *of_scan = scan_gradients(
        grad_merged.permute(0, 3, 1, 2),
        convolved,
        projected,
        *(dt_weight, dt_bias, A_log, D_skip),
        *(states, rates, skips),
    )
    convolved_rows = as_rows(convolved, rows.dtype)
    projected_rows = grad_projected.permute(0, 3, 4, 1, 2).reshape(grad_rows.shape[0], -1)
    grad_convolved = torch.addmm(as_rows(grad_convolved, rows.dtype), projected_rows, of_x.flatten(0, 1))
    pixels = entered.permute(0, 2, 3, 1)
    grad_entered, of_taps = gradients(
        grad_convolved.view(pixels.shape),
        pixels,
        before_silu,
        taps,
        before=None,
        gelu=False,
        has_bias=False,
        residual=False,
    )
    entered_rows = grad_entered.view(grad_rows.shape[0], -1)
    return (
        as_map(torch.mm(entered_rows, of_in), grad).to(x_dtype),
        weight_gradient(entered_rows, rows, in_weight),
        of_taps.t().reshape(conv_weight.shape).to(conv_weight.dtype),
        weight_gradient(projected_rows, convolved_rows, x_weight),
        *of_scan,
        of_norm[0].to(norm_weight.dtype),
        of_norm[1].to(norm_bias.dtype),
        weight_gradient(grad_rows, normed_rows, out_weight),
    )
