"""Triton kernels of the mLSTM's gradients with chunks of one tile.

A chunk has TILE tokens, in blocks of BLOCK. The first kernel takes the gradients back through the
normalization and to the states, the second to queries, keys and values, the third to the gates. Each reads every tensor
once from memory.
Names and planes: see `triton_gates` and `triton_outputs`. g is the gradient of h.
"""

import triton
import triton.language as tl

from scanseg.ops.mlstm.triton_blocks import (
    as_operand,
    head_offset,
    load_block,
    load_matrix,
    load_vector,
    positions,
    product,
    rounded,
    stabiliser,
    store_block,
)
from scanseg.ops.mlstm.triton_gates import leads, through_m
from scanseg.ops.mlstm.triton_outputs import normalisation
from scanseg.ops.mlstm.triton_tile_states import store_update


@triton.jit(do_not_specialize=["S", "num_chunks"])
def tile_upstream(
    q,
    h,
    grad_h,
    row_sums,
    planes,
    frames,
    upstream,
    matrix_updates,
    vector_updates,
    sums_m,
    stride_qb,
    stride_qh,
    stride_qt,
    stride_hb,
    stride_hh,
    stride_ht,
    stride_gb,
    stride_gh,
    stride_gt,
    S,
    num_heads,
    num_chunks,
    plane,
    DIM: tl.constexpr,
    COLS: tl.constexpr,
    TILE: tl.constexpr,
    LOG_SCALE: tl.constexpr,
    REVERSE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Take the gradient of h back to the state before the chunk.

    Grid: (chunk, row). The updates are for the gradient of that state. `upstream`: see `upstream_gradients`. `sums_m`,
    (2, row, chunk), receives the sum and the factor of `through_m` at the first token of each chunk.
    """
    chunk, row, rows = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    q += head_offset(row, num_heads, stride_qb, stride_qh)
    h += head_offset(row, num_heads, stride_hb, stride_hh)
    grad_h += head_offset(row, num_heads, stride_gb, stride_gh)
    offset = row.to(tl.int64) * (num_chunks * TILE)
    planes += offset
    frames += row * num_chunks
    dtype: tl.constexpr = planes.dtype.element_ty
    t = chunk * TILE + tl.arange(0, TILE)
    upstream += offset + t
    exists = t < S
    h_block = load_block(h, t, 0, stride_ht, S, DIM, COLS, REVERSE)
    g_block = load_block(grad_h, t, 0, stride_gt, S, DIM, COLS, REVERSE)
    q_block = load_block(q, t, 0, stride_qt, S, DIM, COLS, REVERSE)
    frame = tl.load(frames + chunk)
    m = stabiliser(planes, plane, t, frame)
    row_sum = tl.load(row_sums + row.to(tl.int64) * S + t, mask=exists, other=1.0)
    dot = tl.sum(h_block.to(dtype) * g_block, 1)
    p, denominator, exceeds, epsilon = normalisation(row_sum, m)
    log_c = tl.minimum(rounded(m), 0.0) - tl.log(denominator)
    multiple = tl.load(planes + t) - rounded(m) + rounded(log_c)
    multiple = tl.where(exists, multiple, float("-inf"))
    remainder = tl.load(planes + plane + t) + (log_c - rounded(log_c)) + LOG_SCALE
    sign = tl.where(row_sum > 0, -1.0, tl.where(row_sum < 0, 1.0, 0.0))
    grad_sum = tl.where(exceeds & exists, dot * sign, 0.0)
    grad_m = tl.where(exists, -epsilon * p / denominator * dot, 0.0)
    tl.store(upstream, multiple)
    tl.store(upstream + plane, remainder)
    tl.store(upstream + 2 * plane, grad_sum)
    tl.store(upstream + 3 * plane, grad_m)
    keep, total = through_m(planes, plane, frames, grad_m, chunk, S, TILE)
    is_first = t == chunk * TILE
    tl.store(sums_m + row * num_chunks + chunk, tl.sum(tl.where(is_first, total, 0.0), 0))
    tl.store(sums_m + (rows + row) * num_chunks + chunk, tl.sum(tl.where(is_first, keep, 0.0), 0))
    if chunk > 0:
        weight = tl.exp((multiple + rounded(frame)) + remainder)
        weighted = q_block * weight[:, None]
        vector = tl.sum(weighted * grad_sum[:, None], 0)
        matrix = tl.zeros((COLS, COLS), dtype)
        matrix = product(tl.trans(as_operand(weighted, g_block)), g_block, matrix, PRECISION)
        state = row.to(tl.int64) * (num_chunks - 1) + chunk - 1
        store_update(matrix_updates, vector_updates, state, matrix, vector, DIM, COLS)


@triton.jit(do_not_specialize=["S", "num_chunks"])
def tile_gradients(
    q,
    k,
    v,
    g,
    planes,
    frames,
    upstream,
    matrices,
    normalisers,
    grad_matrices,
    grad_normalisers,
    grad_q,
    grad_k,
    grad_v,
    by_gates,
    across,
    beyond,
    stride_qb,
    stride_qh,
    stride_qt,
    stride_kb,
    stride_kh,
    stride_kt,
    stride_vb,
    stride_vh,
    stride_vt,
    stride_gb,
    stride_gh,
    stride_gt,
    stride_rb,
    stride_rh,
    stride_rt,
    S,
    num_heads,
    num_chunks,
    plane,
    DIM: tl.constexpr,
    COLS: tl.constexpr,
    TILE: tl.constexpr,
    BLOCK: tl.constexpr,
    REVERSE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write the gradients of a block of queries, keys and values.

    Grid: (block, row). With P the weighted scores and G the gradient of P / c, dL/dD = P G for a pair of tokens. The
    planes of `by_gates` are its sums for an input gate s over all t, and for a log forget gate r over the pairs
    s < r <= t with s or t in the block of r. `across`, (row, block, block of the chunk), receives sums of the block's t
    with all tokens read before a block, and `beyond`, (row, block), sums of the block's s with later chunks.
    """
    blocks: tl.constexpr = TILE // BLOCK
    block, row = tl.program_id(0), tl.program_id(1)
    chunk, own = block // blocks, block % blocks
    at = row * tl.num_programs(0) + block
    across += at * blocks
    beyond += at
    q += head_offset(row, num_heads, stride_qb, stride_qh)
    k += head_offset(row, num_heads, stride_kb, stride_kh)
    v += head_offset(row, num_heads, stride_vb, stride_vh)
    g += head_offset(row, num_heads, stride_gb, stride_gh)
    results = head_offset(row, num_heads, stride_rb, stride_rh)
    offset = row.to(tl.int64) * (num_chunks * TILE)
    planes += offset
    upstream += offset
    frames += row * num_chunks
    dtype: tl.constexpr = planes.dtype.element_ty
    inside = tl.arange(0, BLOCK)
    t = block * BLOCK + inside
    q_block = load_block(q, t, 0, stride_qt, S, DIM, COLS, REVERSE)
    k_block = load_block(k, t, 0, stride_kt, S, DIM, COLS, REVERSE)
    g_block = load_block(g, t, 0, stride_gt, S, DIM, COLS, REVERSE)
    v_block = load_block(v, t, 0, stride_vt, S, DIM, COLS, REVERSE)
    multiple, remainder = tl.load(upstream + t), tl.load(upstream + plane + t)
    grad_sum = tl.load(upstream + 2 * plane + t)
    level, key = tl.load(planes + 2 * plane + t), tl.load(planes + 3 * plane + t)
    frame = tl.load(frames + chunk)
    # The first chunk reads no state, because its frame is -inf. The last one writes none.
    read = tl.exp((multiple + rounded(frame)) + remainder)
    last = chunk * TILE + TILE - 1
    next_frame = tl.load(frames + tl.minimum(chunk + 1, num_chunks - 1))
    at_end = tl.where(chunk < num_chunks - 1, tl.load(planes + last) - rounded(next_frame), float("-inf"))
    write = tl.exp((at_end + level) + (tl.load(planes + plane + last) + key))

    state = row.to(tl.int64) * (num_chunks - 1) + tl.maximum(chunk - 1, 0)
    matrix = load_matrix(matrices + state * (DIM * DIM), 0, 0, DIM, COLS)
    normaliser = load_vector(normalisers + state * DIM, 0, DIM, COLS)
    grad = product(g_block, tl.trans(matrix), tl.zeros((BLOCK, COLS), dtype), PRECISION)
    grad = (grad + grad_sum[:, None] * normaliser[None, :]) * read[:, None]
    earlier = tl.sum(q_block * grad, 1)
    for index in tl.range(0, own, num_stages=1):
        tl.store(across + index, tl.sum(earlier, 0))
        s = chunk * TILE + index * BLOCK + inside
        k_other = load_block(k, s, 0, stride_kt, S, DIM, COLS, REVERSE)
        v_other = load_block(v, s, 0, stride_vt, S, DIM, COLS, REVERSE)
        level_other, key_other = tl.load(planes + 2 * plane + s), tl.load(planes + 3 * plane + s)
        scores_other = product(q_block, tl.trans(k_other), tl.zeros((BLOCK, BLOCK), dtype), PRECISION)
        G_other = product(g_block, tl.trans(v_other), tl.zeros((BLOCK, BLOCK), dtype), PRECISION)
        D_other = (multiple[:, None] + level_other[None, :]) + (remainder[:, None] + key_other[None, :])
        G_other = tl.exp(D_other) * (G_other + grad_sum[:, None])
        earlier += tl.sum(scores_other * G_other, 1)
        grad = product(as_operand(G_other, k_other), k_other, grad, PRECISION)

    scores = product(q_block, tl.trans(k_block), tl.zeros((BLOCK, BLOCK), dtype), PRECISION)
    G = product(g_block, tl.trans(v_block), tl.zeros((BLOCK, BLOCK), dtype), PRECISION)
    D = (multiple[:, None] + level[None, :]) + (remainder[:, None] + key[None, :])
    weights = tl.exp(tl.where(inside[:, None] >= inside[None, :], D, float("-inf")))
    G = weights * (G + grad_sum[:, None])
    pairs = scores * G
    weighted_scores = as_operand(scores * weights, g_block)
    G = as_operand(G, k_block)

    grad = product(G, k_block, grad, PRECISION)
    store_block(grad_q + results, grad, t, 0, stride_rt, S, DIM, COLS, REVERSE)

    by_i = tl.sum(pairs, 0)
    below = tl.where(inside[:, None] < inside[None, :], 1.0, 0.0)
    before = tl.zeros((BLOCK, BLOCK), dtype)
    if g_block.dtype == tl.bfloat16:
        below = as_operand(below.to(dtype), g_block)
        high = as_operand(pairs, g_block)
        before = product(high, below, before, PRECISION)
        before = product(as_operand(pairs - high.to(dtype), g_block), below, before, PRECISION)
    else:
        before = product(pairs, below.to(dtype), before, PRECISION)
    before = tl.where(inside[:, None] >= inside[None, :], before + earlier[:, None], 0.0)
    by_f = tl.sum(before, 0)

    state = row.to(tl.int64) * (num_chunks - 1) + tl.minimum(chunk, num_chunks - 2)
    matrix = load_matrix(grad_matrices + state * (DIM * DIM), 0, 0, DIM, COLS)
    normaliser = load_vector(grad_normalisers + state * DIM, 0, DIM, COLS)
    grad = product(v_block, tl.trans(matrix), tl.zeros((BLOCK, COLS), dtype), PRECISION)
    grad = (grad + normaliser[None, :]) * write[:, None]
    by_later = tl.sum(k_block * grad, 1)
    tl.store(beyond, tl.sum(by_later, 0))
    grad = product(tl.trans(G), q_block, grad, PRECISION)
    grad_value = product(k_block, matrix, tl.zeros((BLOCK, COLS), dtype), PRECISION) * write[:, None]
    grad_value = product(tl.trans(weighted_scores), g_block, grad_value, PRECISION)
    for index in tl.range(own + 1, blocks, num_stages=1):
        r = chunk * TILE + index * BLOCK + inside
        q_other = load_block(q, r, 0, stride_qt, S, DIM, COLS, REVERSE)
        g_other = load_block(g, r, 0, stride_gt, S, DIM, COLS, REVERSE)
        multiple_other, remainder_other = tl.load(upstream + r), tl.load(upstream + plane + r)
        scores_other = product(k_block, tl.trans(q_other), tl.zeros((BLOCK, BLOCK), dtype), PRECISION)
        D_other = (multiple_other[None, :] + level[:, None]) + (remainder_other[None, :] + key[:, None])
        weights_other = tl.exp(D_other)
        scores_other *= weights_other
        grad_value = product(as_operand(scores_other, g_other), g_other, grad_value, PRECISION)
        G_other = product(v_block, tl.trans(g_other), tl.zeros((BLOCK, BLOCK), dtype), PRECISION)
        G_other += tl.load(upstream + 2 * plane + r)[None, :]
        by_later += tl.sum(scores_other * G_other, 1)
        grad = product(as_operand(G_other * weights_other, q_other), q_other, grad, PRECISION)
    store_block(grad_k + results, grad, t, 0, stride_rt, S, DIM, COLS, REVERSE)
    store_block(grad_v + results, grad_value, t, 0, stride_rt, S, DIM, COLS, REVERSE)
    by_f += tl.sum(tl.where(inside[:, None] < inside[None, :], by_later[:, None], 0.0), 0)
    by_gates += offset + t
    tl.store(by_gates, by_i + by_later)
    tl.store(by_gates + plane, by_f)


@triton.jit(do_not_specialize=["S", "num_chunks"])
def tile_gate_gradients(
    planes,
    frames,
    upstream,
    by_gates,
    across,
    beyond,
    over,
    sums_m,
    fgate,
    grad_igate,
    grad_fgate,
    stride_fb,
    stride_fh,
    stride_ft,
    S,
    num_heads,
    num_chunks,
    plane,
    slices,
    TILE: tl.constexpr,
    BLOCK: tl.constexpr,
    SLICES: tl.constexpr,
    REVERSE: tl.constexpr,
):
    """Compute the gradients of the gates from sums.

    Grid: (chunk, row). Pairs with the whole block of a forget gate between them are in `across`, `beyond` and `over`
    (see `tile_state_gradients`). SLICES is `slices`, rounded up to a power of two. Results are contiguous.
    """
    blocks: tl.constexpr = TILE // BLOCK
    chunk, row = tl.program_id(0), tl.program_id(1)
    offset = row.to(tl.int64) * (num_chunks * TILE)
    planes += offset
    upstream += offset
    frames += row * num_chunks
    at = (row * num_chunks + chunk) * blocks
    across += at * blocks
    beyond += at
    dtype: tl.constexpr = planes.dtype.element_ty
    inside = tl.arange(0, TILE)
    t = chunk * TILE + inside
    exists = t < S
    by_i = tl.load(by_gates + offset + t)
    by_f = tl.load(by_gates + plane + offset + t)
    own = inside // BLOCK
    for other in tl.static_range(blocks):
        by_f += tl.load(across + other * blocks + own, mask=own < other, other=0.0)
        by_f += tl.load(beyond + other + tl.zeros_like(own), mask=other < own, other=0.0)
    index = tl.arange(0, SLICES)
    # No token is before the first chunk or after the last one.
    inner = tl.where((chunk > 0) & (chunk < num_chunks - 1), slices, 0)
    over += (row * num_chunks + chunk) * slices + index
    by_f += tl.sum(tl.load(over, mask=index < inner, other=0.0), 0)
    grad_m = tl.load(upstream + 3 * plane + t)
    keep, total = through_m(planes, plane, frames, grad_m, chunk, S, TILE)
    carry = tl.load(sums_m + row * num_chunks + chunk + 1, mask=chunk < num_chunks - 1, other=0.0)
    total += keep * carry
    own_m = leads(planes, plane, frames, t, exists, TILE)
    at = positions(t, S, REVERSE)
    fgate += head_offset(row, num_heads, stride_fb, stride_fh)
    gate = tl.load(fgate + at * stride_ft, mask=exists, other=0.0).to(dtype)
    e = tl.exp(-tl.abs(gate))
    closed = tl.where(gate > 0, e, 1.0) / (1.0 + e)
    at += row.to(tl.int64) * S
    tl.store(grad_igate + at, by_i + tl.where(own_m, total, 0.0), mask=exists)
    tl.store(grad_fgate + at, (by_f + tl.where(own_m, 0.0, total)) * closed, mask=exists)
