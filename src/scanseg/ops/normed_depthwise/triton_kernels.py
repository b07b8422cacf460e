"""Triton kernels of the batch statistics and of their gradient.

Rows are pixels, with channels last. The statistics are sums of differences from the first row of each program's share,
so that a mean far from 0 causes no cancellation. The means and squares of the shares are joined in fixed order. One
pass reads the map once (M b bytes for M elements). The gradient of the statistics is a second pass over the gradient
that the kernel of the convolution writes (2 M b read, M b written).

This module imports Triton, so only functions that need its kernels at once may import it.
"""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["rows", "share"])
def sum_shares(
    x_ptr,
    partial_ptr,
    rows,
    channels,
    share,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    ACC: tl.constexpr,
):
    """Compute mean and squared deviations of one share of the rows.

    A program computes them for a block of channels.
    """
    channel = tl.program_id(0) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    known = channel < channels
    first = tl.program_id(1).to(tl.int64) * share
    end = tl.minimum(first + share, rows)
    origin = tl.load(x_ptr + first * channels + channel, mask=known, other=0.0).to(ACC)[None, :]
    sums = tl.zeros([BLOCK_ROWS, BLOCK_CHANNELS], ACC)
    squares = tl.zeros([BLOCK_ROWS, BLOCK_CHANNELS], ACC)
    for start in range(0, share, BLOCK_ROWS):
        row = first + start + tl.arange(0, BLOCK_ROWS)[:, None]
        mask = (row < end) & known[None, :]
        x = tl.load(x_ptr + row * channels + channel[None, :], mask=mask, other=0.0).to(ACC)
        difference = tl.where(mask, x - origin, 0.0)
        sums += difference
        squares += difference * difference
    count = (end - first).to(ACC)
    total = tl.sum(sums, axis=0)
    place = partial_ptr + tl.program_id(1) * 2 * channels + channel
    mean = total / count
    tl.store(place, mean + tl.sum(origin, axis=0), mask=known)
    tl.store(place + channels, tl.sum(squares, axis=0) - total * mean, mask=known)


@triton.jit(do_not_specialize=["rows", "share", "shares"])
def join_shares(
    partial_ptr,
    mean_ptr,
    variance_ptr,
    running_mean_ptr,
    running_var_ptr,
    rows,
    channels,
    share,
    shares,
    momentum,
    UPDATE: tl.constexpr,
    BLOCK_SHARES: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    ACC: tl.constexpr,
):
    """Compute mean and variance of a block of channels from the shares.

    The number of shares is at most `BLOCK_SHARES`. With `UPDATE` the running statistics follow in place.
    """
    channel = tl.program_id(0) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    index = tl.arange(0, BLOCK_SHARES)[:, None]
    mask = (index < shares) & (channel < channels)[None, :]
    count = tl.where(index < shares, tl.minimum(rows - index * share, share), 0).to(ACC)
    place = partial_ptr + index * 2 * channels + channel[None, :]
    means = tl.load(place, mask=mask, other=0.0)
    squares = tl.load(place + channels, mask=mask, other=0.0)
    # Relative to the mean of the first share, so that the summed differences are small.
    origin = tl.load(partial_ptr + channel, mask=channel < channels, other=0.0)
    offset = tl.sum((means - origin[None, :]) * count, axis=0) / rows
    mean = origin + offset
    difference = means - mean[None, :]
    squares = tl.sum(squares + difference * difference * count, axis=0)
    known = channel < channels
    tl.store(mean_ptr + channel, mean, mask=known)
    tl.store(variance_ptr + channel, squares / rows, mask=known)
    if UPDATE:
        running = tl.load(running_mean_ptr + channel, mask=known, other=0.0)
        tl.store(running_mean_ptr + channel, running + momentum * (mean - running), mask=known)
        running = tl.load(running_var_ptr + channel, mask=known, other=0.0)
        tl.store(running_var_ptr + channel, running + momentum * (squares / (rows - 1) - running), mask=known)


@triton.jit
def scale_channels(
    weight_ptr,
    variance_ptr,
    scale_ptr,
    inverse_ptr,
    channels,
    eps,
    BLOCK_CHANNELS: tl.constexpr,
):
    """Compute 1 / sqrt(variance + eps) and its product with the weight."""
    channel = tl.program_id(0) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    known = channel < channels
    inverse = 1 / tl.sqrt(tl.load(variance_ptr + channel, mask=known, other=1.0) + eps)
    weight = tl.load(weight_ptr + channel, mask=known, other=0.0).to(inverse.dtype)
    tl.store(inverse_ptr + channel, inverse, mask=known)
    tl.store(scale_ptr + channel, weight * inverse, mask=known)


@triton.jit(do_not_specialize=["rows"])
def add_statistics_gradient(
    grad_ptr,
    x_ptr,
    mean_ptr,
    scale_ptr,
    inverse_ptr,
    sums_ptr,
    rows,
    channels,
    count,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    ACC: tl.constexpr,
):
    """Convert the gradient g after the normalization, in place.

    It becomes scale * g - constant - slope * (x - mean). The constant is the mean of
    scale * g over pixels, and the slope that of scale * g * (x - mean) / variance. `sums_ptr` has the sums of g and of
    g * (x - mean).
    """
    blocks = tl.cdiv(channels, BLOCK_CHANNELS)
    channel = (tl.program_id(0) % blocks) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)[None, :]
    known = channel < channels
    row = (tl.program_id(0) // blocks) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[:, None]
    mask = (row < rows) & known
    place = row.to(tl.int64) * channels + channel
    grad = tl.load(grad_ptr + place, mask=mask, other=0.0).to(ACC)
    x = tl.load(x_ptr + place, mask=mask, other=0.0).to(ACC)
    mean = tl.load(mean_ptr + channel, mask=known, other=0.0).to(ACC)
    scale = tl.load(scale_ptr + channel, mask=known, other=0.0).to(ACC)
    inverse = tl.load(inverse_ptr + channel, mask=known, other=0.0).to(ACC)
    constant = tl.load(sums_ptr + channel, mask=known, other=0.0).to(ACC) * scale / count
    slope = tl.load(sums_ptr + channels + channel, mask=known, other=0.0).to(ACC)
    slope = slope * inverse * inverse * scale / count
    tl.store(grad_ptr + place, scale * grad - constant - slope * (x - mean), mask=mask)
