"""The feed-forward branch as one autograd function (see `scanseg.ops._support.branch`)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from scanseg.ops._support import branch
from scanseg.ops._support.branch import Branch, BranchStart, Code, run_branch
from scanseg.ops._support.linear import as_dtype, weight_gradient
from scanseg.ops._support.parameter_sums import MOST_PLACES, Piece, Shapes, like_parameter, row_sums
from scanseg.ops._support.pass_weights import Wanted, converted_weights
from scanseg.ops.depthwise.triton_launch import FORWARD, convolve, gradients


def refuses(
    start: BranchStart, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor, *kernels: Tensor
) -> str | None:
    """Return why the function cannot run a call, or `None`."""
    reason = branch.refuses(start, weight1, bias1, weight2, bias2, *kernels)
    if reason is not None:
        return reason
    largest = max([kernel.shape[-1] for kernel in kernels], default=1)
    if largest not in FORWARD:
        return f"expected a kernel size of {', '.join(map(str, FORWARD))}, got {largest}"
    if len(kernels) > MOST_PLACES:
        return f"expected at most {MOST_PLACES} kernels, got {len(kernels)}"
    return None


def wanted_weights(
    weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor, kernels: Sequence[Tensor]
) -> tuple[Wanted, ...]:
    """Return the parameters that a pass converts for the branch.

    Args:
        weight1: See `feed_forward`, as for the others.
        bias1: Bias of the first layer.
        weight2: Weight of the second layer.
        bias2: Its bias.
        kernels: Depthwise kernels of the multi-scale part.

    Example:
        >>> import torch
        >>> from scanseg.ops import wanted_by_feed_forward
        >>> layers = (torch.ones(4, 2), torch.ones(4), torch.ones(2, 4), torch.ones(2))
        >>> [wanted.form for wanted in wanted_by_feed_forward(*layers, [torch.ones(4, 1, 3, 3)])]
        ['cast', 'cast', 'cast', 'cast', 'taps']
    """
    casts = tuple(Wanted("cast", (weight,)) for weight in (weight1, bias1, weight2, bias2))
    return (*casts, Wanted("taps", tuple(kernels))) if kernels else casts


def _forward(
    rows: Tensor,
    shape: tuple[int, ...],
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    *kernels: Tensor,
    eps: float,
    save: bool,
) -> tuple[Tensor, list[Tensor]]:
    found = converted_weights(weight1, rows.dtype) or as_dtype((weight1, bias1, weight2, bias2), rows.dtype)
    first, of_first, last, of_last, *merged = found
    hidden = torch.addmm(of_first, rows, first.t())
    mixed = F.gelu(hidden)
    kept = [rows, first, hidden, last]
    if kernels:
        taps = merged[0] if merged else _merged_taps(kernels)
        kept.append(taps)
        mixed, _ = convolve(
            *(mixed, taps, None),
            before=None,
            silu=False,
            residual=True,
            save_pre=False,
            shape=(*shape[:3], hidden.shape[1]),
        )
    result = torch.addmm(of_last, mixed, last.t())
    # As matrices: compiled graphs convert kept tensors of four axes to another layout.
    return result, [*kept, mixed] if save else []


def _gradients(
    grad: Tensor,
    shape: tuple[int, ...],
    kept: Sequence[Tensor],
    parameters: Sequence[Tensor],
    *,
    eps: float,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    rows, first, hidden, last, *taps, mixed = kept
    weight1, _, weight2, _, *kernels = parameters
    grad_rows = grad if grad.dtype == rows.dtype else grad.to(rows.dtype)
    grad_mixed = torch.mm(grad_rows, last)
    of_taps: list[Tensor] = []
    if kernels:
        grad_hidden, *of_taps = gradients(
            *(grad_mixed, hidden, None, taps[0]),
            before=None,
            gelu=True,
            has_bias=False,
            residual=True,
            in_parts=True,
            shape=(*shape[:3], hidden.shape[1]),
        )
    else:
        grad_hidden = torch.ops.aten.gelu_backward(grad_mixed, hidden)
    weights = [weight_gradient(grad_hidden, rows, weight1), weight_gradient(grad_rows, mixed, weight2)]
    sums = [row_sums(grad_hidden), row_sums(grad_rows), *of_taps]
    return torch.mm(grad_hidden, first), weights, sums


def _pieces(shapes: Shapes) -> tuple[Piece, ...]:
    _, bias1, _, bias2, *kernels = shapes
    biases = (Piece(0, bias1), Piece(1, bias2))
    if not kernels:
        return biases
    sizes = tuple(kernel[-1] for kernel in kernels)
    return (*biases, Piece(2, (max(sizes) ** 2, kernels[0][0]), "taps", sizes))


def _finish(
    weights: Sequence[Tensor], sums: Sequence[Tensor], parameters: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    of_weight1, of_weight2 = weights
    _, bias1, _, bias2, *kernels = parameters
    of_bias1, of_bias2, *of_kernels = (
        like_parameter(total, parameter)
        for total, parameter in zip(sums, (bias1, bias2, *kernels), strict=True)
    )
    return of_weight1, of_bias1, of_weight2, of_bias2, *of_kernels


def _kept_like(x: Tensor, parameters: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    weight1, _, weight2, _, *kernels = parameters
    batch, dim, height, width = x.shape
    hidden = x.new_empty((batch * height * width, weight1.shape[0]), dtype=dtype)
    kept = [
        x.new_empty((batch * height * width, dim), dtype=dtype),
        torch.empty_like(weight1, dtype=dtype),
        hidden,
        torch.empty_like(weight2, dtype=dtype),
    ]
    if kernels:
        largest = max(kernel.shape[-1] for kernel in kernels)
        kept.append(kernels[0].new_empty((largest * largest, weight1.shape[0])))
    return [*kept, torch.empty_like(hidden)]


def _gradients_like(kept: Sequence[Tensor], parameters: Sequence[Tensor]) -> list[Tensor]:
    return [torch.empty_like(weight) for weight in (parameters[0], parameters[2])]


_BRANCH = Branch.of("feed_forward", Code(_forward, _gradients, _pieces, _finish, _kept_like, _gradients_like))


def feed_forward_triton(
    start: BranchStart, *parameters: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Compute the branch, with the arguments of `feed_forward`."""
    return run_branch(_BRANCH, start, *parameters, eps=eps, dtype=dtype)


def _merged_taps(kernels: Sequence[Tensor]) -> Tensor:
    """Return the sum of all kernels as taps (size * size, channel)."""
    largest = max(kernel.shape[-1] for kernel in kernels)
    taps = kernels[0].new_zeros((largest, largest, kernels[0].shape[0]))
    for kernel in kernels:
        _centre(taps, kernel.shape[-1]).add_(kernel[:, 0].permute(1, 2, 0))
    return taps.flatten(0, 1)


def _centre(square: Tensor, size: int) -> Tensor:
    """Return the middle of a square of taps (row, column, channel)."""
    margin = (square.shape[0] - size) // 2
    return square[margin : margin + size, margin : margin + size]
