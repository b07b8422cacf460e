"""Triton kernels of the mLSTM's outputs, and gradients before the normalization.

A block of tokens reads the blocks of its chunk up to itself, and the state at the start of the chunk. A sequence of one
chunk has no states. Names and planes: see `triton_gates`. LOG_SCALE is log(1 / sqrt(DIM)).
"""

import triton
import triton.language as tl

from scanseg.ops.mlstm.reference import EPSILON as _EPSILON
from scanseg.ops.mlstm.triton_blocks import (
    as_operand,
    head_offset,
    load_block,
    load_matrix,
    load_vector,
    product,
    products,
    rounded,
    stabiliser,
    store_block,
)

EPSILON = tl.constexpr(_EPSILON)


@triton.jit
def normalisation(row_sum, m):
    """Return the factors of h = numerator * p / d.

    The results are p, d, a mask where |row sum| > exp(-m), and the scaled term 1e-6. Both sides of the fraction are
    multiplied by p = exp(min(m, 0)), so that exp(-m) cannot overflow. Numerator and row sum have weights with the
    rounded m, and the term 1e-6 is converted from the exact m to the rounded one.
    """
    frame = rounded(m)
    p, floor = tl.exp(tl.minimum(frame, 0.0)), tl.exp(-tl.maximum(frame, 0.0))
    magnitude, epsilon = p * tl.abs(row_sum), tl.exp(m - frame) * EPSILON
    return p, tl.maximum(magnitude, floor) + p * epsilon, magnitude > floor, epsilon


@triton.jit(do_not_specialize=["S", "num_chunks", "padded", "blocks"])
def outputs(
    q,
    k,
    v,
    planes,
    frames,
    matrices,
    normalisers,
    h,
    row_sums,
    stride_qb,
    stride_qh,
    stride_qt,
    stride_kb,
    stride_kh,
    stride_kt,
    stride_vb,
    stride_vh,
    stride_vt,
    stride_hb,
    stride_hh,
    stride_ht,
    S,
    num_heads,
    num_chunks,
    padded,
    plane,
    blocks,
    DIM: tl.constexpr,
    COLS: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK: tl.constexpr,
    LOG_SCALE: tl.constexpr,
    CHUNKED: tl.constexpr,
    REVERSE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write h and the row sums of a block of tokens.

    Grid: (block, part of the values, row).
    """
    block, part, row = tl.num_programs(0) - 1 - tl.program_id(0), tl.program_id(1), tl.program_id(2)
    chunk, own = block // blocks, block % blocks
    q += head_offset(row, num_heads, stride_qb, stride_qh)
    k += head_offset(row, num_heads, stride_kb, stride_kh)
    v += head_offset(row, num_heads, stride_vb, stride_vh)
    h += head_offset(row, num_heads, stride_hb, stride_hh)
    planes += row.to(tl.int64) * (num_chunks * padded)
    dtype: tl.constexpr = planes.dtype.element_ty
    first, inside = chunk * padded, tl.arange(0, BLOCK)
    t = first + own * BLOCK + inside
    frame = tl.load(frames + row * num_chunks + chunk)
    m = stabiliser(planes, plane, t, frame)
    multiple, remainder = tl.load(planes + t) - rounded(m), tl.load(planes + plane + t) + LOG_SCALE
    numerator, row_sum = tl.zeros((BLOCK, COLS), dtype), tl.zeros((BLOCK,), dtype)
    q_block = load_block(q, t, 0, stride_qt, S, DIM, COLS, REVERSE)
    if CHUNKED:
        state = row.to(tl.int64) * (num_chunks - 1) + tl.maximum(chunk - 1, 0)
        matrices += state * (DIM * DIM)
        normalisers += state * DIM
        for index in range(PARTS):
            q_part = q_block
            if PARTS > 1:
                q_part = load_block(q, t, index * COLS, stride_qt, S, DIM, COLS, REVERSE)
            matrix = load_matrix(matrices, index * COLS, part * COLS, DIM, COLS)
            numerator = product(q_part, matrix, numerator, PRECISION)
            row_sum += tl.sum(q_part * load_vector(normalisers, index * COLS, DIM, COLS)[None, :], 1)
        # The first chunk reads no state, because its frame is -inf.
        read = tl.exp((multiple + rounded(frame)) + remainder)
        numerator *= read[:, None]
        row_sum *= read
    for index in range(own + 1):
        s = first + index * BLOCK + inside
        scores, _ = products(
            q_block, q, k, t, s, stride_qt, stride_kt, 0, S, dtype, DIM, COLS, PARTS, REVERSE, PRECISION
        )
        level, key = tl.load(planes + 2 * plane + s), tl.load(planes + 3 * plane + s)
        D = (multiple[:, None] + level[None, :]) + (remainder[:, None] + key[None, :])
        scores *= tl.exp(tl.where(t[:, None] >= s[None, :], D, float("-inf")))
        row_sum += tl.sum(scores, 1)
        v_block = load_block(v, s, part * COLS, stride_vt, S, DIM, COLS, REVERSE)
        numerator = product(as_operand(scores, v_block), v_block, numerator, PRECISION)
    p, denominator, _, _ = normalisation(row_sum, m)
    store_block(h, numerator * (p / denominator)[:, None], t, part * COLS, stride_ht, S, DIM, COLS, REVERSE)
    if part == 0:
        tl.store(row_sums + row.to(tl.int64) * S + t, row_sum, mask=t < S)


@triton.jit(do_not_specialize=["S", "num_chunks", "padded"])
def upstream_gradients(
    h,
    grad_h,
    row_sums,
    planes,
    frames,
    upstream,
    stride_hb,
    stride_hh,
    stride_ht,
    stride_gb,
    stride_gh,
    stride_gt,
    S,
    num_heads,
    num_chunks,
    padded,
    plane,
    DIM: tl.constexpr,
    COLS: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK: tl.constexpr,
    LOG_SCALE: tl.constexpr,
    REVERSE: tl.constexpr,
):
    """Compute the gradients before the normalization from that of h.

    Grid: (block, row). With c = the gradient of the numerator / the gradient of h, the planes of `upstream` are: 0
    multiple and 1 remainder of F - m + log c + LOG_SCALE (-inf beyond the last token), 2 gradient of the row sum / c, 3
    gradient of m (which enters only through the term 1e-6).
    """
    row = tl.program_id(1)
    t = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    exists = t < S
    h += head_offset(row, num_heads, stride_hb, stride_hh)
    grad_h += head_offset(row, num_heads, stride_gb, stride_gh)
    offset = row.to(tl.int64) * (num_chunks * padded)
    planes += offset
    upstream += offset + t
    dtype: tl.constexpr = planes.dtype.element_ty
    dot = tl.zeros((BLOCK,), dtype)
    for index in range(PARTS):
        h_part = load_block(h, t, index * COLS, stride_ht, S, DIM, COLS, REVERSE).to(dtype)
        dot += tl.sum(h_part * load_block(grad_h, t, index * COLS, stride_gt, S, DIM, COLS, REVERSE), 1)
    m = stabiliser(planes, plane, t, tl.load(frames + row * num_chunks + t // padded))
    row_sum = tl.load(row_sums + row.to(tl.int64) * S + t, mask=exists, other=1.0)
    p, denominator, exceeds, epsilon = normalisation(row_sum, m)
    log_c = tl.minimum(rounded(m), 0.0) - tl.log(denominator)
    multiple = tl.load(planes + t) - rounded(m) + rounded(log_c)
    sign = tl.where(row_sum > 0, -1.0, tl.where(row_sum < 0, 1.0, 0.0))
    tl.store(upstream, tl.where(exists, multiple, float("-inf")))
    tl.store(upstream + plane, tl.load(planes + plane + t) + (log_c - rounded(log_c)) + LOG_SCALE)
    tl.store(upstream + 2 * plane, tl.where(exceeds & exists, dot * sign, 0.0))
    tl.store(upstream + 3 * plane, tl.where(exists, -epsilon * p / denominator * dot, 0.0))
