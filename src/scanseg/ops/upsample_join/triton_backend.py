"""Upsampling and concatenation of channels-last maps by Triton custom operators.

The backward pass keeps no tensor.
"""

from typing import Any

import torch
from torch import Tensor

from scanseg.ops._support.eager import short_path
from scanseg.ops._support.triton import on_its_device
from scanseg.ops._support.triton import refuses as triton_refuses

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def refuses(*tensors: Tensor | None) -> str | None:
    """Return why Triton cannot run a call with these tensors, or `None`."""
    maps = [tensor for tensor in tensors if tensor is not None]
    for tensor in maps:
        if not tensor.is_contiguous(memory_format=_CHANNELS_LAST[tensor.ndim]):
            return "expected channels-last maps, got another memory format"
    if len({tensor.dtype for tensor in maps}) > 1:
        return f"expected x and skip of one dtype, got {maps[0].dtype} and {maps[1].dtype}"
    largest = max(tensor[0].numel() for tensor in maps)
    if largest >= 2**28:
        return f"expected fewer than 2^28 elements per sample (offsets have 32 bits), got {largest}"
    return triton_refuses(*maps)


def upsample_join_triton(x: Tensor, skip: Tensor | None, factors: tuple[int, ...]) -> Tensor:
    """Repeat and concatenate, with the arguments of `upsample_join`."""
    joined: Tensor = _direct(x, skip, list(factors))
    return joined


@torch.library.custom_op("scanseg::upsample_join", mutates_args=())
@on_its_device
def _join(x: Tensor, skip: Tensor | None, factors: list[int]) -> Tensor:
    from scanseg.ops.upsample_join.triton_launch import write_raised

    joined = _empty_joined(x, skip, factors)
    write_raised(_dense(x), joined, first_channel=0, factors=factors)
    if skip is not None:
        write_raised(_dense(skip), joined, first_channel=x.shape[1], factors=[1] * len(factors))
    return joined


@_join.register_fake
def _(x: Tensor, skip: Tensor | None, factors: list[int]) -> Tensor:
    return _empty_joined(x, skip, factors)


@torch.library.custom_op("scanseg::upsample_join_backward", mutates_args=())
@on_its_device
def _part(grad: Tensor, first_channel: int, num_channels: int, factors: list[int]) -> Tensor:
    from scanseg.ops.upsample_join.triton_launch import sum_lowered

    lowered = _empty_part(grad, num_channels, factors)
    sum_lowered(_dense(grad), lowered, first_channel=first_channel, factors=factors)
    return lowered


@_part.register_fake
def _(grad: Tensor, first_channel: int, num_channels: int, factors: list[int]) -> Tensor:
    return _empty_part(grad, num_channels, factors)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, skip, factors = inputs
    ctx.channels, ctx.has_skip, ctx.factors = x.shape[1], skip is not None, factors


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    channels, ones = ctx.channels, [1] * len(ctx.factors)
    grad_x, grad_skip = None, None
    if ctx.needs_input_grad[0]:
        grad_x = _direct_part(grad, 0, channels, ctx.factors)
    if ctx.has_skip and ctx.needs_input_grad[1]:
        grad_skip = _direct_part(grad, channels, grad.shape[1] - channels, ones)
    return grad_x, grad_skip, None


_join.register_autograd(_gradients, setup_context=_keep)
_direct = short_path(_join, _keep, _gradients)
_direct_part = short_path(_part)


def _dense(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=_CHANNELS_LAST[tensor.ndim])


def _empty_joined(x: Tensor, skip: Tensor | None, factors: list[int]) -> Tensor:
    channels = x.shape[1] + (0 if skip is None else skip.shape[1])
    size = [axis * factor for axis, factor in zip(x.shape[2:], factors, strict=True)]
    return _empty(x, channels, size)


def _empty_part(grad: Tensor, num_channels: int, factors: list[int]) -> Tensor:
    size = [axis // factor for axis, factor in zip(grad.shape[2:], factors, strict=True)]
    return _empty(grad, num_channels, size)


def _empty(like: Tensor, channels: int, size: list[int]) -> Tensor:
    return torch.empty(
        (like.shape[0], channels, *size),
        dtype=like.dtype,
        device=like.device,
        memory_format=_CHANNELS_LAST[like.ndim],
    )
