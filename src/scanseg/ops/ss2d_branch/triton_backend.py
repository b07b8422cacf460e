"""SS2D as one autograd function (see `scanseg.ops._support.branch`)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from scanseg.ops._support import branch
from scanseg.ops._support.branch import Branch, BranchStart, Code, run_branch
from scanseg.ops._support.linear import as_dtype, map_of_rows, rows_of_map, weight_gradient
from scanseg.ops._support.parameter_sums import Piece, Shapes, like_parameter
from scanseg.ops._support.pass_weights import Wanted, converted_weights
from scanseg.ops.channel_norm.triton_backend import norm_gradients, normalise
from scanseg.ops.depthwise.triton_launch import FORWARD, convolve, gradients
from scanseg.ops.ss2d.kept_states import kept_like
from scanseg.ops.ss2d.triton_backend import packed_gradients, scan


def refuses(start: BranchStart, in_weight: Tensor, conv_weight: Tensor, *others: Tensor) -> str | None:
    """Return why the function cannot run a call, or `None`."""
    reason = branch.refuses(start, in_weight, conv_weight, *others)
    if reason is None and conv_weight.shape[-1] not in FORWARD:
        return f"expected a kernel size of {', '.join(map(str, FORWARD))}, got {conv_weight.shape[-1]}"
    return reason


def wanted_weights(
    in_weight: Tensor,
    conv_weight: Tensor,
    x_weight: Tensor,
    A_log: Tensor,
    D_skip: Tensor,
    out_weight: Tensor,
) -> tuple[Wanted, ...]:
    """Return the parameters that a pass converts for the branch.

    Args:
        in_weight: See `ss2d_branch`, as for the others.
        conv_weight: Kernels of the depthwise convolution.
        x_weight: Weight of the projection.
        A_log: Logarithms of the decays.
        D_skip: Factors of the skip.
        out_weight: Weight of the last layer.

    Example:
        >>> import torch
        >>> from scanseg.ops import wanted_by_ss2d_branch
        >>> scan = {"x_weight": torch.ones(4, 3, 2), "A_log": torch.ones(4, 2, 1), "D_skip": torch.ones(4, 2)}
        >>> layers = {"in_weight": torch.ones(2, 2), "out_weight": torch.ones(2, 2)}
        >>> found = wanted_by_ss2d_branch(conv_weight=torch.ones(2, 1, 3, 3), **scan, **layers)
        >>> [wanted.form for wanted in found]
        ['cast', 'cast', 'cast', 'taps', 'rates', 'skips']
    """
    return (
        *(Wanted("cast", (weight,)) for weight in (in_weight, x_weight, out_weight)),
        Wanted("taps", (conv_weight,)),
        Wanted("rates", (A_log,)),
        Wanted("skips", (D_skip,)),
    )


def _forward(
    rows: Tensor,
    shape: tuple[int, ...],
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
    save: bool,
) -> tuple[Tensor, list[Tensor]]:
    dtype = rows.dtype
    of_in, of_x, of_out, taps, *prepared = converted_weights(in_weight, dtype) or (
        *as_dtype((in_weight, x_weight, out_weight), dtype),
        conv_weight.flatten(1).t().contiguous(),
    )
    entered = torch.mm(rows, of_in.t())
    convolved, before_silu = convolve(
        entered, taps, None, before=None, silu=True, residual=False, save_pre=save, shape=shape
    )
    projected = torch.mm(convolved, of_x.flatten(0, 1).t()).view(*shape[:3], *x_weight.shape[:2])
    merged_map, states, rates, skips = scan(
        *(map_of_rows(convolved, shape), projected.permute(0, 3, 4, 1, 2)),
        *(dt_weight, dt_bias, A_log, D_skip),
        prepared=(prepared[0], prepared[1]) if prepared else None,
    )
    merged = rows_of_map(merged_map)
    _, normed = normalise(merged, None, None, norm_weight, norm_bias, eps, dtype, 1, shape)
    result = torch.mm(normed, of_out.t())
    if before_silu is None:
        return result, []
    # As matrices: compiled graphs convert kept tensors of four axes to another layout.
    kept = [rows, of_in, entered, taps, convolved, before_silu, of_x]
    return result, [*kept, projected, merged, states, rates, skips, normed, of_out]


def _gradients(
    grad: Tensor,
    shape: tuple[int, ...],
    kept: Sequence[Tensor],
    parameters: Sequence[Tensor],
    *,
    eps: float,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    rows, of_in, entered, taps, convolved, before_silu, of_x, projected, *rest = kept
    merged, states, rates, skips, normed, of_out = rest
    in_weight, _, x_weight, dt_weight, dt_bias, A_log, D_skip, norm_weight, _, out_weight = parameters
    grad_rows = grad if grad.dtype == rows.dtype else grad.to(rows.dtype)
    grad_normed = torch.mm(grad_rows, of_out)
    grad_merged, _, of_norm = norm_gradients(
        *(grad_normed, grad_normed, merged, None, norm_weight, eps, 1, merged.dtype, None),
        in_parts=True,
        shape=shape,
    )
    grad_convolved, grad_projected, of_scan = packed_gradients(
        map_of_rows(grad_merged, shape),
        map_of_rows(convolved, shape),
        projected.permute(0, 3, 4, 1, 2),
        *(dt_weight, dt_bias, A_log, D_skip, states, rates, skips),
    )
    projected_rows = grad_projected.permute(0, 3, 4, 1, 2).reshape(grad_rows.shape[0], -1)
    grad_convolved = torch.addmm(rows_of_map(grad_convolved), projected_rows, of_x.flatten(0, 1))
    grad_entered, of_taps = gradients(
        grad_convolved,
        entered,
        before_silu,
        taps,
        before=None,
        gelu=False,
        has_bias=False,
        residual=False,
        in_parts=True,
        shape=shape,
    )
    weights = [
        weight_gradient(grad_entered, rows, in_weight),
        weight_gradient(projected_rows, convolved, x_weight),
        weight_gradient(grad_rows, normed, out_weight),
    ]
    return torch.mm(grad_entered, of_in), weights, [of_scan, of_norm, of_taps]


def _pieces(shapes: Shapes) -> tuple[Piece, ...]:
    _, conv_weight, _, dt_weight, dt_bias, A_log, D_skip, norm_weight, norm_bias, _ = shapes
    directions, dim, state = A_log
    size = conv_weight[-1]
    return (
        Piece(0, dt_weight),
        Piece(0, dt_bias),
        Piece(0, (directions, state, dim), "decays"),
        Piece(0, D_skip, "repeated"),
        Piece(1, norm_weight),
        Piece(1, norm_bias),
        Piece(2, (size * size, dim), "taps", (size,)),
    )


def _finish(
    weights: Sequence[Tensor], sums: Sequence[Tensor], parameters: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    of_in, of_x, of_out = weights
    *scan_and_norm, of_taps = (
        like_parameter(total, parameter)
        for total, parameter in zip(sums, (*parameters[3:9], parameters[1]), strict=True)
    )
    return of_in, of_taps, of_x, *scan_and_norm, of_out


def _kept_like(x: Tensor, parameters: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    in_weight, conv_weight, x_weight, _, _, A_log, _, _, _, out_weight = parameters
    batch, dim, height, width = x.shape
    wide = torch.float64 if dtype == torch.float64 else torch.float32

    def rows(dtype: torch.dtype = dtype) -> Tensor:
        return x.new_empty((batch * height * width, dim), dtype=dtype)

    taps = (conv_weight.shape[2] * conv_weight.shape[3], dim)
    return [
        rows(),
        torch.empty_like(in_weight, dtype=dtype),
        rows(),
        conv_weight.new_empty(taps),
        rows(),
        rows(),
        torch.empty_like(x_weight, dtype=dtype),
        x.new_empty((batch, height, width, *x_weight.shape[:2]), dtype=dtype),
        rows(wide),
        *kept_like(x, A_log, dtype, dtype),
        rows(),
        torch.empty_like(out_weight, dtype=dtype),
    ]


def _gradients_like(kept: Sequence[Tensor], parameters: Sequence[Tensor]) -> list[Tensor]:
    in_weight, _, x_weight, *_, out_weight = parameters
    return [torch.empty_like(weight) for weight in (in_weight, x_weight, out_weight)]


_BRANCH = Branch.of("ss2d_branch", Code(_forward, _gradients, _pieces, _finish, _kept_like, _gradients_like))


def ss2d_branch_triton(
    start: BranchStart, *parameters: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Compute the branch, with the arguments of `ss2d_branch`."""
    return run_branch(_BRANCH, start, *parameters, eps=eps, dtype=dtype)
