"""Triton kernels of the norm over channels, one pass forward, one backward.

A row holds the channels of one pixel. A program takes blocks of rows and keeps each row in registers, so that mean and
variance (of the differences from the mean) need no second read. The gradients recompute them instead of reading them.
The gradients of weight and bias are summed per program and added up afterwards, in fixed order.

With `added`, the row is the sum of two maps, x + scale[sample] * added, which is stored too, so that the residual sum
needs no pass of its own. With `factor` p, rows (image row, column, p1, p2) are stored as (image row, p1, column, p2),
so that channels become pixels during the norm.

Minimum traffic for M elements of b bytes: 2 M b forward, 3 M b backward. The kernels take about 20 and 35 instructions
per element. In that time an H100 can run 39 and 58 for 16 bits.

This module imports Triton, so only functions that need its kernels at once may import it.
"""

import triton
import triton.language as tl


@triton.jit
def _normalised(x, mask, channels, eps):
    """Return each row in units of its deviation, and 1 / deviation."""
    mean = tl.sum(x, axis=1)[:, None] / channels
    centred = tl.where(mask, x - mean, 0.0)
    variance = tl.sum(centred * centred, axis=1)[:, None] / channels
    inverse = 1 / tl.sqrt(variance + eps)
    return centred * inverse, inverse


@triton.jit
def _place(row, width, FACTOR: tl.constexpr):
    """Return the row of the result for a row of the input."""
    if FACTOR > 1:
        second = row % FACTOR
        first = (row // FACTOR) % FACTOR
        column = (row // (FACTOR * FACTOR)) % width
        line = row // (FACTOR * FACTOR) // width
        row = ((line * FACTOR + first) * width + column) * FACTOR + second
    return row


@triton.jit(do_not_specialize=["rows", "rows_per_sample", "width"])
def normalise_rows(
    x_ptr,
    added_ptr,
    scale_ptr,
    weight_ptr,
    bias_ptr,
    sum_ptr,
    out_ptr,
    rows,
    rows_per_sample,
    width,
    eps,
    channels: tl.constexpr,
    ADDED: tl.constexpr,
    SCALED: tl.constexpr,
    FACTOR: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    ACC: tl.constexpr,
):
    """Normalize one block of rows."""
    channel = tl.arange(0, BLOCK_CHANNELS)[None, :]
    row = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[:, None]
    mask = (row < rows) & (channel < channels)
    place = row.to(tl.int64) * channels + channel
    x = tl.load(x_ptr + place, mask=mask, other=0.0).to(ACC)
    if ADDED:
        added = tl.load(added_ptr + place, mask=mask, other=0.0).to(ACC)
        if SCALED:
            added = added * tl.load(scale_ptr + row // rows_per_sample, mask=row < rows, other=0.0).to(ACC)
        # Normalize the stored sum, with the precision in which it is stored.
        total = (x + added).to(sum_ptr.dtype.element_ty)
        tl.store(sum_ptr + place, total, mask=mask)
        x = total.to(ACC)
    weight = tl.load(weight_ptr + channel, mask=channel < channels, other=0.0).to(ACC)
    bias = tl.load(bias_ptr + channel, mask=channel < channels, other=0.0).to(ACC)
    normalised, _ = _normalised(x, mask, channels, eps)
    tl.store(
        out_ptr + _place(row, width, FACTOR).to(tl.int64) * channels + channel,
        normalised * weight + bias,
        mask=mask,
    )


@triton.jit(do_not_specialize=["rows", "rows_per_sample", "width", "programs"])
def normalise_rows_gradients(
    grad_ptr,
    grad_sum_ptr,
    x_ptr,
    scale_ptr,
    weight_ptr,
    grad_x_ptr,
    grad_added_ptr,
    partial_ptr,
    rows,
    rows_per_sample,
    width,
    programs,
    eps,
    channels: tl.constexpr,
    ADDED: tl.constexpr,
    GRAD_ADDED: tl.constexpr,
    SCALED: tl.constexpr,
    FACTOR: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    ACC: tl.constexpr,
):
    """Compute the gradients on every `programs`-th block of rows.

    Also sum the gradients of weight and bias over these rows.
    """
    channel = tl.arange(0, BLOCK_CHANNELS)[None, :]
    known = channel < channels
    weight = tl.load(weight_ptr + channel, mask=known, other=0.0).to(ACC)
    grad_weight = tl.zeros([BLOCK_ROWS, BLOCK_CHANNELS], ACC)
    grad_bias = tl.zeros([BLOCK_ROWS, BLOCK_CHANNELS], ACC)
    for block in range(tl.program_id(0), tl.cdiv(rows, BLOCK_ROWS), programs):
        row = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[:, None]
        mask = (row < rows) & known
        place = row.to(tl.int64) * channels + channel
        x = tl.load(x_ptr + place, mask=mask, other=0.0).to(ACC)
        grad_place = _place(row, width, FACTOR).to(tl.int64) * channels + channel
        grad = tl.load(grad_ptr + grad_place, mask=mask, other=0.0).to(ACC)
        normalised, inverse = _normalised(x, mask, channels, eps)
        grad_weight += grad * normalised
        grad_bias += grad
        grad = grad * weight
        along = tl.sum(grad * normalised, axis=1)[:, None] / channels
        mean = tl.sum(grad, axis=1)[:, None] / channels
        result = (grad - mean - normalised * along) * inverse
        if ADDED:
            result += tl.load(grad_sum_ptr + place, mask=mask, other=0.0).to(ACC)
        tl.store(grad_x_ptr + place, result, mask=mask)
        if GRAD_ADDED:
            if SCALED:
                scale = tl.load(scale_ptr + row // rows_per_sample, mask=row < rows, other=0.0)
                result = result * scale.to(ACC)
            tl.store(grad_added_ptr + place, result, mask=mask)
    column = tl.arange(0, BLOCK_CHANNELS)
    partial = partial_ptr + tl.program_id(0) * 2 * channels + column
    tl.store(partial, tl.sum(grad_weight, axis=0), mask=column < channels)
    tl.store(partial + channels, tl.sum(grad_bias, axis=0), mask=column < channels)
