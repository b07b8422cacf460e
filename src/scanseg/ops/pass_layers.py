"""Linear layers and convolutions with parameters that are converted once per pass.

Autocast converts each weight by a launch of its own, and its gradient by another one. These functions read the
converted parameters of `weights_converted`. Without them PyTorch's own operators compute.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from scanseg.ops._support.linear import bias_gradient, weight_gradient
from scanseg.ops._support.pass_weights import Wanted, converted_weights


def wanted_by_layer(weight: Tensor, bias: Tensor | None) -> tuple[Wanted, ...]:
    """Return the parameters that a pass converts for a layer.

    Args:
        weight: Weight of the layer.
        bias: Its bias. `None`: none.

    Example:
        >>> import torch
        >>> from scanseg.ops import wanted_by_layer
        >>> [wanted.shape for wanted in wanted_by_layer(torch.ones(4, 3), torch.ones(4))]
        [(4, 3), (4,)]
    """
    return tuple(Wanted("cast", (each,)) for each in (weight, bias) if each is not None)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Apply a linear layer to the last axis, as `torch.nn.functional.linear`.

    Args:
        x: Input (..., in_channel).
        weight: Weight (out_channel, in_channel).
        bias: Bias (out_channel). `None`: none.

    Example:
        >>> import torch
        >>> from scanseg.ops import linear
        >>> linear(torch.ones(2, 3), torch.ones(4, 3), None).shape
        torch.Size([2, 4])
    """
    found = None if torch.compiler.is_compiling() else converted_weights(weight)
    if found is None:
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled():
        return _Linear.apply(x, weight, bias, found)
    return _product(x.reshape(-1, x.shape[-1]).to(found[0].dtype), *found).view(*x.shape[:-1], -1)


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
) -> Tensor:
    """Convolve a map, as `torch.nn.functional.conv2d`.

    Args:
        x: The map (batch, channel, y, x).
        weight: Kernels (out_channel, channel, y, x).
        bias: Bias (out_channel). `None`: none.
        stride: Stride per axis.
        padding: Padding per axis.

    Example:
        >>> import torch
        >>> from scanseg.ops import convolve
        >>> x, weight = torch.ones(1, 2, 4, 4), torch.ones(3, 2, 3, 3)
        >>> convolve(x, weight, None, stride=(1, 1), padding=(1, 1)).shape
        torch.Size([1, 3, 4, 4])
    """
    found = None if torch.compiler.is_compiling() else converted_weights(weight)
    if found is None:
        return F.conv2d(x, weight, bias, stride, padding)
    if torch.is_grad_enabled():
        return _Convolution.apply(x, weight, bias, found, stride, padding)
    return F.conv2d(x.to(found[0].dtype), found[0], found[1] if len(found) > 1 else None, stride, padding)


def scaled_sum(x: Tensor, branch: Tensor, sample_scale: Tensor) -> Tensor:
    """Add a branch with a factor for each sample, by one launch.

    Args:
        x: The map (batch, ...).
        branch: The branch, of the same shape and any dtype.
        sample_scale: Factors (batch), without gradient.

    Example:
        >>> import torch
        >>> from scanseg.ops import scaled_sum
        >>> scaled_sum(torch.ones(2, 3), torch.ones(2, 3), torch.tensor([0.0, 2.0]))
        tensor([[1., 1., 1.],
                [3., 3., 3.]])
    """
    scale = sample_scale.detach().view(-1, *(1,) * (x.ndim - 1))
    if torch.is_grad_enabled():
        total: Tensor = _ScaledSum.apply(x, branch, scale)
        return total
    return torch.addcmul(x, branch, scale)


class _ScaledSum(torch.autograd.Function):
    """A sum whose gradients are not rounded before they are converted."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, branch: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(scale)
        ctx.dtypes = (x.dtype, branch.dtype)
        return torch.addcmul(x, branch, scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (scale,) = ctx.saved_tensors
        x_dtype, branch_dtype = ctx.dtypes
        of_x, of_branch = ctx.needs_input_grad[:2]
        return (
            grad.to(x_dtype) if of_x else None,
            torch.mul(grad, scale, out=torch.empty_like(grad, dtype=branch_dtype)) if of_branch else None,
            None,
        )


def _product(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.mm(rows, weight.t()) if bias is None else torch.addmm(bias, rows, weight.t())


class _Linear(torch.autograd.Function):
    """A linear layer whose gradients of parameters stay in float32."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, found: tuple[Tensor, ...]
    ) -> Tensor:
        rows = x.reshape(-1, x.shape[-1]).to(found[0].dtype)
        ctx.save_for_backward(rows, weight, bias, found[0])
        ctx.shape, ctx.dtype = x.shape, x.dtype
        return _product(rows, *found).view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight, bias, of_weight = ctx.saved_tensors
        grad_rows = grad.reshape(-1, grad.shape[-1])
        need_x, need_weight, need_bias, _ = ctx.needs_input_grad
        return (
            torch.mm(grad_rows, of_weight).view(ctx.shape).to(ctx.dtype) if need_x else None,
            weight_gradient(grad_rows, rows, weight) if need_weight else None,
            bias_gradient(grad_rows, bias) if need_bias else None,
            None,
        )


class _Convolution(torch.autograd.Function):
    """A convolution whose gradients of parameters are converted by one launch."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        found: tuple[Tensor, ...],
        stride: tuple[int, ...],
        padding: tuple[int, ...],
    ) -> Tensor:
        narrow = x.to(found[0].dtype)
        ctx.save_for_backward(narrow, weight, bias, found[0])
        ctx.settings = (stride, padding)
        ctx.dtype = x.dtype
        return F.conv2d(narrow, found[0], found[1] if bias is not None else None, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, of_weight = ctx.saved_tensors
        stride, padding = ctx.settings
        needs = ctx.needs_input_grad[:3]
        grad_x, *narrow = torch.ops.aten.convolution_backward(
            *(grad, x, of_weight, None if bias is None else [bias.shape[0]]),
            *(stride, padding, (1, 1), False, (0, 0), 1, needs),
        )
        wide = [
            None if found is None else torch.empty_like(parameter)
            for found, parameter in zip(narrow, (weight, bias), strict=True)
        ]
        sources = [found for found in narrow if found is not None]
        if sources:
            torch._foreach_copy_([each for each in wide if each is not None], sources)
        return None if grad_x is None else grad_x.to(ctx.dtype), *wide, None, None, None
