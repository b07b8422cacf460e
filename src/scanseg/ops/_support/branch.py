"""Whole residual branches as one autograd function.

As separate operators, a branch passes autograd a dozen times, autocast converts each weight in a launch of its own,
and gradients of weights are rounded to 16 bits and converted back. Here the host only launches kernels. The function
starts with the residual sum and the norm before the branch. Compiled graphs contain one operator with the same body. A
call that a dispatch mode or a transform traces is refused, and the operators of the parts compute it.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from scanseg.ops._support.branch_operator import Bodies, branch_operator, finished
from scanseg.ops._support.contract import Expected
from scanseg.ops._support.dispatch import is_exporting
from scanseg.ops._support.eager import is_traced
from scanseg.ops._support.linear import map_of_rows, rows_of_map
from scanseg.ops._support.parameter_sums import Piece, Shapes, layout_of, summed
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
        forward: Takes a map as a matrix (pixel, channel), its shape (batch, y, x, channel), and the parameters. Returns
            a matrix and the tensors for the gradients, which are complete if `save` is set. They contain no parameters.
        gradients: Takes the gradient of the result, the shape of the map, these tensors and the parameters. Returns the
            gradient of the first matrix, gradients of weights, none of them a view of another, and partial sums
            (part, ...) of other gradients.
        pieces: Takes the shapes of the parameters. Returns the meaning of the partial sums.
        finish: Takes the gradients of weights, the sums of each parameter, and the parameters. Returns the gradients of
            the parameters, by views and conversions alone.
        kept_like: Takes the map, the parameters and the dtype. Allocates tensors like those for the gradients.
        gradients_like: Takes the kept tensors and the parameters. Allocates tensors like the gradients of weights.
    """

    forward: Callable[..., tuple[Tensor, list[Tensor]]]
    gradients: Callable[..., tuple[Tensor, list[Tensor], list[Tensor]]]
    pieces: Callable[[Shapes], Sequence[Piece]]
    finish: Callable[..., tuple[Tensor, ...]]
    kept_like: Callable[..., list[Tensor]]
    gradients_like: Callable[..., list[Tensor]]


class Branch(NamedTuple):
    """A kind of branch, for calls in and outside of compiled graphs.

    Attributes:
        bodies: Its functions on maps.
        in_graph: Its operator in compiled graphs (see `branch_operator`).
    """

    bodies: Bodies
    in_graph: Callable[..., list[Tensor]]

    @classmethod
    def of(cls, name: str, code: Code) -> "Branch":
        """Create a kind of branch and register its operators.

        Args:
            name: Name of the operators.
            code: Its computation.
        """
        bodies = Bodies(
            on_its_device(partial(_forward, code=code)),
            on_its_device(partial(_gradients, code=code)),
            code.pieces,
            code.finish,
            code.kept_like,
            code.gradients_like,
        )
        return cls(bodies, branch_operator(name, bodies))


def is_one_operator(x: Tensor) -> bool:
    """Return whether a branch of a map is one operator.

    It is on GPUs with Triton, also under `torch.compile`, unless sizes forbid it. Elsewhere, and while `torch.export`
    or a dispatch mode traces, a branch consists of the operators of its parts.

    Args:
        x: The map.

    Example:
        >>> import torch
        >>> from scanseg.ops import is_one_operator
        >>> is_one_operator(torch.ones(1, 4, 8, 8))
        False
    """
    if not x.is_cuda or MISSING is not None:
        return False
    return not is_exporting() if torch.compiler.is_compiling() else not is_traced(x)


def refuses(start: BranchStart, *parameters: Tensor) -> str | None:
    """Return why the function cannot run a call, or `None`."""
    tensors = (*start.tensors, *parameters)
    if not torch.compiler.is_compiling() and is_traced(*tensors):
        return "expected a call outside of tracing, got one under a dispatch mode or a transform"
    if start.x.shape[1] > MOST_CHANNELS:
        return f"expected at most {MOST_CHANNELS} channels, got {start.x.shape[1]}"
    if not start.x.is_cuda and not INTERPRETED:
        return f"Triton kernels run on CUDA devices, got a tensor on {start.x.device}"
    if torch.float64 in {tensor.dtype for tensor in tensors} and not INTERPRETED:
        return "Triton kernels compute in float32, got a float64 tensor"
    return None


def run_branch(
    branch: Branch, start: BranchStart, *parameters: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Compute a branch.

    Args:
        branch: Its kind.
        start: Its inputs.
        *parameters: Its parameters.
        eps: Added to the variance of the norm.
        dtype: Dtype of matrix products and maps.

    Returns:
        The sum of the map and the last branch, and the new branch.
    """
    save = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (*start.tensors, *parameters))
    total: Tensor | None
    if torch.compiler.is_compiling():
        total, result, *_ = branch.in_graph(*start, list(parameters), eps, dtype, save)
        total = None if start.added is None else total
    elif save:
        total, result = _Branch.apply(branch, eps, dtype, *start, *parameters)
    else:
        total, result, _ = branch.bodies.forward(start.x, start[1:], parameters, eps, dtype, save=False)
    return (start.x if total is None else total), result


def _forward(
    x: Tensor,
    rest: tuple[Tensor | None, ...],
    parameters: tuple[Tensor, ...],
    eps: float,
    dtype: torch.dtype,
    *,
    save: bool,
    code: Code,
) -> tuple[Tensor | None, Tensor, list[Tensor]]:
    """Return sum, branch, and tensors for its gradients.

    `rest` is the start without its map.
    """
    added, sample_scale, norm_weight, norm_bias = rest
    batch, dim, height, width = x.shape
    shape, rows, total = (batch, height, width, dim), rows_of_map(x), None
    if norm_weight is not None and norm_bias is not None:
        other = None if added is None else rows_of_map(added)
        summed, rows = normalise(
            rows, other, sample_scale, norm_weight, norm_bias, eps, dtype, factor=1, shape=shape
        )
        total = None if added is None else map_of_rows(summed, shape)
    rows = rows if rows.dtype == dtype else rows.to(dtype)
    result, kept = code.forward(rows, shape, *parameters, eps=eps, save=save)
    return total, map_of_rows(result, shape), kept


class _Branch(torch.autograd.Function):
    """A branch with its gradients."""

    @staticmethod
    def forward(
        ctx: Any, branch: Branch, eps: float, dtype: torch.dtype, *tensors: Any
    ) -> tuple[Tensor | None, Tensor]:
        start, parameters = tensors[:5], tensors[5:]
        total, result, kept = branch.bodies.forward(start[0], start[1:], parameters, eps, dtype, save=True)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(start[0] if total is None else total, *start[2:], *kept, *parameters)
        ctx.branch, ctx.eps, ctx.num_kept = branch, eps, len(kept)
        ctx.dtypes = (start[0].dtype, None if start[1] is None else start[1].dtype)
        return total, result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_total: Tensor | None, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        total, sample_scale, norm_weight, norm_bias, *others = ctx.saved_tensors
        kept, parameters = others[: ctx.num_kept], others[ctx.num_kept :]
        norm, (x_dtype, added_dtype) = (sample_scale, norm_weight, norm_bias), ctx.dtypes
        bodies = ctx.branch.bodies
        found = bodies.gradients(
            grad_total, grad, total, *norm, kept, parameters, ctx.eps, x_dtype, added_dtype
        )
        of_added, of_norm, of_parameters = finished(found, norm, parameters, added_dtype, bodies)
        return None, None, None, found[0], of_added, None, *of_norm, *of_parameters


def _gradients(
    grad_total: Tensor | None,
    grad: Tensor | None,
    total: Tensor,
    sample_scale: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    kept: list[Tensor],
    parameters: tuple[Tensor, ...],
    eps: float,
    x_dtype: torch.dtype,
    added_dtype: torch.dtype | None,
    *,
    code: Code,
) -> list[Tensor]:
    """Return the gradients of both maps, and the tensors for `finished`."""
    if grad is None:
        grad = torch.zeros_like(total, dtype=kept[0].dtype)
    batch, dim, height, width = total.shape
    shape = (batch, height, width, dim)
    grad_rows, weights, partials = code.gradients(rows_of_map(grad), shape, kept, parameters, eps=eps)
    shapes = tuple([parameter.shape for parameter in parameters])
    layout = layout_of(code.pieces, shapes, None if norm_weight is None else norm_weight.numel())
    if norm_weight is None or norm_bias is None:
        sums = summed(partials, layout) if partials else total.new_empty(0)
        return [map_of_rows(grad_rows, shape).to(x_dtype), total.new_empty(0), sums, *weights]
    through = grad_rows
    if added_dtype is not None:
        through = rows_of_map(torch.zeros_like(total) if grad_total is None else grad_total)
    grad_x, grad_added, of_norm = norm_gradients(
        *(through, grad_rows, rows_of_map(total), sample_scale, norm_weight),
        *(eps, 1, x_dtype, added_dtype),
        in_parts=True,
        shape=shape,
    )
    grad_added = map_of_rows(grad_added, shape) if grad_added.numel() > 0 else grad_added
    return [map_of_rows(grad_x, shape), grad_added, summed([*partials, of_norm], layout), *weights]
