"""Batch normalization, ReLU and depthwise convolution by Triton, as custom operators.

Maps are channels-last. The normalized map is never in memory, because the convolution normalizes its input on loading,
forward and backward. The kernels of the convolution are those of `scanseg.ops.depthwise`.
"""

from typing import Any

import torch
from torch import Tensor

from scanseg.ops._support import triton as triton_support
from scanseg.ops._support.contract import state_dtype
from scanseg.ops._support.eager import is_traced, short_path
from scanseg.ops._support.launching import launch
from scanseg.ops._support.linear import as_map, as_pixels
from scanseg.ops._support.pass_weights import Wanted, converted_weights
from scanseg.ops.depthwise.triton_launch import FORWARD, Before, convolve, gradients

MOST_SHARES = 64
"""Maximum number of shares into which the rows of a map are divided for its statistics."""

STATISTICS_PROGRAMS = 1056
"""Target number of programs of the statistics: 8 for each multiprocessor of an H100."""

BLOCK_ROWS, BLOCK_CHANNELS = 32, 64


def refuses(x: Tensor, weight: Tensor, *others: Tensor | None) -> str | None:
    """Return why the kernels cannot run a call, or `None`."""
    if weight.shape[-1] not in FORWARD:
        return f"expected a kernel size of {', '.join(map(str, FORWARD))}, got {weight.shape[-1]}"
    return triton_support.refuses(x, weight, *others)


def normed_depthwise_conv_triton(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    *,
    momentum: float | None,
    eps: float,
) -> Tensor:
    """Normalize, rectify and convolve, with the arguments of `normed_depthwise_conv`."""
    x = x.contiguous(memory_format=torch.channels_last)
    keeps = torch.is_grad_enabled()
    taps = _taps(weight, for_gradients=keeps)
    if momentum is None:
        wide = state_dtype(x)  # copies, because later passes in training change the running statistics
        mean, variance = running_mean.to(wide, copy=keeps), running_var.to(wide, copy=keeps)
    else:
        mean, variance = _updated_statistics(x.detach(), running_mean, running_var, momentum)
    of_batch = momentum is not None
    result: Tensor = _direct(
        x, taps, bias, norm_weight, norm_bias, mean, variance, eps=eps, of_batch=of_batch
    )
    return result


def _taps(weight: Tensor, *, for_gradients: bool) -> Tensor:
    """Return kernels as taps, already converted if they need no gradient."""
    found = None if for_gradients or torch.compiler.is_compiling() else converted_weights(weight)
    return weight.flatten(1).t().contiguous() if found is None else found[0]


def wanted_weights(weight: Tensor) -> tuple[Wanted, ...]:
    """Return the parameters that a pass converts for the operator.

    Args:
        weight: Kernels of the convolution.

    Example:
        >>> import torch
        >>> from scanseg.ops import wanted_by_normed_depthwise
        >>> [wanted.shape for wanted in wanted_by_normed_depthwise(torch.ones(4, 1, 3, 3))]
        [(9, 4)]
    """
    return (Wanted("taps", (weight,)),)


def _updated_statistics(
    x: Tensor, running_mean: Tensor, running_var: Tensor, momentum: float
) -> tuple[Tensor, Tensor]:
    """Return mean and variance of a batch, and update the running statistics."""
    running = (running_mean, running_var)
    wide = state_dtype(x)
    is_direct = not torch.compiler.is_compiling() and not is_traced(x, *running)
    if is_direct and all(each.dtype == wide and each.is_contiguous() for each in running):
        found: tuple[Tensor, Tensor] = _measure(x, running, momentum)
        for each in running:  # the kernel changes them without PyTorch
            if not each.is_inference():
                torch.autograd.graph.increment_version(each)
        return found
    mean, variance = _direct_statistics(x)
    count = x.numel() // x.shape[1]
    with torch.no_grad():
        running_mean.lerp_(mean.to(running_mean.dtype), momentum)
        unbiased = variance * (count / (count - 1))
        running_var.lerp_(unbiased.to(running_var.dtype), momentum)
    return mean, variance


# The operators take and return maps with channels as axis 1, for the reason given in `scanseg.ops.channel_norm`.
@torch.library.custom_op("scanseg::channel_statistics_triton", mutates_args=())
@triton_support.on_its_device
def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    return _joined_shares(x, None, 0.0)


def _joined_shares(
    x: Tensor, running: tuple[Tensor, Tensor] | None, momentum: float
) -> tuple[Tensor, Tensor]:
    """Return mean and variance, and update the running ones."""
    import triton.language as tl

    from scanseg.ops.normed_depthwise.triton_kernels import join_shares, sum_shares

    x = as_pixels(x)
    channels = x.shape[-1]
    rows, blocks = x.numel() // channels, -(-channels // BLOCK_CHANNELS)
    shares = min(MOST_SHARES, -(-STATISTICS_PROGRAMS // blocks), -(-rows // BLOCK_ROWS))
    share = -(-rows // shares)
    shares = -(-rows // share)
    wide = state_dtype(x)
    accumulator = tl.float64 if wide == torch.float64 else tl.float32
    partial = x.new_empty((shares, 2, channels), dtype=wide)
    mean, variance = (x.new_empty(channels, dtype=wide) for _ in range(2))
    launch(sum_shares, (blocks, shares))(
        x,
        partial,
        rows,
        channels,
        share,
        BLOCK_ROWS=BLOCK_ROWS,
        BLOCK_CHANNELS=BLOCK_CHANNELS,
        ACC=accumulator,
        num_warps=4,
    )
    launch(join_shares, (-(-channels // 32),))(
        partial,
        mean,
        variance,
        *(running or (mean, variance)),
        rows,
        channels,
        share,
        shares,
        float(momentum),
        UPDATE=running is not None,
        BLOCK_SHARES=MOST_SHARES,
        BLOCK_CHANNELS=32,
        ACC=accumulator,
        num_warps=4,
    )
    return mean, variance


_measure = triton_support.on_its_device(_joined_shares)


@_statistics.register_fake
def _(x: Tensor) -> tuple[Tensor, Tensor]:
    wide = state_dtype(x)
    return x.new_empty(x.shape[1], dtype=wide), x.new_empty(x.shape[1], dtype=wide)


@torch.library.custom_op("scanseg::normed_depthwise_conv_triton", mutates_args=())
@triton_support.on_its_device
def _convolve_normed(
    x: Tensor,
    taps: Tensor,
    bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    *,
    eps: float,
    of_batch: bool,
) -> Tensor:
    scale, _ = _scales(norm_weight, variance, eps)
    before = Before(mean, scale, norm_bias.contiguous())
    out, _ = convolve(as_pixels(x), taps, bias, before=before, silu=False, residual=False, save_pre=False)
    return as_map(out)


@_convolve_normed.register_fake
def _(
    x: Tensor,
    taps: Tensor,
    bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    *,
    eps: float,
    of_batch: bool,
) -> Tensor:
    return as_map(torch.empty_like(as_pixels(x)))


@torch.library.custom_op("scanseg::normed_depthwise_conv_triton_backward", mutates_args=())
@triton_support.on_its_device
def _convolve_normed_backward(
    grad: Tensor,
    x: Tensor,
    taps: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    *,
    eps: float,
    of_batch: bool,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of the map and of the parameters.

    The rows of the second result are the gradients of taps, bias, `norm_bias` and `norm_weight`.
    """
    scale, inverse = _scales(norm_weight, variance, eps)
    x = as_pixels(x)
    grad_x, sums = gradients(
        as_pixels(grad),
        x,
        None,
        taps,
        before=Before(mean, scale, norm_bias.contiguous()),
        gelu=False,
        has_bias=True,
        residual=False,
    )
    # Means over pixels, which the statistics of the batch subtract from the gradient of every pixel.
    count = float(x.numel() // x.shape[-1]) if of_batch else torch.inf
    _add_statistics_gradient(grad_x, x, mean, scale, inverse, sums[-2:], count)
    sums[-1] *= inverse
    return as_map(grad_x), sums


@_convolve_normed_backward.register_fake
def _(
    grad: Tensor,
    x: Tensor,
    taps: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    *,
    eps: float,
    of_batch: bool,
) -> tuple[Tensor, Tensor]:
    grad_x = as_map(torch.empty_like(as_pixels(x)))
    return grad_x, x.new_empty((taps.shape[0] + 3, x.shape[1]), dtype=state_dtype(x))


def _keep(ctx: Any, inputs: tuple[Tensor, ...], keyword_only_inputs: dict[str, Any], output: Tensor) -> None:
    x, taps, bias, *rest = inputs
    ctx.save_for_backward(x, taps, *rest)
    ctx.bias_dtype = bias.dtype
    ctx.options = keyword_only_inputs


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, taps, norm_weight, norm_bias, mean, variance = ctx.saved_tensors
    grad_x, sums = _direct_backward(grad, x, taps, norm_weight, norm_bias, mean, variance, **ctx.options)
    return (
        grad_x,
        sums[:-3].to(taps.dtype),
        sums[-3].to(ctx.bias_dtype),
        sums[-1].to(norm_weight.dtype),
        sums[-2].to(norm_bias.dtype),
        None,
        None,
    )


_convolve_normed.register_autograd(_gradients, setup_context=_keep)
_direct = short_path(_convolve_normed, _keep, _gradients)
_direct_backward = short_path(_convolve_normed_backward)
_direct_statistics = short_path(_statistics)


def _scales(norm_weight: Tensor, variance: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return the factor of each channel, and that of its normalization."""
    from scanseg.ops.normed_depthwise.triton_kernels import scale_channels

    channels = variance.numel()
    scale, inverse = torch.empty_like(variance), torch.empty_like(variance)
    launch(scale_channels, (-(-channels // 128),))(
        norm_weight.contiguous(),
        variance.contiguous(),
        scale,
        inverse,
        channels,
        eps,
        BLOCK_CHANNELS=128,
        num_warps=1,
    )
    return scale, inverse


def _add_statistics_gradient(
    grad: Tensor, x: Tensor, mean: Tensor, scale: Tensor, inverse: Tensor, sums: Tensor, count: float
) -> None:
    """Convert the gradient after the normalization, in place.

    It becomes the gradient of the map. `sums` has the sums of the gradient, and of its product with (x - mean).
    """
    import triton.language as tl

    from scanseg.ops.normed_depthwise.triton_kernels import add_statistics_gradient

    channels = x.shape[-1]
    rows = x.numel() // channels
    launch(add_statistics_gradient, (-(-rows // BLOCK_ROWS) * -(-channels // BLOCK_CHANNELS),))(
        grad,
        x,
        mean,
        scale,
        inverse,
        sums,
        rows,
        channels,
        count,
        BLOCK_ROWS=BLOCK_ROWS,
        BLOCK_CHANNELS=BLOCK_CHANNELS,
        ACC=tl.float64 if x.dtype == torch.float64 else tl.float32,
        num_warps=4,
    )
