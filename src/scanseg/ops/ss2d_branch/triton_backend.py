"""SS2D as one autograd function (see `scanseg.ops._support.branch`)."""

import torch
from torch import Tensor

from scanseg.ops._support import branch
from scanseg.ops._support.branch import BranchStart, Code, run_branch
from scanseg.ops._support.linear import as_dtype, as_map, as_pixels, as_rows, weight_gradient
from scanseg.ops.channel_norm.triton_backend import norm_gradients, normalise
from scanseg.ops.depthwise.triton_launch import FORWARD, convolve, gradients
from scanseg.ops.ss2d.triton_backend import scan, scan_gradients


def refuses(start: BranchStart, in_weight: Tensor, conv_weight: Tensor, *others: Tensor) -> str | None:
    """Return why the function cannot run a call, or `None`."""
    reason = branch.refuses(start, in_weight, conv_weight, *others)
    if reason is None and conv_weight.shape[-1] not in FORWARD:
        return f"expected a kernel size of {', '.join(map(str, FORWARD))}, got {conv_weight.shape[-1]}"
    return reason


def ss2d_branch_triton(
    start: BranchStart, *parameters: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Compute the branch, with the arguments of `ss2d_branch`."""
    return run_branch(Code(_forward, _gradients), start, *parameters, eps=eps, dtype=dtype)


def _forward(
    pixels: Tensor,
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
    dtype = pixels.dtype
    of_in, of_x, of_out = as_dtype((in_weight, x_weight, out_weight), dtype)
    entered = torch.mm(as_rows(pixels), of_in.t()).view(pixels.shape)
    taps = conv_weight.flatten(1).t().contiguous()
    convolved, before_silu = convolve(
        entered, taps, None, before=None, silu=True, residual=False, save_pre=save
    )
    projected = torch.mm(as_rows(convolved), of_x.flatten(0, 1).t())
    projected = projected.view(*pixels.shape[:3], *x_weight.shape[:2])
    merged, states, rates, skips = scan(
        as_map(convolved), projected.permute(0, 3, 4, 1, 2), dt_weight, dt_bias, A_log, D_skip
    )
    merged = as_pixels(merged)
    _, normed = normalise(merged, None, None, norm_weight, norm_bias, eps, dtype, 1)
    result = torch.mm(as_rows(normed), of_out.t()).view(pixels.shape)
    kept = [pixels, of_in, entered, taps, convolved, before_silu, of_x, projected]
    kept += [merged, states, rates, skips, normed, of_out]
    kept += [
        in_weight,
        conv_weight,
        x_weight,
        dt_weight,
        dt_bias,
        A_log,
        D_skip,
        norm_weight,
        norm_bias,
        out_weight,
    ]
    return result, kept


def _gradients(
    grad: Tensor,
    pixels: Tensor,
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
) -> tuple[Tensor, ...]:
    grad_rows = as_rows(grad.to(pixels.dtype))
    grad_normed = torch.mm(grad_rows, of_out).view(normed.shape)
    grad_merged, _, of_norm = norm_gradients(
        *(grad_normed, grad_normed, merged, None, norm_weight, eps, 1, merged.dtype, None)
    )
    grad_convolved, grad_projected, *of_scan = scan_gradients(
        *(as_map(grad_merged), as_map(convolved), projected.permute(0, 3, 4, 1, 2)),
        *(dt_weight, dt_bias, A_log, D_skip, states, rates, skips),
    )
    projected_rows = grad_projected.permute(0, 3, 4, 1, 2).reshape(grad_rows.shape[0], -1)
    grad_convolved = torch.addmm(as_rows(as_pixels(grad_convolved)), projected_rows, of_x.flatten(0, 1))
    grad_entered, of_taps = gradients(
        grad_convolved.view(entered.shape),
        entered,
        before_silu,
        taps,
        before=None,
        gelu=False,
        has_bias=False,
        residual=False,
    )
    entered_rows = as_rows(grad_entered)
    return (
        torch.mm(entered_rows, of_in).view(pixels.shape),
        weight_gradient(entered_rows, as_rows(pixels), in_weight),
        of_taps.t().reshape(conv_weight.shape).to(conv_weight.dtype),
        weight_gradient(projected_rows, as_rows(convolved), x_weight),
        *of_scan,
        of_norm[0].to(norm_weight.dtype),
        of_norm[1].to(norm_bias.dtype),
        weight_gradient(grad_rows, as_rows(normed), out_weight),
    )
