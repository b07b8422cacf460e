"""Norm over channels by Triton: custom operators on channels-last maps."""

from typing import Any

import torch
from torch import Tensor

from scanseg.ops._support import triton as triton_support
from scanseg.ops._support.contract import state_dtype
from scanseg.ops._support.eager import short_path
from scanseg.ops._support.launching import launch

MOST_CHANNELS = 8192
"""Maximum number of channels. A row must fit into the registers of one program."""

ELEMENTS = 2048
"""Elements that a program of four warps processes at a time. Wider rows get more warps in proportion, at most 16."""

GRADIENT_PROGRAMS = 528
"""Programs that share the work of the gradients, each with partial sums: 4 for each multiprocessor of an H100."""


def refuses(
    x: Tensor, added: Tensor | None, sample_scale: Tensor | None, weight: Tensor, bias: Tensor
) -> str | None:
    """Return why the kernels cannot run a call, or `None`."""
    if weight.numel() > MOST_CHANNELS:
        return f"expected at most {MOST_CHANNELS} channels, got {weight.numel()}"
    if x.numel() // weight.numel() >= 2**31:
        return f"expected fewer than 2^31 pixels, got {x.numel() // weight.numel()}"
    return triton_support.refuses(x, added, sample_scale, weight, bias)


def channel_norm_triton(
    x: Tensor,
    added: Tensor | None,
    sample_scale: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    *,
    eps: float,
    dtype: torch.dtype | None,
    factor: int,
) -> tuple[Tensor, Tensor]:
    """Add a branch and normalize the sum.

    Arguments are those of `residual_channel_norm`, with the factor of `channel_norm`.
    """
    last = _with_channels_last(x)
    if added is None:
        normed: Tensor = _norm(last, None, None, weight, bias, eps, dtype or x.dtype, factor)[1]
        return x, normed
    dtype = dtype or torch.promote_types(x.dtype, added.dtype)
    added = _with_channels_last(added)
    total, normed = _norm(last, added, sample_scale, weight, bias, eps, dtype, factor)
    return total, normed


def normalise(
    x: Tensor,
    added: Tensor | None,
    sample_scale: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    dtype: torch.dtype,
    factor: int,
) -> tuple[Tensor, Tensor]:
    """Return the sum and the normalized map, channels last."""
    from scanseg.ops.channel_norm.triton_kernels import normalise_rows

    total, out = _results(x, added, dtype, factor)
    rows, rows_per_sample = _rows(x, weight)
    block_rows, block_channels, warps = _block(weight)
    launch(normalise_rows, (-(-rows // block_rows),))(
        x,
        x if added is None else added,
        x if sample_scale is None else sample_scale.contiguous(),
        weight.contiguous(),
        bias.contiguous(),
        total,
        out,
        rows,
        rows_per_sample,
        x.shape[-2],
        eps,
        channels=weight.numel(),
        ADDED=added is not None,
        SCALED=sample_scale is not None,
        FACTOR=factor,
        BLOCK_ROWS=block_rows,
        BLOCK_CHANNELS=block_channels,
        ACC=_accumulator(x),
        num_warps=warps,
    )
    return total, out


# The operators take and return maps with channels as axis 1. PyTorch's compiler prefers channels last for maps of four
# axes that it keeps for the backward pass, and would copy rows (batch, y, x, channel) into another layout.
@torch.library.custom_op("scanseg::channel_norm_triton", mutates_args=())
@triton_support.on_its_device
def _normalise(
    x: Tensor,
    added: Tensor | None,
    sample_scale: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    dtype: torch.dtype,
    factor: int,
) -> tuple[Tensor, Tensor]:
    others = None if added is None else _as_rows(added)
    total, out = normalise(_as_rows(x), others, sample_scale, weight, bias, eps, dtype, factor)
    return _as_map(total), _as_map(out)


@_normalise.register_fake
def _(
    x: Tensor,
    added: Tensor | None,
    sample_scale: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    dtype: torch.dtype,
    factor: int,
) -> tuple[Tensor, Tensor]:
    total, out = _results(_as_rows(x), added, dtype, factor)
    return _as_map(total), _as_map(out)


def norm_gradients(
    grad_total: Tensor,
    grad: Tensor,
    total: Tensor,
    sample_scale: Tensor | None,
    weight: Tensor,
    eps: float,
    factor: int,
    x_dtype: torch.dtype,
    added_dtype: torch.dtype | None,
    *,
    in_parts: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of the maps, the weight and the bias.

    Args:
        grad_total: Gradient of the sum, read only with `added_dtype`.
        grad: Gradient of the normalized map.
        total: The sum.
        sample_scale: See `residual_channel_norm`.
        weight: Factor of each channel.
        eps: Added to the variance.
        factor: See `channel_norm`.
        x_dtype: Dtype of the first map.
        added_dtype: Dtype of the second map. `None`: it does not exist.
        in_parts: Return partial sums (part, 2, channel) for weight and bias.
    """
    from scanseg.ops.channel_norm.triton_kernels import normalise_rows_gradients

    grad_x, grad_added = _input_gradients(total, sample_scale, x_dtype, added_dtype)
    rows, rows_per_sample = _rows(total, weight)
    block_rows, block_channels, warps = _block(weight)
    programs = min(-(-rows // block_rows), GRADIENT_PROGRAMS)
    partial = total.new_empty((programs, 2, weight.numel()), dtype=state_dtype(total))
    launch(normalise_rows_gradients, (programs,))(
        grad.contiguous(),
        grad_total.contiguous(),
        total,
        total if sample_scale is None else sample_scale.contiguous(),
        weight.contiguous(),
        grad_x,
        grad_added,
        partial,
        rows,
        rows_per_sample,
        total.shape[-2],
        programs,
        eps,
        channels=weight.numel(),
        ADDED=added_dtype is not None,
        GRAD_ADDED=grad_added.numel() > 0,
        SCALED=sample_scale is not None,
        FACTOR=factor,
        BLOCK_ROWS=block_rows,
        BLOCK_CHANNELS=block_channels,
        ACC=_accumulator(total),
        num_warps=warps,
    )
    return grad_x, grad_added, partial if in_parts else partial.sum(0)


@torch.library.custom_op("scanseg::channel_norm_triton_backward", mutates_args=())
@triton_support.on_its_device
def _normalise_backward(
    grad_total: Tensor,
    grad: Tensor,
    total: Tensor,
    sample_scale: Tensor | None,
    weight: Tensor,
    eps: float,
    factor: int,
    x_dtype: torch.dtype,
    added_dtype: torch.dtype | None,
) -> tuple[Tensor, Tensor, Tensor]:
    through = grad if added_dtype is None else grad_total
    grad_x, grad_added, sums = norm_gradients(
        *(_as_rows(through), _as_rows(grad), _as_rows(total), sample_scale, weight),
        *(eps, factor, x_dtype, added_dtype),
    )
    return _as_map(grad_x), _as_map(grad_added), sums


@_normalise_backward.register_fake
def _(
    grad_total: Tensor,
    grad: Tensor,
    total: Tensor,
    sample_scale: Tensor | None,
    weight: Tensor,
    eps: float,
    factor: int,
    x_dtype: torch.dtype,
    added_dtype: torch.dtype | None,
) -> tuple[Tensor, Tensor, Tensor]:
    grad_x, grad_added = _input_gradients(_as_rows(total), sample_scale, x_dtype, added_dtype)
    return (
        _as_map(grad_x),
        _as_map(grad_added),
        total.new_empty((2, weight.numel()), dtype=state_dtype(total)),
    )


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, added, sample_scale, weight, _, eps, _, factor = inputs
    ctx.save_for_backward(x if added is None else output[0], sample_scale, weight)
    ctx.settings = (eps, factor, x.dtype, None if added is None else added.dtype)


def _gradients(ctx: Any, grad_total: Tensor, grad: Tensor) -> tuple[Tensor | None, ...]:
    total, sample_scale, weight = ctx.saved_tensors
    grad_x, grad_added, sums = _norm_backward(grad_total, grad, total, sample_scale, weight, *ctx.settings)
    grad_weight, grad_bias = sums.to(weight.dtype)
    added_dtype = ctx.settings[-1]
    of_added = None if added_dtype is None else grad_added if grad_added.numel() else grad_x
    return grad_x, of_added, None, grad_weight, grad_bias, None, None, None


_normalise.register_autograd(_gradients, setup_context=_keep)
_norm = short_path(_normalise, _keep, _gradients)
_norm_backward = short_path(_normalise_backward)


def _as_rows(x: Tensor) -> Tensor:
    """Return a map with channels as the last axis, contiguous."""
    return x.movedim(1, -1).contiguous()


def _with_channels_last(x: Tensor) -> Tensor:
    """Return the map in memory with channels last."""
    rows = x.movedim(1, -1)
    return x if rows.is_contiguous() else rows.contiguous().movedim(-1, 1)


def _as_map(rows: Tensor) -> Tensor:
    """Return rows as a map with channels as axis 1.

    Empty tensors stay unchanged.
    """
    return rows.movedim(-1, 1) if rows.ndim > 1 else rows


def _results(x: Tensor, added: Tensor | None, dtype: torch.dtype, factor: int) -> tuple[Tensor, Tensor]:
    """Allocate the sum (empty without `added`) and the normalized map."""
    if factor == 1:
        out = x.new_empty(x.shape, dtype=dtype)
    else:
        batch, height, width, channels = x.shape
        shape = (batch, height * factor, width * factor, channels // factor**2)
        out = x.new_empty(shape, dtype=dtype)
    if added is None:
        return x.new_empty(0), out
    return x.new_empty(x.shape, dtype=torch.promote_types(x.dtype, added.dtype)), out


def _input_gradients(
    total: Tensor, sample_scale: Tensor | None, x_dtype: torch.dtype, added_dtype: torch.dtype | None
) -> tuple[Tensor, Tensor]:
    """Allocate the gradients of the two maps.

    The second gradient is empty without a second map, or if it equals the first gradient.
    """
    grad_x = total.new_empty(total.shape, dtype=x_dtype)
    if added_dtype is None or (sample_scale is None and added_dtype == x_dtype):
        return grad_x, total.new_empty(0)
    return grad_x, total.new_empty(total.shape, dtype=added_dtype)


def _rows(x: Tensor, weight: Tensor) -> tuple[int, int]:
    """Return the number of rows of the map and of one sample."""
    rows = x.numel() // weight.numel()
    return rows, rows // x.shape[0]


def _block(weight: Tensor) -> tuple[int, int, int]:
    """Choose the rows, channels and warps of a program."""
    block_channels = max(16, 1 << (weight.numel() - 1).bit_length())
    if block_channels >= ELEMENTS:
        return 1, block_channels, min(16, 4 * block_channels // ELEMENTS)
    return ELEMENTS // block_channels, block_channels, 4


def _accumulator(x: Tensor) -> object:
    """Return Triton's dtype for the computation of the norm."""
    import triton.language as tl

    return tl.float64 if x.dtype == torch.float64 else tl.float32
