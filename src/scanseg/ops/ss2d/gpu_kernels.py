"""The four-direction scan as Triton kernels.

A map lies with channels last, so that a pixel is a row of channels and an order of the pixels is an order of rows:
each direction reads the one map by index arithmetic. The sequence of a pair of directions (by rows: 0 and 2, by columns:
1 and 3) is cut into segments of T tokens. A program holds one segment of BD channels with all tokens of a channel in one
thread, where a scan is one multiply-add per token, without shuffles, and runs both directions of the pair on it.

Forward: `measure_segments` finds for each segment the product P of its decays and the state S that it leaves when
it begins at zero; `join_segments` turns them into the states at the starts of the segments; `scan_segments` computes the
outputs, first by rows, then by columns. Backward: the same three steps against time, with the gradient of the state.
Instructions bind, not memory: about 43 per channel, token and direction in `scan_segments` on sm_90.

Step sizes are in base 2: with z = log2(e) (dt_weight dt_low + dt_bias), delta / ln 2 = log2(1 + 2^z), and a decay is
2^((delta / ln 2) A).

Names: see the package; T tokens of a segment, BD channels of a program, RP and CP are R + 1 and R + 2N padded for products, `steps` is
delta / ln 2, `g` the gradient that later tokens pass to a state.
"""

import torch
import triton
import triton.language as tl

from scanseg.ops.triton_support import INTERPRETED

EXACT = tl.constexpr(INTERPRETED)
"""The interpreter has no inline assembly, and its products of 16-bit numbers are wrong."""
LOG2_E = tl.constexpr(1.4426950408889634)
LANES = tl.constexpr(8)
"""Row r of a tile is token r % 8 * (T / 8) + r // 8: tensor cores leave rows 8 apart in one thread, which runs over
T / 8 consecutive tokens in its registers."""
LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def _exp2(v):
    if EXACT:
        result = tl.exp2(v)
    else:
        result = tl.inline_asm_elementwise(
            "ex2.approx.ftz.f32 $0, $1;", "=f,f", [v], dtype=tl.float32, is_pure=True, pack=1
        )
    return result


@triton.jit
def _log2(v):
    if EXACT:
        result = tl.log2(v)
    else:
        result = tl.inline_asm_elementwise(
            "lg2.approx.ftz.f32 $0, $1;", "=f,f", [v], dtype=tl.float32, is_pure=True, pack=1
        )
    return result


@triton.jit
def _reciprocal(v):
    if EXACT:
        result = 1.0 / v
    else:
        result = tl.inline_asm_elementwise(
            "rcp.approx.ftz.f32 $0, $1;", "=f,f", [v], dtype=tl.float32, is_pure=True, pack=1
        )
    return result


@triton.jit
def _product(a, b, PRECISION: tl.constexpr):
    """a @ b, accumulated in float32."""
    if EXACT:
        result = tl.sum(a[:, :, None] * b[None, :, :], axis=1)
    else:
        result = tl.dot(a, b, input_precision=PRECISION)
    return result


@triton.jit
def _soften(z, e):
    """log2(1 + e) for e = 2^z: a short series for small e, where 1 + e has lost its digits; z itself for large ones."""
    if EXACT:
        one_more = 1.0 + e
        rounded = one_more - 1.0
        small = tl.where(rounded == 0.0, e * LOG2_E, tl.log2(one_more) * (e / tl.where(rounded == 0.0, 1.0, rounded)))
        result = tl.maximum(small, z)
    else:
        tail = 0.7213475204444817 - e * (0.48089834696298783 - e * 0.36067376022224085)
        result = tl.where(e < 0.05, e * (LOG2_E - e * tail), tl.maximum(_log2(1.0 + e), z))
    return result


@triton.jit
def _halves(v, ROWS: tl.constexpr, BD: tl.constexpr):
    """The first and the second half of the rows."""
    return tl.split(tl.permute(tl.reshape(v, (2, ROWS // 2, BD)), (1, 2, 0)))


@triton.jit
def _whole(first, second, ROWS: tl.constexpr, BD: tl.constexpr):
    """Undo `_halves`."""
    return tl.reshape(tl.permute(tl.join(first, second), (2, 0, 1)), (ROWS, BD))


@triton.jit
def _walk(a, b, state, ROWS: tl.constexpr, STEP: tl.constexpr, BD: tl.constexpr, REVERSE: tl.constexpr):
    """Run state = a state + b over blocks of STEP rows. Return the states before each block and the last (STEP, BD)."""
    if ROWS == STEP:
        before = state
        last = a * state + b
    else:
        a_first, a_second = _halves(a, ROWS, BD)
        b_first, b_second = _halves(b, ROWS, BD)
        if REVERSE:
            second, middle = _walk(a_second, b_second, state, ROWS // 2, STEP, BD, REVERSE)
            first, last = _walk(a_first, b_first, middle, ROWS // 2, STEP, BD, REVERSE)
        else:
            first, middle = _walk(a_first, b_first, state, ROWS // 2, STEP, BD, REVERSE)
            second, last = _walk(a_second, b_second, middle, ROWS // 2, STEP, BD, REVERSE)
        before = _whole(first, second, ROWS, BD)
    return before, last


@triton.jit
def _fold(a, b, ROWS: tl.constexpr, STEP: tl.constexpr, BD: tl.constexpr, REVERSE: tl.constexpr):
    """The product of a over blocks of STEP rows and the last state when the first is zero, (STEP, BD) each."""
    if ROWS == STEP:
        total = a
        last = b
    else:
        a_first, a_second = _halves(a, ROWS, BD)
        b_first, b_second = _halves(b, ROWS, BD)
        total_first, last_first = _fold(a_first, b_first, ROWS // 2, STEP, BD, REVERSE)
        total_second, last_second = _fold(a_second, b_second, ROWS // 2, STEP, BD, REVERSE)
        total = total_first * total_second
        if REVERSE:
            last = total_first * last_second + last_first
        else:
            last = total_second * last_first + last_second
    return total, last


@triton.jit
def _scan(a, b, state, T: tl.constexpr, BD: tl.constexpr, REVERSE: tl.constexpr):
    """The states before each token of a segment that begins with `state` (1, BD)."""
    total, last = _fold(a, b, T, LANES, BD, REVERSE)
    before, end = _walk(total, last, state, LANES, 1, BD, REVERSE)
    states, ends = _walk(a, b, before, T, LANES, BD, REVERSE)
    return states


@triton.jit
def _measure(a, b, T: tl.constexpr, BD: tl.constexpr, REVERSE: tl.constexpr):
    """The product of a over a segment and the last state when the first is zero, (1, BD) each."""
    total, last = _fold(a, b, T, LANES, BD, REVERSE)
    return _fold(total, last, LANES, 1, BD, REVERSE)


@triton.jit
def _total(v, ROWS: tl.constexpr, BD: tl.constexpr):
    """The sum over the rows of a tile (BD)."""
    if ROWS == LANES:
        result = tl.sum(v, axis=0)
    else:
        first, second = _halves(v, ROWS, BD)
        result = _total(first + second, ROWS // 2, BD)
    return result


@triton.jit
def _places(segment, column, length, height, width, T: tl.constexpr):
    """The raster indices of the tokens of a segment by rows or by columns, and which of them exist."""
    row = tl.arange(0, T)
    first = segment * T
    offset = row % LANES * (T // LANES) + row // LANES
    place = first + offset
    exists = place < length
    if column != 0:
        # One whole division for the segment; its tokens by a reciprocal, exact for numbers this small.
        y = first % height + offset
        x = ((y.to(tl.float32) + 0.5) * (1.0 / height)).to(tl.int32)
        place = (y - x * height) * width + first // height + x
    return place, exists


@triton.jit
def _steps(
    projected, exists, k, channels, dim, dt_weight, dt_bias, R: tl.constexpr, RP: tl.constexpr, PRECISION: tl.constexpr
):
    """z (T, BD) of direction k with what it is computed from: dt_low (T, RP) and the weights (BD, RP)."""
    r = tl.arange(0, RP)
    low = tl.load(projected[:, None] + r[None, :], mask=exists[:, None] & (r < R)[None, :], other=0.0)
    rows = k * dim + channels
    weight = tl.load(
        dt_weight + rows[:, None] * R + r[None, :], mask=(channels < dim)[:, None] & (r < R)[None, :], other=0.0
    )
    if EXACT:
        low = low.to(dt_bias.dtype.element_ty)
    weight = weight.to(low.dtype)
    bias = tl.load(dt_bias + rows, mask=channels < dim, other=0.0)
    z = (_product(low, tl.trans(weight), PRECISION) + bias[None, :]) * LOG2_E
    return z, low, weight


@triton.jit
def _state_inputs(
    projected, exists, k, n, channels, dim, rates, R: tl.constexpr, N: tl.constexpr, STATE: tl.constexpr
):
    """A (1, BD), B and C (T, 1) of state number n."""
    A = tl.load(rates + (k * N + n) * dim + channels, mask=channels < dim, other=0.0)
    B = tl.load(projected + R + n, mask=exists, other=0.0).to(STATE)
    C = tl.load(projected + R + N + n, mask=exists, other=0.0).to(STATE)
    return A[None, :], B[:, None], C[:, None]


_UNKNOWN = ["batch", "length", "height", "width", "segments", "column"]


@triton.jit(do_not_specialize=_UNKNOWN)
def measure_segments(
    x,  # forward: the map (batch, token, dim); backward: the gradient of the merged sum
    projected,  # (batch, token, 4, R + 2N)
    dt_weight,  # (4, dim, R)
    dt_bias,  # (4, dim)
    rates,  # A, (4, N, dim)
    products,  # result (batch, 4, segment, N, dim)
    states,  # result, as products
    length,
    height,
    width,
    dim,
    segments,
    R: tl.constexpr,
    RP: tl.constexpr,
    N: tl.constexpr,
    T: tl.constexpr,
    BD: tl.constexpr,
    BACKWARD: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """P and S of every segment in every direction; program: (segment, channels, batch and pair)."""
    segment, block, image = tl.program_id(0), tl.program_id(1), (tl.program_id(2) // 2).to(tl.int64)
    column = tl.program_id(2) % 2
    STATE: tl.constexpr = states.dtype.element_ty
    channels = block * BD + tl.arange(0, BD)
    place, exists = _places(segment, column, length, height, width, T)
    at = place[:, None] * dim + channels[None, :]
    mask = exists[:, None] & (channels < dim)[None, :]
    values = tl.load(x + image * length * dim + at, mask=mask, other=0.0).to(STATE)
    projected += image * length * 4 * (R + 2 * N)
    for reverse in tl.static_range(2):
        k = column + 2 * reverse
        of_k = projected + (place * 4 + k) * (R + 2 * N)
        z, low, weight = _steps(of_k, exists, k, channels, dim, dt_weight, dt_bias, R, RP, PRECISION)
        steps = _soften(z, _exp2(tl.minimum(z, 126.0)))
        for n in range(N):
            A, B, C = _state_inputs(of_k, exists, k, n, channels, dim, rates, R, N, STATE)
            a = _exp2(steps * A)
            if BACKWARD:
                total, last = _measure(a, a * (C * values), T, BD, reverse == 0)
            else:
                total, last = _measure(a, steps * ((B * LN_2) * values), T, BD, reverse == 1)
            to = (((image * 4 + k) * segments + segment) * N + n) * dim + channels[None, :]
            tl.store(products + to, total, mask=(channels < dim)[None, :])
            tl.store(states + to, last, mask=(channels < dim)[None, :])


@triton.jit(do_not_specialize=["segments"])
def join_segments(
    products,  # (batch, 4, segment, lane); lane = state number and channel
    states,  # overwritten by the states at the starts of the segments
    lanes,
    segments,
    T: tl.constexpr,
    BD: tl.constexpr,
    BACKWARD: tl.constexpr,
):
    """Scan the segments; program: (lanes, batch and direction)."""
    lane, row = tl.program_id(0) * BD + tl.arange(0, BD), tl.program_id(1).to(tl.int64)
    descending = (row % 4 >= 2) != BACKWARD
    state = tl.zeros((1, BD), states.dtype.element_ty)
    for first in range(0, segments, T):
        s = first + tl.arange(0, T)
        mask = (s < segments)[:, None] & (lane < lanes)[None, :]
        if descending:
            s = segments - 1 - s
        at = (row * segments + s)[:, None] * lanes + lane[None, :]
        a = tl.load(products + at, mask=mask, other=0.0)
        b = tl.load(states + at, mask=mask, other=0.0)
        before, state = _walk(a, b, state, T, 1, BD, False)
        tl.store(states + at, before, mask=mask)


@triton.jit
def _start(states, image, k, segments, segment, n, channels, dim, N: tl.constexpr):
    """The state (1, BD) that a segment begins with: zero where there is one segment only."""
    at = (((image * 4 + k) * segments + segment) * N + n) * dim + channels
    return tl.load(states + at, mask=channels < tl.where(segments > 1, dim, 0), other=0.0)[None, :]


@triton.jit(do_not_specialize=_UNKNOWN)
def scan_segments(
    x,  # (batch, token, dim)
    projected,
    dt_weight,
    dt_bias,
    rates,
    skips,  # sum of the four D, (dim)
    states,  # at the starts of the segments, (batch, 4, segment, N, dim)
    merged,  # result (batch, token, dim): written by rows, added to by columns
    length,
    height,
    width,
    dim,
    segments,
    column,
    R: tl.constexpr,
    RP: tl.constexpr,
    N: tl.constexpr,
    T: tl.constexpr,
    BD: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Outputs of a pair of directions; program: (segment, channels, batch)."""
    segment, block, image = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    STATE: tl.constexpr = merged.dtype.element_ty
    channels = block * BD + tl.arange(0, BD)
    place, exists = _places(segment, column, length, height, width, T)
    at = place[:, None] * dim + channels[None, :]
    mask = exists[:, None] & (channels < dim)[None, :]
    merged += image * length * dim
    projected += image * length * 4 * (R + 2 * N)
    values = tl.load(x + image * length * dim + at, mask=mask, other=0.0).to(STATE)
    if column != 0:
        out = tl.load(merged + at, mask=mask, other=0.0)
    else:
        out = values * tl.load(skips + channels, mask=channels < dim, other=0.0)[None, :]
    for reverse in tl.static_range(2):
        k = column + 2 * reverse
        of_k = projected + (place * 4 + k) * (R + 2 * N)
        z, _, _ = _steps(of_k, exists, k, channels, dim, dt_weight, dt_bias, R, RP, PRECISION)
        steps = _soften(z, _exp2(tl.minimum(z, 126.0)))
        for n in range(N):
            A, B, C = _state_inputs(of_k, exists, k, n, channels, dim, rates, R, N, STATE)
            a = _exp2(steps * A)
            b = steps * ((B * LN_2) * values)
            start = _start(states, image, k, segments, segment, n, channels, dim, N)
            before = _scan(a, b, start, T, BD, reverse == 1)
            out += C * (a * before + b)
    tl.store(merged + at, out, mask=mask)


@triton.jit(do_not_specialize=_UNKNOWN)
def scan_segments_backward(
    grad,  # of the merged sum (batch, token, dim)
    x,
    projected,
    dt_weight,
    dt_bias,
    rates,
    skips,
    states,  # as in `scan_segments`
    arriving,  # g at the ends of the segments, laid out as states
    sums,  # of grad_x over the directions so far (batch, token, dim), in the dtype of the state
    grad_x,  # result (batch, token, dim), written by the last direction
    grad_projected,  # result (block of channels, batch, token, 4, R + 2N): a part of each block
    grad_parameters,  # result (batch, segment, *): (4, dim, R + 1) of dt_weight and dt_bias, (4, N, dim) of A, (dim) of skips
    length,
    height,
    width,
    dim,
    segments,
    column,
    batch,
    R: tl.constexpr,
    RP: tl.constexpr,
    CP: tl.constexpr,
    N: tl.constexpr,
    T: tl.constexpr,
    BD: tl.constexpr,
    PRECISION: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """Gradients of a pair of directions; program: (segment, channels, batch)."""
    segment, block, image = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    STATE: tl.constexpr = states.dtype.element_ty
    channels = block * BD + tl.arange(0, BD)
    within = channels < dim
    place, exists = _places(segment, column, length, height, width, T)
    at = place[:, None] * dim + channels[None, :]
    mask = exists[:, None] & within[None, :]
    parameters = grad_parameters + (image * segments + segment) * (4 * dim * (R + 1 + N) + dim)
    x += image * length * dim
    grad += image * length * dim
    sums += image * length * dim
    grad_x += image * length * dim
    projected += image * length * 4 * (R + 2 * N)
    grad_projected += (block.to(tl.int64) * batch + image) * length * 4 * (R + 2 * N)
    r, c = tl.arange(0, RP), tl.arange(0, CP)
    for reverse in tl.static_range(2):
        k = column + 2 * reverse
        row = (place * 4 + k) * (R + 2 * N)
        of_k = projected + row
        z, low, weight = _steps(of_k, exists, k, channels, dim, dt_weight, dt_bias, R, RP, PRECISION)
        e = _exp2(tl.minimum(z, 126.0))
        steps = _soften(z, e)
        nothing = steps - steps
        values = tl.load(x + at, mask=mask, other=0.0).to(STATE) + nothing
        dy = tl.load(grad + at, mask=mask, other=0.0).to(STATE) + nothing
        u = (values * LN_2) * steps
        written = tl.zeros((T, BD), STATE)
        d_steps = tl.zeros((T, BD), STATE)
        d_projected = tl.zeros((T, CP), STATE)
        for n in range(N):
            A, B, C = _state_inputs(of_k, exists, k, n, channels, dim, rates, R, N, STATE)
            a = _exp2(steps * A)
            b = B * u
            start = _start(states, image, k, segments, segment, n, channels, dim, N)
            before = a * _scan(a, b, start, T, BD, reverse == 1)
            to_C = (c == R + N + n)[None, :] & within[:, None]
            d_projected += _product((dy * (before + b)).to(OPERAND), to_C.to(OPERAND), PRECISION)
            ending = _start(arriving, image, k, segments, segment, n, channels, dim, N)
            own = C * dy
            dh = own + _scan(a, a * own, ending, T, BD, reverse == 0)
            to_B = (c == R + n)[None, :] & within[:, None]
            d_projected += _product((dh * u).to(OPERAND), to_B.to(OPERAND), PRECISION)
            written += dh * B
            decayed = dh * before
            d_steps += decayed * A
            tl.store(
                parameters + 4 * dim * (R + 1) + (k * N + n) * dim + channels,
                _total(decayed * steps, T, BD) * LN_2,
                mask=within,
            )
        dx = written * (steps * LN_2)
        if (column != 0) | (reverse == 1):
            dx += tl.load(sums + at, mask=mask, other=0.0)
        else:
            dx += dy * tl.load(skips + channels, mask=within, other=0.0)[None, :]
            tl.store(parameters + 4 * dim * (R + 1 + N) + channels, _total(dy * values, T, BD), mask=within)
        if (column != 0) & (reverse == 1):
            tl.store(grad_x + at, dx.to(grad_x.dtype.element_ty), mask=mask)
        else:
            tl.store(sums + at, dx, mask=mask)
        dz = ((d_steps + written * values) * (e * _reciprocal(1.0 + e))).to(OPERAND)
        wide = tl.load(
            dt_weight + (k * dim + channels)[:, None] * R + c[None, :],
            mask=within[:, None] & (c < R)[None, :],
            other=0.0,
        )
        d_projected += _product(dz, wide.to(OPERAND), PRECISION)
        tl.store(
            grad_projected + row[:, None] + c[None, :],
            d_projected.to(grad_projected.dtype.element_ty),
            mask=exists[:, None] & (c < R + 2 * N)[None, :],
        )
        # Column R of dt_low is made one, so that the product sums dz over the tokens there, for the bias.
        low = tl.where((r == R)[None, :], 1.0, low.to(STATE)).to(OPERAND)
        d_weight = _product(tl.trans(dz), low, PRECISION)
        tl.store(
            parameters + (k * dim + channels)[:, None] * (R + 1) + r[None, :],
            d_weight,
            mask=within[:, None] & (r <= R)[None, :],
        )
        tl.debug_barrier()  # dx of the other direction is read by other threads


def operand(dtype: torch.dtype, wide: torch.dtype) -> tl.dtype:
    """Return the type of the operands of the gradients' products.

    bfloat16 stays; float16 has too little range for gradients, and tf32 has its precision.

    Args:
        dtype: Of the map.
        wide: Of the state.
    """
    if wide == torch.float64:
        return tl.float64
    return tl.bfloat16 if dtype == torch.bfloat16 and not INTERPRETED else tl.float32
