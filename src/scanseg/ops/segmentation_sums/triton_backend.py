"""Sums of Dice and cross-entropy by Triton, as custom operators.

Two kernels run forward, one backward. The backward pass keeps the logits and the label map, which live anyway, and
nothing else of their size.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from scanseg.ops._support import triton as triton_support
from scanseg.ops._support.contract import state_dtype
from scanseg.ops._support.eager import short_path

MOST_OUTPUTS = 256
"""Maximum number of outputs. The outputs of a voxel must fit into the registers of one program."""

Sums = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def refuses(logits: Tensor, label_map: Tensor) -> str | None:
    """Return why the kernels cannot run a call, or `None`."""
    if logits.shape[1] > MOST_OUTPUTS:
        return f"expected at most {MOST_OUTPUTS} outputs, got {logits.shape[1]}"
    if logits[0].numel() >= 2**31:
        return f"expected fewer than 2^31 logits per sample (offsets have 32 bits), got {logits[0].numel()}"
    return triton_support.refuses(logits, label_map)


def segmentation_sums_triton(
    logits: Tensor,
    label_map: Tensor,
    *,
    groups: Sequence[Sequence[int]],
    regions: bool,
    weights: Sequence[float] | None,
    ignore_label: int | None,
    squared: bool,
    over_batch: bool,
    first_output: int,
) -> Sums:
    """Compute the sums, with arguments and results of `segmentation_sums`."""
    codes = _words(groups) if regions else _labels(groups)
    if regions:
        given = [1.0] * len(groups) if weights is None else weights
        whole = sum(given)
        weights = [weight / whole for weight in given]
    result: Sums = _direct(
        logits,
        label_map,
        codes,
        None if weights is None else [float(weight) for weight in weights],
        regions,
        ignore_label,
        squared,
        over_batch,
        first_output,
    )
    return result


def _labels(groups: Sequence[Sequence[int]]) -> list[int] | None:
    """Return the label of each class, or `None` for class numbers."""
    labels = [label for (label,) in groups]
    return None if labels == [*range(len(labels))] else labels


def _words(groups: Sequence[Sequence[int]]) -> list[int]:
    """Encode the groups as signed 32-bit words with one bit per label.

    The order is by word, then by group.
    """
    num_words = max(max(group) for group in groups) // 32 + 1
    words = []
    for word in range(num_words):
        for group in groups:
            bits = sum(1 << label % 32 for label in {*group} if label // 32 == word)
            words.append(bits - 2**32 if bits >= 2**31 else bits)
    return words


@torch.library.custom_op("scanseg::segmentation_sums", mutates_args=())
@triton_support.on_its_device
def _sum(
    logits: Tensor,
    label_map: Tensor,
    codes: Sequence[int] | None,
    weights: Sequence[float] | None,
    regions: bool,  # noqa: FBT001
    ignore_label: int | None,
    squared: bool,  # noqa: FBT001
    over_batch: bool,  # noqa: FBT001
    first_output: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    from scanseg.ops.segmentation_sums.triton_launch import Form, write_sums

    logits, channels_last = _dense(logits)
    results = _empty_sums(logits, over_batch=over_batch, first_output=first_output)
    write_sums(
        logits,
        label_map.contiguous(),
        Form(_tuple(codes), _tuple(weights), regions, ignore_label, squared),
        results,
        first_output=first_output,
        channels_last=channels_last,
    )
    return results


@_sum.register_fake
def _(
    logits: Tensor,
    label_map: Tensor,
    codes: Sequence[int] | None,
    weights: Sequence[float] | None,
    regions: bool,  # noqa: FBT001
    ignore_label: int | None,
    squared: bool,  # noqa: FBT001
    over_batch: bool,  # noqa: FBT001
    first_output: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return _empty_sums(logits, over_batch=over_batch, first_output=first_output)


@torch.library.custom_op("scanseg::segmentation_sums_backward", mutates_args=())
@triton_support.on_its_device
def _gradient(
    logits: Tensor,
    label_map: Tensor,
    grad_overlap: Tensor | None,
    grad_predicted: Tensor | None,
    grad_cross_entropy: Tensor | None,
    codes: Sequence[int] | None,
    weights: Sequence[float] | None,
    regions: bool,  # noqa: FBT001
    ignore_label: int | None,
    squared: bool,  # noqa: FBT001
    over_batch: bool,  # noqa: FBT001
    first_output: int,
) -> Tensor:
    from scanseg.ops.segmentation_sums.triton_launch import Form, gradient

    logits, channels_last = _dense(logits)
    return gradient(
        (grad_overlap, grad_predicted, grad_cross_entropy),
        logits,
        label_map.contiguous(),
        Form(_tuple(codes), _tuple(weights), regions, ignore_label, squared),
        over_batch=over_batch,
        first_output=first_output,
        channels_last=channels_last,
    )


@_gradient.register_fake
def _(
    logits: Tensor,
    label_map: Tensor,
    grad_overlap: Tensor | None,
    grad_predicted: Tensor | None,
    grad_cross_entropy: Tensor | None,
    codes: Sequence[int] | None,
    weights: Sequence[float] | None,
    regions: bool,  # noqa: FBT001
    ignore_label: int | None,
    squared: bool,  # noqa: FBT001
    over_batch: bool,  # noqa: FBT001
    first_output: int,
) -> Tensor:
    return torch.empty_like(_dense(logits)[0])


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Sums) -> None:
    logits, label_map, *options = inputs
    ctx.save_for_backward(logits, label_map)
    ctx.options = options
    _, _, actual, _, counted = output
    ctx.mark_non_differentiable(actual, counted)
    ctx.set_materialize_grads(False)


def _backward(
    ctx: Any,
    grad_overlap: Tensor | None,
    grad_predicted: Tensor | None,
    _actual: None,
    grad_cross_entropy: Tensor | None,
    _counted: None,
) -> tuple[Tensor | None, ...]:
    logits, label_map = ctx.saved_tensors
    grad_overlap, grad_predicted = _both(grad_overlap, grad_predicted)
    grad = _direct_gradient(logits, label_map, grad_overlap, grad_predicted, grad_cross_entropy, *ctx.options)
    return grad, *[None] * 8


_sum.register_autograd(_backward, setup_context=_keep)
_direct = short_path(_sum, _keep, _backward)
_direct_gradient = short_path(_gradient)


def _empty_sums(logits: Tensor, *, over_batch: bool, first_output: int) -> Sums:
    num_samples, num_outputs = logits.shape[:2]
    shape, dtype = (1 if over_batch else num_samples, num_outputs - first_output), state_dtype(logits)
    overlap, predicted, actual = (logits.new_empty(shape, dtype=dtype) for _ in range(3))
    return overlap, predicted, actual, logits.new_empty((), dtype=dtype), logits.new_empty((), dtype=dtype)


def _both(first: Tensor | None, second: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """Replace a missing gradient by zeros if the other one exists."""
    if first is None and second is not None:
        first = torch.zeros_like(second)
    if second is None and first is not None:
        second = torch.zeros_like(first)
    return first, second


def _tuple(numbers: Sequence[Any] | None) -> tuple[Any, ...] | None:
    return None if numbers is None else tuple(numbers)


def _dense(logits: Tensor) -> tuple[Tensor, bool]:
    """Return the logits without gaps in memory, and whether outputs come last."""
    if logits.is_contiguous():
        return logits, False
    if logits.stride(1) == 1:
        return logits.movedim(1, -1).contiguous().movedim(-1, 1), True
    return logits.contiguous(), False
