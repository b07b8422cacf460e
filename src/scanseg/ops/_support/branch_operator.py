"""Branches as operators in compiled graphs.

`torch.compile` sees one operator for each branch and one for its gradients, with the same bodies as calls outside of
tracing. So compiled code launches the same kernels, and graphs are small: a network compiles in a fraction of the time
that its parts need.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scanseg.ops._support.contract import state_dtype
from scanseg.ops._support.graph_operator import run_directly
from scanseg.ops._support.linear import as_map
from scanseg.ops._support.parameter_sums import Layout, Piece, Shapes, layout_of, like_parameter

Shape = Sequence[int]


class Bodies(NamedTuple):
    """Functions of one kind of branch.

    Attributes:
        forward: Takes the map, the other four tensors of the start, the parameters, eps, dtype and `save`. Returns the
            sum (`None` without a last branch), the branch, and the tensors for the gradients.
        gradients: Takes the gradients of both results, the sum, sample scale, weight and bias of the norm, the kept
            tensors, the parameters, eps and the dtypes of both maps. Returns `grad_x`, `grad_added`, sums for the
            small parameters and the norm, and the gradients of weights.
        pieces: Takes the shapes of the parameters. Returns the meaning of the sums, without the norm.
        finish: Takes the gradients of weights, the sums of each parameter, and the parameters. Returns the gradients of
            the parameters.
        kept_like: Takes the map, the parameters and dtype. Allocates tensors like the kept ones.
        gradients_like: Takes the kept tensors and the parameters. Allocates tensors like the gradients of weights.
    """

    forward: Callable[..., tuple[Tensor | None, Tensor, list[Tensor]]]
    gradients: Callable[..., list[Tensor]]
    pieces: Callable[[Shapes], Sequence[Piece]]
    finish: Callable[..., tuple[Tensor, ...]]
    kept_like: Callable[..., list[Tensor]]
    gradients_like: Callable[..., list[Tensor]]


def branch_operator(name: str, bodies: Bodies) -> Callable[..., list[Tensor]]:
    """Register the operators of a branch.

    Args:
        name: Name of the operator.
        bodies: Its functions.

    Returns:
        A function of the five tensors of the start, a list of parameters, eps, dtype, and whether to keep tensors for
        the gradients. It returns the sum (empty without a last branch), the branch, and the kept tensors.
    """

    @torch.library.custom_op(f"scanseg::{name}", mutates_args=())
    def forward(
        x: Tensor,
        added: Tensor | None,
        sample_scale: Tensor | None,
        norm_weight: Tensor | None,
        norm_bias: Tensor | None,
        parameters: list[Tensor],
        eps: float,
        dtype: torch.dtype,
        save: bool,  # noqa: FBT001 (part of the operator's schema)
    ) -> list[Tensor]:
        rest = (added, sample_scale, norm_weight, norm_bias)
        total, branch, kept = bodies.forward(x, rest, tuple(parameters), eps, dtype, save=save)
        results = [x.new_empty(0) if total is None else total, branch, *(kept if save else ())]
        return _separate(results, (x, *parameters))

    @forward.register_fake
    def _(
        x: Tensor,
        added: Tensor | None,
        sample_scale: Tensor | None,
        norm_weight: Tensor | None,
        norm_bias: Tensor | None,
        parameters: list[Tensor],
        eps: float,
        dtype: torch.dtype,
        save: bool,  # noqa: FBT001
    ) -> list[Tensor]:
        results = [x.new_empty(0), _map_like(x, dtype)]
        if added is not None:
            results[0] = _map_like(x, torch.promote_types(x.dtype, added.dtype))
        return results + (bodies.kept_like(x, parameters, dtype) if save else [])

    _register_gradients(forward, _backward_operator(name, bodies), bodies)
    run_directly(forward)
    return forward


def _backward_operator(name: str, bodies: Bodies) -> Callable[..., list[Tensor]]:
    """Register the operator of the gradients of a branch."""

    @torch.library.custom_op(f"scanseg::{name}_backward", mutates_args=())
    def backward(
        grad_total: Tensor | None,
        grad: Tensor | None,
        total: Tensor,
        sample_scale: Tensor | None,
        norm_weight: Tensor | None,
        norm_bias: Tensor | None,
        kept: list[Tensor],
        parameters: list[Tensor],
        eps: float,
        x_dtype: torch.dtype,
        added_dtype: torch.dtype | None,
    ) -> list[Tensor]:
        norm = (sample_scale, norm_weight, norm_bias)
        grads = bodies.gradients(
            grad_total, grad, total, *norm, kept, tuple(parameters), eps, x_dtype, added_dtype
        )
        return _separate(grads, (*kept, total))

    @backward.register_fake
    def _(
        grad_total: Tensor | None,
        grad: Tensor | None,
        total: Tensor,
        sample_scale: Tensor | None,
        norm_weight: Tensor | None,
        norm_bias: Tensor | None,
        kept: list[Tensor],
        parameters: list[Tensor],
        eps: float,
        x_dtype: torch.dtype,
        added_dtype: torch.dtype | None,
    ) -> list[Tensor]:
        grad_added = total.new_empty(0)
        number = _layout(bodies, parameters, norm_weight).total
        sums = total.new_empty(number, dtype=state_dtype(total, kept[0]))
        is_scaled = sample_scale is not None
        if norm_weight is not None and added_dtype is not None and (is_scaled or added_dtype != x_dtype):
            grad_added = _map_like(total, added_dtype)
        of_parameters = bodies.gradients_like(kept, parameters)
        return [_map_like(total, x_dtype), grad_added, sums, *of_parameters]

    run_directly(backward)
    return backward


def _register_gradients(forward: Any, backward: Callable[..., list[Tensor]], bodies: Bodies) -> None:
    """Make the second operator the gradient of the first one."""

    def keep(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
        x, added, sample_scale, norm_weight, norm_bias, parameters, eps, _, _ = inputs
        total, _, *kept = output
        ctx.set_materialize_grads(False)
        first = x if added is None else total
        ctx.save_for_backward(first, sample_scale, norm_weight, norm_bias, *kept, *parameters)
        ctx.settings = (len(kept), eps, x.dtype, None if added is None else added.dtype)

    def differentiate(ctx: Any, grads: list[Tensor | None]) -> tuple[Any, ...]:
        total, sample_scale, norm_weight, norm_bias, *others = ctx.saved_tensors
        num_kept, eps, x_dtype, added_dtype = ctx.settings
        kept, parameters = list(others[:num_kept]), list(others[num_kept:])
        if grads[0] is None and grads[1] is None:
            return None, None, None, None, None, [None] * len(parameters), None, None, None
        norm = (sample_scale, norm_weight, norm_bias)
        found = backward(grads[0], grads[1], total, *norm, kept, parameters, eps, x_dtype, added_dtype)
        of_added, of_norm, of_parameters = finished(found, norm, parameters, added_dtype, bodies)
        return found[0], of_added, None, *of_norm, list(of_parameters), None, None, None

    forward.register_autograd(differentiate, setup_context=keep)


def finished(
    found: Sequence[Tensor],
    norm: tuple[Tensor | None, Tensor | None, Tensor | None],
    parameters: Sequence[Tensor],
    added_dtype: torch.dtype | None,
    bodies: Bodies,
) -> tuple[Tensor | None, tuple[Tensor | None, Tensor | None], tuple[Tensor, ...]]:
    """Return the gradients of last branch, norm and parameters.

    Args:
        found: The result of `Bodies.gradients`.
        norm: Sample scale, weight and bias of the norm before the branch.
        parameters: Parameters of the branch.
        added_dtype: Dtype of the last branch. `None`: none.
        bodies: Functions of the branch.
    """
    grad_x, grad_added, sums, *weights = found
    _, weight, bias = norm
    of_added = None
    if added_dtype is not None:
        of_added = grad_added if grad_added.numel() > 0 else grad_x
    counts = _layout(bodies, parameters, weight).counts
    totals: Sequence[Tensor] = sums.split(counts) if counts else ()
    of_norm: tuple[Tensor | None, Tensor | None] = (None, None)
    if weight is not None and bias is not None:
        *totals, of_weight, of_bias = totals
        of_norm = (like_parameter(of_weight, weight), like_parameter(of_bias, bias))
    return of_added, of_norm, bodies.finish(weights, totals, parameters)


def _layout(bodies: Bodies, parameters: Sequence[Tensor], norm_weight: Tensor | None) -> Layout:
    shapes = tuple([parameter.shape for parameter in parameters])
    return layout_of(bodies.pieces, shapes, None if norm_weight is None else norm_weight.numel())


def _map_like(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Allocate a map like another one, with channels last in memory."""
    batch, dim, height, width = x.shape
    return as_map(x.new_empty((batch, height, width, dim), dtype=dtype))


def _separate(results: Sequence[Tensor], inputs: Sequence[Tensor]) -> list[Tensor]:
    """Copy the results that share memory with inputs.

    An operator of a graph must not return its inputs.
    """
    used = {tensor.untyped_storage().data_ptr() for tensor in inputs}
    separate = []
    for result in results:
        shared = result.numel() > 0 and result.untyped_storage().data_ptr() in used
        separate.append(result.clone() if shared else result)
        if result.numel() > 0:
            used.add(result.untyped_storage().data_ptr())
    return separate
