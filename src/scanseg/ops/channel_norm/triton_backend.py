"""Norm over channels by Triton: custom operators on channels-last maps."""

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from scanseg.ops._support import triton as triton_support
from scanseg.ops._support.contract import state_dtype
from scanseg.ops._support.eager import short_path
from scanseg.ops._support.launching import Launch

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
    shape: tuple[int, ...] | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the sum and the normalized map, channels last.

    Without `added` the sum is the map itself. Maps may be matrices (pixel, channel) with a factor of 1. `shape` is then
    the shape with channels last.
    """
    scaled = sample_scale is not None
    tensors = (x, *[each for each in (added, sample_scale, weight, bias) if each is not None])
    dtypes = tuple([tensor.dtype for tensor in tensors])
    plan = _plan(shape or x.shape, dtypes, added is not None, scaled, weight.numel(), eps, dtype, factor)
    total, out = _results(x, added, dtype, factor)
    plan(
        x,
        x if added is None else added,
        x if sample_scale is None else sample_scale.contiguous(),
        weight.contiguous(),
        bias.contiguous(),
        total,
        out,
    )
    return total, out


@lru_cache(maxsize=1024)
def _plan(
    shape: tuple[int, ...],
    dtypes: tuple[torch.dtype, ...],
    added: bool,  # noqa: FBT001 (arguments by position take less time)
    scaled: bool,  # noqa: FBT001
    channels: int,
    eps: float,
    dtype: torch.dtype,
    factor: int,
) -> Launch:
    """Return the launch of the norm for maps of one shape.

    All dtypes and the dtype of the result are arguments, because a launch has fixed dtypes.
    """
    from scanseg.ops.channel_norm.triton_kernels import normalise_rows

    rows, rows_per_sample = _rows(shape, channels)
    block_rows, block_channels, warps = _block(channels)
    return Launch(
        normalise_rows,
        (-(-rows // block_rows),),
        (rows, rows_per_sample, shape[-2], eps),
        channels=channels,
        ADDED=added,
        SCALED=scaled,
        FACTOR=factor,
        BLOCK_ROWS=block_rows,
        BLOCK_CHANNELS=block_channels,
        ACC=_accumulator(dtypes[0]),
        num_warps=warps,
    )


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
    # An operator of a graph must not return its input.
    return x.new_empty(0) if added is None else _as_map(total), _as_map(out)


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
    return x.new_empty(0) if added is None else _as_map(total), _as_map(out)


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
    shape: tuple[int, ...] | None = None,
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
        shape: See `normalise`.
    """
    grad_x, grad_added = _input_gradients(total, sample_scale, x_dtype, added_dtype)
    tensors = (
        (grad, grad_total, total, weight)
        if sample_scale is None
        else (grad, grad_total, total, weight, sample_scale)
    )
    dtypes = tuple([tensor.dtype for tensor in tensors])
    plan, programs = _gradient_plan(
        shape or total.shape,
        dtypes,
        sample_scale is not None,
        weight.numel(),
        eps,
        factor,
        x_dtype,
        added_dtype,
        grad_added.numel() > 0,
    )
    partial = torch.empty((programs, 2, weight.numel()), dtype=state_dtype(total), device=total.device)
    plan(
        grad.contiguous(),
        grad_total.contiguous(),
        total,
        total if sample_scale is None else sample_scale.contiguous(),
        weight.contiguous(),
        grad_x,
        grad_added,
        partial,
    )
    return grad_x, grad_added, partial if in_parts else partial.sum(0)


@lru_cache(maxsize=1024)
def _gradient_plan(
    shape: tuple[int, ...],
    dtypes: tuple[torch.dtype, ...],
    scaled: bool,  # noqa: FBT001 (arguments by position take less time)
    channels: int,
    eps: float,
    factor: int,
    x_dtype: torch.dtype,
    added_dtype: torch.dtype | None,
    grad_added: bool,  # noqa: FBT001
) -> tuple[Launch, int]:
    """Return the launch of the gradients, and the number of partial sums."""
    from scanseg.ops.channel_norm.triton_kernels import normalise_rows_gradients

    rows, rows_per_sample = _rows(shape, channels)
    block_rows, block_channels, warps = _block(channels)
    programs = min(-(-rows // block_rows), GRADIENT_PROGRAMS)
    launch = Launch(
        normalise_rows_gradients,
        (programs,),
        (rows, rows_per_sample, shape[-2], programs, eps),
        channels=channels,
        ADDED=added_dtype is not None,
        GRAD_ADDED=grad_added,
        SCALED=scaled,
        FACTOR=factor,
        BLOCK_ROWS=block_rows,
        BLOCK_CHANNELS=block_channels,
        ACC=_accumulator(dtypes[2]),
        num_warps=warps,
    )
    return launch, programs


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
    ctx.set_materialize_grads(False)  # zeros for the whole sum would be written and never read
    ctx.save_for_backward(x if added is None else output[0], sample_scale, weight)
    ctx.settings = (eps, factor, x.dtype, None if added is None else added.dtype)


def _gradients(ctx: Any, grad_total: Tensor | None, grad: Tensor | None) -> tuple[Tensor | None, ...]:
    total, sample_scale, weight = ctx.saved_tensors
    if grad is None and grad_total is None:
        return (None,) * 8
    if grad is None:
        grad = torch.zeros_like(total)
    if grad_total is None:
        grad_total = grad if ctx.settings[-1] is None else torch.zeros_like(total)
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
    """Allocate the sum (the map itself without `added`) and the normalized map."""
    if factor == 1:
        out = torch.empty_like(x, dtype=dtype)
    else:
        batch, height, width, channels = x.shape
        shape = (batch, height * factor, width * factor, channels // factor**2)
        out = x.new_empty(shape, dtype=dtype)
    if added is None:
        return x, out
    dtype = x.dtype if x.dtype == added.dtype else torch.promote_types(x.dtype, added.dtype)
    return torch.empty_like(x, dtype=dtype), out


def _input_gradients(
    total: Tensor, sample_scale: Tensor | None, x_dtype: torch.dtype, added_dtype: torch.dtype | None
) -> tuple[Tensor, Tensor]:
    """Allocate the gradients of the two maps.

    The second gradient is empty without a second map, or if it equals the first gradient.
    """
    grad_x = torch.empty_like(total, dtype=x_dtype)
    if added_dtype is None or (sample_scale is None and added_dtype == x_dtype):
        return grad_x, total.new_empty(0)
    return grad_x, torch.empty_like(total, dtype=added_dtype)


def _rows(shape: tuple[int, ...], channels: int) -> tuple[int, int]:
    """Return the number of rows of the map and of one sample."""
    rows = math.prod(shape) // channels
    return rows, rows // shape[0]


def _block(channels: int) -> tuple[int, int, int]:
    """Choose the rows, channels and warps of a program."""
    block_channels = max(16, 1 << (channels - 1).bit_length())
    if block_channels >= ELEMENTS:
        return 1, block_channels, min(16, 4 * block_channels // ELEMENTS)
    return ELEMENTS // block_channels, block_channels, 4


def _accumulator(dtype: torch.dtype) -> object:
    """Return Triton's dtype for the computation of the norm."""
    import triton.language as tl

    return tl.float64 if dtype == torch.float64 else tl.float32
