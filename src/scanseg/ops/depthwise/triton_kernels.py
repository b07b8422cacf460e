"""Triton kernels of the depthwise convolution, forward and backward.

A program takes a tile of columns (of any images of the batch) by channels and slides it down a strip of rows. Of every
row it loads K tiles, one for each column of the kernel, and adds each tile to the K sums of the output rows that
depend on it. A sum is stored after its last row. Per element and K x K kernel this takes K loads and conversions and
K^2 multiply-adds, instead of K^2 of each. Rows are taken in groups: all loads of a group are issued before the first
use, which hides the latency of the memory.

In the backward pass the same slide over the rows of the incoming gradient gives both gradients. With g at (row + shift)
in a register, the gradient of the input takes g * weight and the gradient of the weight g * x, where x is only needed
at the centre. So an operation before the convolution (GELU, or normalization and ReLU) is applied once per element,
and so is its gradient. Sums over the map are kept per program and added up afterwards, in fixed order.

Minimum traffic for M elements of b bytes: forward 2 M b bytes, backward 3 M b (with SiLU one more M b each). On an
H100 (2.98 TB/s, 900 G warp instructions/s) 16-bit storage leaves 39 instructions per element forward and 58 backward.
Compiled for sm_90, an element takes 36 and 65 with normalization and ReLU before K = 3, and 57 and 94 at K = 5. So 3x3
is bound by memory, and 5x5 by instructions, at about 1.5 times the time of the memory.

This module imports Triton, so only functions that need its kernels at once may import it.
"""

# Triton's language has no unpacking into tuples, and its tuples grow.
# ruff: noqa: RUF005
# mypy: disable-error-code="assignment"

import triton
import triton.language as tl


@triton.jit
def _gelu(x):
    """Return GELU and its derivative, which share one exponential.

    In float32 erf is Abramowitz and Stegun's 7.1.26: within 1.5e-7, the rounding of 1.
    """
    bell = tl.exp(-0.5 * x * x)
    if x.dtype == tl.float64:
        erf = tl.erf(x * 0.7071067811865476)
    else:
        t = 1 / (1 + 0.3275911 * 0.7071067811865476 * tl.abs(x))
        series = (
            (((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592
        ) * t
        erf = tl.where(x < 0, series * bell - 1, 1 - series * bell)
    share = 0.5 + 0.5 * erf
    return x * share, share + x * bell * 0.3989422804014327


@triton.jit
def _before(value, mean, scale, shift, mask, INPUT: tl.constexpr):
    """Apply the operation before the convolution, with 0 outside the map.

    Also return the slope of GELU.
    """
    slope = value
    if INPUT == "norm_relu":
        value = (value - mean) * scale + shift
        value = tl.maximum(value, 0.0, propagate_nan=tl.PropagateNan.ALL)
        value = tl.where(mask, value, 0.0)
    if INPUT == "gelu":
        value, slope = _gelu(value)
    return value, slope


@triton.jit
def _silu_slope(x):
    """Return the derivative of SiLU."""
    gate = 1 / (1 + tl.exp(-x))
    return gate * (1 + x * (1 - gate))


@triton.jit
def _weights(weight_ptr, channel, channels, mask, K: tl.constexpr, RESIDUAL: tl.constexpr, ACC: tl.constexpr):
    """Load the taps, (K * K, channel) in memory.

    A residual is added to the middle tap, in full precision.
    """
    taps = ()
    for tap in tl.static_range(K * K):
        weight = tl.load(weight_ptr + tap * channels + channel, mask=mask, other=0.0).to(ACC)
        if RESIDUAL and tap == K * K // 2:
            weight += 1.0
        taps = taps + (weight,)
    return taps


@triton.jit
def _own(mask, row, first, end, BLOCK_COLUMNS: tl.constexpr):
    """Return `mask` if first <= row < end, else an empty mask."""
    # The interpreter is only correct for masks of one shape, not for a tensor and a number.
    rows = row + tl.zeros([BLOCK_COLUMNS, 1], tl.int32)
    return mask & (rows >= first) & (rows < end)


@triton.jit
def _columns_inside(column, width, mask, K: tl.constexpr):
    """Return for each shift whether the shifted column is inside."""
    inside = ()
    for shift in tl.static_range(K):
        shifted = column + (shift - K // 2)
        inside = inside + (mask & (shifted >= 0) & (shifted < width),)
    return inside


_SIZES = ["columns", "height", "width", "strip", "num_strips", "jobs", "programs"]


@triton.jit(do_not_specialize=_SIZES[:4])
def convolve_maps(
    x_ptr,
    weight_ptr,
    bias_ptr,
    mean_ptr,
    scale_ptr,
    shift_ptr,
    out_ptr,
    pre_ptr,
    columns,
    height,
    width,
    channels,
    strip,
    K: tl.constexpr,
    INPUT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    SILU: tl.constexpr,
    SAVE_PRE: tl.constexpr,
    RESIDUAL: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    ACC: tl.constexpr,
):
    """Convolve one strip of a tile of columns by channels.

    `columns` counts the columns of all images side by side.
    """
    MIDDLE: tl.constexpr = K // 2
    blocks = tl.cdiv(channels, BLOCK_CHANNELS)
    channel = (tl.program_id(0) % blocks) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)[None, :]
    item = (tl.program_id(0) // blocks) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)[:, None]
    mask = (item < columns) & (channel < channels)
    column = item % width
    place = ((item // width).to(tl.int64) * height * width + column) * channels + channel
    inside = _columns_inside(column, width, mask, K)
    channel = channel + tl.zeros_like(item)
    taps = _weights(weight_ptr, channel, channels, mask, K, RESIDUAL, ACC)
    bias = tl.zeros([BLOCK_COLUMNS, BLOCK_CHANNELS], ACC)
    if HAS_BIAS:
        bias = tl.load(bias_ptr + channel, mask=mask, other=0.0).to(ACC)
    mean, scale, shift = 0.0, 0.0, 0.0
    if INPUT == "norm_relu":
        mean = tl.load(mean_ptr + channel, mask=mask, other=0.0).to(ACC)
        scale = tl.load(scale_ptr + channel, mask=mask, other=0.0).to(ACC)
        shift = tl.load(shift_ptr + channel, mask=mask, other=0.0).to(ACC)

    first = tl.program_id(1) * strip
    end = tl.minimum(first + strip, height)
    row_step = width.to(tl.int64) * channels
    sums = (bias,) * K
    for start in range(tl.maximum(first - MIDDLE, 0), end + MIDDLE, GROUP):
        tiles = ()
        for step in tl.static_range(GROUP):
            row_place = place + (start + step) * row_step
            for column_shift in tl.static_range(K):
                tile = tl.load(
                    x_ptr + row_place + (column_shift - MIDDLE) * channels,
                    mask=_own(inside[column_shift], start + step, 0, height, BLOCK_COLUMNS),
                    other=0.0,
                )
                tiles = tiles + (tile,)
        for step in tl.static_range(GROUP):
            row = start + step
            for column_shift in tl.static_range(K):
                tile = tiles[step * K + column_shift].to(ACC)
                there = _own(inside[column_shift], row, 0, height, BLOCK_COLUMNS)
                tile, _ = _before(tile, mean, scale, shift, there, INPUT)
                added = ()
                for later in tl.static_range(K):
                    added = added + (sums[later] + tile * taps[(K - 1 - later) * K + column_shift],)
                sums = added
            done = row - MIDDLE
            result = sums[0]
            stored = _own(mask, done, first, end, BLOCK_COLUMNS)
            if SILU:
                if SAVE_PRE:
                    tl.store(pre_ptr + place + done * row_step, result, mask=stored)
                result = result / (1 + tl.exp(-result))
            tl.store(out_ptr + place + done * row_step, result, mask=stored)
            sums = sums[1:] + (bias,)


@triton.jit(do_not_specialize=_SIZES)
def convolve_maps_gradients(
    grad_ptr,
    x_ptr,
    pre_ptr,
    weight_ptr,
    mean_ptr,
    scale_ptr,
    shift_ptr,
    grad_x_ptr,
    partial_ptr,
    columns,
    height,
    width,
    channels,
    strip,
    num_strips,
    jobs,
    programs,
    K: tl.constexpr,
    INPUT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    SILU: tl.constexpr,
    RESIDUAL: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    ACC: tl.constexpr,
):
    """Compute the gradients of the input and parameters on every `programs`-th strip.

    A program sums the gradients of the parameters over its strips. The slots of its sums are the taps, then the bias if
    it exists, then with a normalization the sum of the gradient after it and the sum of this gradient times (x - mean).
    """
    MIDDLE: tl.constexpr = K // 2
    blocks = tl.cdiv(channels, BLOCK_CHANNELS)
    channel_row = (tl.program_id(0) % blocks) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    program = tl.program_id(0) // blocks
    tile_column = tl.arange(0, BLOCK_COLUMNS)[:, None]
    channel = channel_row[None, :] + tl.zeros_like(tile_column)
    known = channel < channels
    taps = _weights(weight_ptr, channel, channels, known, K, RESIDUAL, ACC)
    zero = tl.zeros([BLOCK_COLUMNS, BLOCK_CHANNELS], ACC)
    mean, scale, shift = 0.0, 0.0, 0.0
    if INPUT == "norm_relu":
        mean = tl.load(mean_ptr + channel, mask=known, other=0.0).to(ACC)
        scale = tl.load(scale_ptr + channel, mask=known, other=0.0).to(ACC)
        shift = tl.load(shift_ptr + channel, mask=known, other=0.0).to(ACC)
    row_step = width.to(tl.int64) * channels
    grad_taps = (zero,) * (K * K)
    grad_bias, grad_shift, grad_scale = zero, zero, zero

    for job in range(program, jobs, programs):
        item = (job // num_strips) * BLOCK_COLUMNS + tile_column
        mask = known & (item < columns)
        column = item % width
        place = ((item // width).to(tl.int64) * height * width + column) * channels + channel
        inside = _columns_inside(column, width, mask, K)
        first = (job % num_strips) * strip
        end = tl.minimum(first + strip, height)
        begin = tl.maximum(first - MIDDLE, 0)
        sums = (zero,) * K
        # The rows of x that depend on a row of the gradient. Rows of other strips count as 0 here.
        centres, slopes = (), ()
        for offset in tl.static_range(K - 1):
            seen = begin - MIDDLE + offset
            own = _own(mask, seen, first, end, BLOCK_COLUMNS)
            centre = tl.load(x_ptr + place + seen * row_step, mask=own, other=0.0).to(ACC)
            centre, slope = _before(centre, mean, scale, shift, own, INPUT)
            centres = centres + (centre,)
            slopes = slopes + (slope,)
        for start in range(begin, end + MIDDLE, GROUP):
            tiles, pres, news, olds = (), (), (), ()
            for step in tl.static_range(GROUP):
                row = start + step
                row_place = place + row * row_step
                for column_shift in tl.static_range(K):
                    neighbour = row_place + (column_shift - MIDDLE) * channels
                    there = _own(inside[column_shift], row, 0, height, BLOCK_COLUMNS)
                    tiles = tiles + (tl.load(grad_ptr + neighbour, mask=there, other=0.0),)
                    if SILU:
                        pres = pres + (tl.load(pre_ptr + neighbour, mask=there, other=0.0),)
                ahead = row + MIDDLE
                own = _own(mask, ahead, first, end, BLOCK_COLUMNS)
                news = news + (tl.load(x_ptr + place + ahead * row_step, mask=own, other=0.0),)
                if INPUT == "norm_relu":
                    done = row - MIDDLE
                    own = _own(mask, done, first, end, BLOCK_COLUMNS)
                    olds = olds + (tl.load(x_ptr + place + done * row_step, mask=own, other=0.0),)
            for step in tl.static_range(GROUP):
                row = start + step
                ahead = row + MIDDLE
                own = _own(mask, ahead, first, end, BLOCK_COLUMNS)
                centre, slope = _before(news[step].to(ACC), mean, scale, shift, own, INPUT)
                centres = centres + (centre,)
                slopes = slopes + (slope,)
                for column_shift in tl.static_range(K):
                    grad = tiles[step * K + column_shift].to(ACC)
                    if SILU:
                        grad = grad * _silu_slope(pres[step * K + column_shift].to(ACC))
                    if HAS_BIAS and column_shift == MIDDLE:
                        grad_bias += tl.where((row >= first) & (row < end), grad, 0.0)
                    added, added_taps = (), ()
                    for later in tl.static_range(K):
                        added = added + (sums[later] + grad * taps[later * K + K - 1 - column_shift],)
                    for tap in tl.static_range(K * K):
                        if tap % K == K - 1 - column_shift:
                            added_taps = added_taps + (grad_taps[tap] + grad * centres[tap // K],)
                        else:
                            added_taps = added_taps + (grad_taps[tap],)
                    sums = added
                    grad_taps = added_taps
                done = row - MIDDLE
                result = sums[0]
                stored = _own(mask, done, first, end, BLOCK_COLUMNS)
                if INPUT == "gelu":
                    result = result * slopes[0]
                if INPUT == "norm_relu":
                    centred = olds[step].to(ACC) - mean
                    result = tl.where(stored & (centred * scale + shift > 0), result, 0.0)
                    grad_shift += result
                    grad_scale += result * centred
                tl.store(grad_x_ptr + place + done * row_step, result, mask=stored)
                sums = sums[1:] + (zero,)
                centres = centres[1:]
                slopes = slopes[1:]

    known_row = channel_row < channels
    SLOTS: tl.constexpr = K * K + (1 if HAS_BIAS else 0) + (2 if INPUT == "norm_relu" else 0)
    partial = partial_ptr + program.to(tl.int64) * SLOTS * channels + channel_row
    for tap in tl.static_range(K * K):
        tl.store(partial + tap * channels, tl.sum(grad_taps[tap], axis=0), mask=known_row)
    if HAS_BIAS:
        tl.store(partial + K * K * channels, tl.sum(grad_bias, axis=0), mask=known_row)
    if INPUT == "norm_relu":
        tl.store(partial + (SLOTS - 2) * channels, tl.sum(grad_shift, axis=0), mask=known_row)
        tl.store(partial + (SLOTS - 1) * channels, tl.sum(grad_scale, axis=0), mask=known_row)
