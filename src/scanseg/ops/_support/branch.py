"""Whole residual branches as one autograd function.

As separate operators, a branch passes autograd a dozen times, autocast converts each weight in a launch of its own,
and gradients of weights are rounded to 16 bits and converted back. Here the host only launches kernels. The function
starts with the residual sum and the norm before the branch. A call that is traced, by `torch.compile` for example, is
refused, and the operators of the parts compute it.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from scanseg.ops._support.contract import Expected
from scanseg.ops._support.eager import is_traced
from scanseg.ops._support.linear import as_map, as_pixels
from scanseg.ops._support.triton import INTERPRETED, MISSING, on_its_device
from scanseg.ops.channel_norm.triton_backend import MOST_CHANNELS, norm_gradients, normalise


class BranchStart(NamedTuple):
    """Inputs of a branch except its parameters.

    Attributes:
        x: The map (batch, channel, y, x).
        added: Last branch, which is added to the map first. `None`: nothing is added.
        sample_scale: Factor of `added` for each sample, without gradient. `None`: 1.
        norm_weight: Factor of each channel in the norm over channels before the branch. `None`: no norm.
        norm_bias: Added to each channel in this norm.
    """

    x: Tensor
    added: Tensor | None = None
    sample_scale: Tensor | None = None
    norm_weight: Tensor | None = None
    norm_bias: Tensor | None = None

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors."""
        return tuple(tensor for tensor in self if tensor is not None)

    def expected(self) -> Iterator[Expected]:
        """Return the tensors with the shapes that the map requires."""
        x, added, sample_scale, norm_weight, norm_bias = self
        yield Expected("x", x, "batch, dim, height, width", tuple(x.shape))
        if added is not None:
            yield Expected("added", added, "as x", tuple(x.shape))
        if sample_scale is not None:
            yield Expected("sample_scale", sample_scale, "batch", (x.shape[0],))
        for name, tensor in (
            ("norm_weight of the start", norm_weight),
            ("norm_bias of the start", norm_bias),
        ):
            if tensor is not None:
                yield Expected(name, tensor, "dim", (x.shape[1],))


class Code(NamedTuple):
    """Computation of one kind of branch.

    Attributes:
        forward: Takes pixels (batch, y, x, channel) and the parameters. Returns pixels and the tensors for the
            gradients, which are complete if `save` is set.
        gradients: Takes the gradient of the result, as pixels, and these tensors. Returns the gradients of the pixels
            and of the parameters.
    """

    forward: Callable[..., tuple[Tensor, list[Tensor]]]
    gradients: Callable[..., tuple[Tensor, ...]]


def is_one_operator(x: Tensor) -> bool:
    """Return whether a branch of a map is one operator.

    It is on GPUs with Triton, outside of tracing, unless sizes forbid it. Elsewhere a branch consists of the operators
    of its parts.

    Args:
        x: The map.

    Example:
        >>> import torch
        >>> from scanseg.ops import is_one_operator
        >>> is_one_operator(torch.ones(1, 4, 8, 8))
        False
    """
    return not torch.compiler.is_compiling() and x.is_cuda and MISSING is None and not is_traced(x)


def refuses(start: BranchStart, *parameters: Tensor) -> str | None:
    """Return why the function cannot run a call, or `None`."""
    tensors = (*start.tensors, *parameters)
    if torch.compiler.is_compiling() or is_traced(*tensors):
        return (
            "expected a call outside of tracing, got one under torch.compile, a dispatch mode or a transform"
        )
    if start.x.shape[1] > MOST_CHANNELS:
        return f"expected at most {MOST_CHANNELS} channels, got {start.x.shape[1]}"
    if not start.x.is_cuda and not INTERPRETED:
        return f"Triton kernels run on CUDA devices, got a tensor on {start.x.device}"
    if torch.float64 in {tensor.dtype for tensor in tensors} and not INTERPRETED:
        return "Triton kernels compute in float32, got a float64 tensor"
    return None


def run_branch(
    code: Code, start: BranchStart, *parameters: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Compute a branch.

    Args:
        code: Its computation.
        start: Its inputs.
        *parameters: Its parameters.
        eps: Added to the variance of the norm.
        dtype: Dtype of matrix products and maps.

    Returns:
        The sum of the map and the last branch, and the new branch.
    """
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (*start.tensors, *parameters)):
        total, branch = _Branch.apply(code, eps, dtype, *start, *parameters)
    else:
        total, branch, _ = _forward(start.x, code, start, parameters, eps, dtype, save=False)
        branch = as_map(branch)
    return (start.x if total is None else total), branch


@on_its_device
def _forward(
    x: Tensor,
    code: Code,
    start: BranchStart,
    parameters: tuple[Tensor, ...],
    eps: float,
    dtype: torch.dtype,
    *,
    save: bool,
) -> tuple[Tensor | None, Tensor, list[Tensor]]:
    """Return sum, branch as pixels, and tensors for its gradients."""
    pixels, total = as_pixels(x), None
    if start.norm_weight is not None and start.norm_bias is not None:
        added = None if start.added is None else as_pixels(start.added)
        total, pixels = normalise(
            *(pixels, added, start.sample_scale, start.norm_weight, start.norm_bias, eps, dtype, 1)
        )
        total = None if added is None else as_map(total)
    return total, *code.forward(pixels.to(dtype), *parameters, eps=eps, save=save)


class _Branch(torch.autograd.Function):
    """A branch with its gradients."""

    @staticmethod
    def forward(
        ctx: Any, code: Code, eps: float, dtype: torch.dtype, *tensors: Any
    ) -> tuple[Tensor | None, Tensor]:
        start, parameters = BranchStart(*tensors[:5]), tensors[5:]
        total, branch, kept = _forward(start.x, code, start, parameters, eps, dtype, save=True)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(start.x if total is None else total, *start[2:], *kept)
        ctx.code, ctx.eps = code, eps
        ctx.dtypes = (start.x.dtype, None if start.added is None else start.added.dtype)
        return total, as_map(branch)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_total: Tensor | None, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        total, sample_scale, norm_weight, norm_bias, *kept = ctx.saved_tensors
        if grad is None:
            grad = torch.zeros_like(total, dtype=kept[0].dtype)
        grads = _gradients(total, grad_total, grad, sample_scale, norm_weight, norm_bias, kept, ctx)
        return None, None, None, *grads


@on_its_device
def _gradients(
    total: Tensor,
    grad_total: Tensor | None,
    grad: Tensor,
    sample_scale: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    kept: list[Tensor],
    ctx: Any,
) -> tuple[Tensor | None, ...]:
    """Return the gradients of the start and of the parameters."""
    x_dtype, added_dtype = ctx.dtypes
    grad_pixels, *of_parameters = ctx.code.gradients(as_pixels(grad), *kept, eps=ctx.eps)
    if norm_weight is None or norm_bias is None:
        return as_map(grad_pixels).to(x_dtype), None, None, None, None, *of_parameters
    through = grad_pixels if added_dtype is None else _pixels_or_zeros(grad_total, total)
    grad_x, grad_added, sums = norm_gradients(
        *(through, grad_pixels, as_pixels(total), sample_scale, norm_weight),
        *(ctx.eps, 1, x_dtype, added_dtype),
    )
    of_added = None
    if added_dtype is not None:
        of_added = as_map(grad_added if grad_added.numel() > 0 else grad_x)
    of_norm = (sums[0].to(norm_weight.dtype), sums[1].to(norm_bias.dtype))
    return as_map(grad_x), of_added, None, *of_norm, *of_parameters


def _pixels_or_zeros(grad: Tensor | None, total: Tensor) -> Tensor:
    return as_pixels(torch.zeros_like(total) if grad is None else grad)
