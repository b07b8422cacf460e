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
    rows,
    channels,
    share,
    shares,
    BLOCK_SHARES: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    ACC: tl.constexpr,
):
    """Compute mean and variance of a block of channels from the shares.

    The number of shares is at most `BLOCK_SHARES`.
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
    tl.store(mean_ptr + channel, mean, mask=channel < channels)
    tl.store(variance_ptr + channel, squares / rows, mask=channel < channels)


@triton.jit(do_not_specialize=["rows"])
def add_statistics_gradient(
    grad_ptr,
    x_ptr,
    mean_ptr,
    scale_ptr,
    constant_ptr,
    slope_ptr,
    rows,
    channels,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    ACC: tl.constexpr,
):
    """Convert the gradient g after the normalization, in place.

    It becomes scale * g - constant - slope * (x - mean).
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
    constant = tl.load(constant_ptr + channel, mask=known, other=0.0).to(ACC)
    slope = tl.load(slope_ptr + channel, mask=known, other=0.0).to(ACC)
    tl.store(grad_ptr + place, scale * grad - constant - slope * (x - mean), mask=mask)
