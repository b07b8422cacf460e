"""Triton kernels of the four-direction scan.

Maps are channels-last, so that a pixel is a row of channels and an order of the pixels is an order of rows. Each
direction reads the same map by index arithmetic. The sequence of a pair of directions (by rows: 0 and 2, by columns: 1
and 3) is cut into segments of T tokens. A program, one warp, holds BD channels of a segment and runs both directions of
the pair on it.

Forward, `measure_segments` computes for each segment the product P of its decays and its last state S from a zero
state. `join_segments` converts them to the states at the starts of the segments. `scan_segments` computes the outputs,
first by rows, then by columns. Backward, the same three steps run in reverse order with the gradient of the state.
Instructions are the limit, not memory: per channel, token and direction about 31 in `measure_segments`, 40 in
`scan_segments` and 110 in `scan_segments_backward` on sm_90.

Names: see the package and `triton_blocks`. T is the number of tokens of a segment, BD the number of channels of a
program, RP and CP are R + 1 and R + 2N padded for products, `steps` is delta / ln 2, and `g` the gradient that later
tokens pass to a state.
"""

import torch
import triton
import triton.language as tl

from scanseg.ops._support.triton import INTERPRETED
from scanseg.ops.ss2d.triton_blocks import (
    LN_2,
    exp2,
    find_places,
    load_start,
    load_state_inputs,
    measure,
    measure_steps,
    multiply,
    reciprocal,
    scan,
    soften,
    sum_rows,
    walk,
)


@triton.jit
def prepare_parameters(
    A_log,  # (4, dim, N)
    D_skip,  # (4, dim)
    rates,  # result: A, (4, N, dim)
    skips,  # result: sum of the four D, (dim)
    dim,
    N: tl.constexpr,
    BD: tl.constexpr,
):
    """Compute A and the sum of the four D for all programs.

    Grid: (channels).
    """
    channels = tl.program_id(0) * BD + tl.arange(0, BD)
    within = channels < dim
    skip = tl.zeros((BD,), skips.dtype.element_ty)
    for k in range(4):
        skip += tl.load(D_skip + k * dim + channels, mask=within, other=0.0)
        for n in range(N):
            logarithm = tl.load(A_log + (k * dim + channels) * N + n, mask=within, other=0.0)
            tl.store(rates + (k * N + n) * dim + channels, -tl.exp(logarithm), mask=within)
    tl.store(skips + channels, skip, mask=within)


_UNKNOWN = ["batch", "length", "height", "width", "segments", "column"]


@triton.jit(do_not_specialize=_UNKNOWN)
def measure_segments(
    x,  # the map (batch, token, dim), or backward the gradient of the merged sum
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
    """Compute P and S of every segment in every direction.

    Grid: (segment, channels, batch and pair).
    """
    segment, block, image = tl.program_id(0), tl.program_id(1), (tl.program_id(2) // 2).to(tl.int64)
    column = tl.program_id(2) % 2
    STATE: tl.constexpr = states.dtype.element_ty
    channels = block * BD + tl.arange(0, BD)
    place, exists = find_places(segment, column, length, height, width, T)
    at = place[:, None] * dim + channels[None, :]
    mask = exists[:, None] & (channels < dim)[None, :]
    values = tl.load(x + image * length * dim + at, mask=mask, other=0.0).to(STATE)
    projected += image * length * 4 * (R + 2 * N)
    for reverse in tl.static_range(2):
        k = column + 2 * reverse
        of_k = projected + (place * 4 + k) * (R + 2 * N)
        z = measure_steps(of_k, exists, k, channels, dim, dt_weight, dt_bias, R, RP, PRECISION)[0]
        steps = soften(z, exp2(tl.minimum(z, 126.0)))
        for n in range(N):
            A, B, C = load_state_inputs(of_k, exists, k, n, channels, dim, rates, R, N, STATE)
            a = exp2(steps * A[None, :])
            if BACKWARD:
                total, last = measure(a, a * (C * values), T, BD, reverse == 0)
            else:
                total, last = measure(a, steps * ((B * LN_2) * values), T, BD, reverse == 1)
            to = (((image * 4 + k) * segments + segment) * N + n) * dim + channels[None, :]
            tl.store(products + to, total, mask=(channels < dim)[None, :])
            tl.store(states + to, last, mask=(channels < dim)[None, :])


@triton.jit(do_not_specialize=["segments"])
def join_segments(
    products,  # (batch, 4, segment, lane), where a lane is a state number and channel
    states,  # overwritten by the states at the starts of the segments
    lanes,
    segments,
    T: tl.constexpr,
    BD: tl.constexpr,
    BACKWARD: tl.constexpr,
):
    """Scan over the segments.

    Grid: (lanes, batch and direction).
    """
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
        before, state = walk(a, b, state, T, 1, BD, False)
        tl.store(states + at, before, mask=mask)


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
    """Compute the outputs of a pair of directions.

    Grid: (segment, channels, batch).
    """
    segment, block, image = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    STATE: tl.constexpr = merged.dtype.element_ty
    channels = block * BD + tl.arange(0, BD)
    place, exists = find_places(segment, column, length, height, width, T)
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
        z = measure_steps(of_k, exists, k, channels, dim, dt_weight, dt_bias, R, RP, PRECISION)[0]
        steps = soften(z, exp2(tl.minimum(z, 126.0)))
        for n in range(N):
            A, B, C = load_state_inputs(of_k, exists, k, n, channels, dim, rates, R, N, STATE)
            a = exp2(steps * A[None, :])
            b = steps * ((B * LN_2) * values)
            start = load_start(states, image, k, segments, segment, n, channels, dim, N)
            before = scan(a, b, start, T, BD, reverse == 1)
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
    grad_parameters,  # result (batch, segment, *): dt_weight (4, dim, R), dt_bias (4, dim), A_log (4, N, dim), D
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
    """Compute the gradients of a pair of directions.

    Grid: (segment, channels, batch).
    """
    segment, block, image = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    STATE: tl.constexpr = states.dtype.element_ty
    channels = block * BD + tl.arange(0, BD)
    within = channels < dim
    place, exists = find_places(segment, column, length, height, width, T)
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
        z, low = measure_steps(of_k, exists, k, channels, dim, dt_weight, dt_bias, R, RP, PRECISION)
        e = exp2(tl.minimum(z, 126.0))
        steps = soften(z, e)
        # Zeros in the layout of products. Adding them to loaded values converts these to that layout once.
        nothing = steps - steps
        values = tl.load(x + at, mask=mask, other=0.0).to(STATE) + nothing
        dy = tl.load(grad + at, mask=mask, other=0.0).to(STATE) + nothing
        u = (values * LN_2) * steps
        written = tl.zeros((T, BD), STATE)
        d_steps = tl.zeros((T, BD), STATE)
        d_projected = tl.zeros((T, CP), STATE)
        for n in range(N):
            A, B, C = load_state_inputs(of_k, exists, k, n, channels, dim, rates, R, N, STATE)
            a = exp2(steps * A[None, :])
            b = B * u
            start = load_start(states, image, k, segments, segment, n, channels, dim, N)
            before = a * scan(a, b, start, T, BD, reverse == 1)
            to_C = (c == R + N + n)[None, :] & within[:, None]
            d_projected += multiply((dy * (before + b)).to(OPERAND), to_C.to(OPERAND), PRECISION)
            ending = load_start(arriving, image, k, segments, segment, n, channels, dim, N)
            own = C * dy
            dh = own + scan(a, a * own, ending, T, BD, reverse == 0)
            to_B = (c == R + n)[None, :] & within[:, None]
            d_projected += multiply((dh * u).to(OPERAND), to_B.to(OPERAND), PRECISION)
            written += dh * B
            decayed = dh * before
            d_steps += decayed * A[None, :]
            tl.store(
                parameters + 4 * dim * (R + 1) + (k * N + n) * dim + channels,
                sum_rows(decayed * steps, T, BD) * (LN_2 * A),
                mask=within,
            )
        dx = written * (steps * LN_2)
        if (column != 0) | (reverse == 1):
            dx += tl.load(sums + at, mask=mask, other=0.0)
        else:
            dx += dy * tl.load(skips + channels, mask=within, other=0.0)[None, :]
            tl.store(parameters + 4 * dim * (R + 1 + N) + channels, sum_rows(dy * values, T, BD), mask=within)
        if (column != 0) & (reverse == 1):
            tl.store(grad_x + at, dx.to(grad_x.dtype.element_ty), mask=mask)
        else:
            tl.store(sums + at, dx, mask=mask)
        dz = ((d_steps + written * values) * (e * reciprocal(1.0 + e))).to(OPERAND)
        wide = tl.load(
            dt_weight + (k * dim + channels)[:, None] * R + c[None, :],
            mask=within[:, None] & (c < R)[None, :],
            other=0.0,
        )
        d_projected += multiply(dz, wide.to(OPERAND), PRECISION)
        tl.store(
            grad_projected + row[:, None] + c[None, :],
            d_projected.to(grad_projected.dtype.element_ty),
            mask=exists[:, None] & (c < R + 2 * N)[None, :],
        )
        # Column R of dt_low is set to one, so that the product sums dz over the tokens in it, for the bias.
        low = tl.where((r == R)[None, :], 1.0, low.to(STATE)).to(OPERAND)
        d_weight = multiply(tl.trans(dz), low, PRECISION)
        of_channel = (k * dim + channels)[:, None]
        tl.store(
            parameters + tl.where((r < R)[None, :], of_channel * R + r[None, :], 4 * dim * R + of_channel),
            d_weight,
            mask=within[:, None] & (r <= R)[None, :],
        )
        tl.debug_barrier()  # dx of the other direction is read by other threads


def operand(dtype: torch.dtype, wide: torch.dtype) -> tl.dtype:
    """Return the dtype of the operands of the gradients' products.

    It is bfloat16 for bfloat16 maps. float16 has too little range for gradients, and tf32 has the same precision.

    Args:
        dtype: Dtype of the map.
        wide: Dtype of the state.
    """
    if wide == torch.float64:
        return tl.float64
    return tl.bfloat16 if dtype == torch.bfloat16 and not INTERPRETED else tl.float32
