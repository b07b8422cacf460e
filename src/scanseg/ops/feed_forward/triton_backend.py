"""The feed-forward branch as one autograd function, as `scanseg.ops.ss2d_branch` is. Traced calls are refused."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from scanseg.ops._support import triton as triton_support
from scanseg.ops._support.eager import is_traced
from scanseg.ops._support.linear import as_map, as_rows, bias_gradient, weight_gradient
from scanseg.ops.depthwise.triton_launch import FORWARD, convolve, gradients


def refuses(
    x: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor, *kernels: Tensor
) -> str | None:
    """Return why the function cannot run a call, or `None`."""
    tensors = (x, weight1, bias1, weight2, bias2, *kernels)
    if torch.compiler.is_compiling() or is_traced(*tensors):
        return (
            "expected a call outside of tracing, got one under torch.compile, a dispatch mode or a transform"
        )
    largest = max((kernel.shape[-1] for kernel in kernels), default=1)
    if largest not in FORWARD:
        return f"expected a kernel size of {', '.join(map(str, FORWARD))}, got {largest}"
    return triton_support.refuses(*tensors)


def feed_forward_triton(*tensors: Tensor, dtype: torch.dtype) -> Tensor:
    """Compute the branch, with the arguments of `feed_forward`."""
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        result: Tensor = _Branch.apply(*tensors, dtype)
        return result
    return _forward(*tensors, dtype=dtype, kept=None)


@triton_support.on_its_device
def _forward(
    x: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    *kernels: Tensor,
    dtype: torch.dtype,
    kept: list[Tensor] | None,
) -> Tensor:
    """Compute the branch and append the tensors for its gradients to `kept`, unless it is `None`."""
    rows = as_rows(x, dtype)
    first, last = weight1.to(dtype), weight2.to(dtype)
    hidden = torch.addmm(bias1.to(dtype), rows, first.t())
    mixed = F.gelu(hidden)
    taps = mixed
    if kernels:
        taps = _merged_taps(kernels)
        pixels = mixed.view(x.shape[0], *x.shape[2:], -1)
        mixed, _ = convolve(pixels, taps, None, before=None, silu=False, residual=True, save_pre=False)
        mixed = mixed.view(hidden.shape)
    if kept is not None:
        kept += [rows, first, hidden, taps, mixed, last]
    return as_map(torch.addmm(bias2.to(dtype), mixed, last.t()), x)


class _Branch(torch.autograd.Function):
    """The branch with its gradients."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        *tensors, dtype = arguments
        kept: list[Tensor] = []
        result: Tensor = _forward(*tensors, dtype=dtype, kept=kept)
        ctx.save_for_backward(*kept, *tensors[1:])
        ctx.x_dtype = tensors[0].dtype
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return *_gradients(grad, *ctx.saved_tensors, x_dtype=ctx.x_dtype), None


@triton_support.on_its_device
def _gradients(
    grad: Tensor,
    rows: Tensor,
    first: Tensor,
    hidden: Tensor,
    taps: Tensor,
    mixed: Tensor,
    last: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    *kernels: Tensor,
    x_dtype: torch.dtype,
) -> tuple[Tensor, ...]:
    """Return the gradients of the branch's tensors, from those of `kept` and of the parameters."""
    grad_rows = as_rows(grad, rows.dtype)
    grad_mixed = torch.mm(grad_rows, last)
    if kernels:
        batch, _, height, width = grad.shape
        shape = (batch, height, width, hidden.shape[1])
        grad_hidden, of_taps = gradients(
            grad_mixed.view(shape),
            hidden.view(shape),
            None,
            taps,
            before=None,
            gelu=True,
            has_bias=False,
            residual=True,
        )
        grad_hidden = grad_hidden.view(hidden.shape)
        of_kernels = _kernel_gradients(of_taps, kernels)
    else:
        grad_hidden = torch.ops.aten.gelu_backward(grad_mixed, hidden)
        of_kernels = []
    return (
        as_map(torch.mm(grad_hidden, first), grad).to(x_dtype),
        weight_gradient(grad_hidden, rows, weight1),
        bias_gradient(grad_hidden, bias1),
        weight_gradient(grad_rows, mixed, weight2),
        bias_gradient(grad_rows, bias2),
        *of_kernels,
    )


def _merged_taps(kernels: Sequence[Tensor]) -> Tensor:
    """Return the sum of all kernels around their centres, as taps (size * size, channel)."""
    largest = max(kernel.shape[-1] for kernel in kernels)
    taps = kernels[0].new_zeros((largest, largest, kernels[0].shape[0]))
    for kernel in kernels:
        _centre(taps, kernel.shape[-1]).add_(kernel[:, 0].permute(1, 2, 0))
    return taps.flatten(0, 1)


def _kernel_gradients(of_taps: Tensor, kernels: Sequence[Tensor]) -> list[Tensor]:
    """Return the gradient of each kernel from that of the merged taps."""
    largest = max(kernel.shape[-1] for kernel in kernels)
    square = of_taps.view(largest, largest, -1)
    return [
        _centre(square, kernel.shape[-1]).permute(2, 0, 1)[:, None].to(kernel.dtype).contiguous()
        for kernel in kernels
    ]


def _centre(square: Tensor, size: int) -> Tensor:
    """Return the middle of a square of taps (row, column, channel)."""
    margin = (square.shape[0] - size) // 2
    return square[margin : margin + size, margin : margin + size]
