"""Triton kernels of the gradients of queries, keys and values.

They also compute the sums for the gradients of the gates. Scores are recomputed from q and k. With P the weighted
scores (here with the factor c of the query, see `upstream_gradients`) and G the gradient of P / c before c, dL/dD = P G
for a pair of tokens. For a log forget gate r it is summed over pairs s < r <= t only (see `pytorch_backend`),
separately for the blocks of s and t (see `gate_gradients`).

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
    product,
    products,
    rounded,
    store_block,
)


@triton.jit(do_not_specialize=["S", "num_chunks", "padded", "blocks"])
def query_gradients(
    q,
    k,
    v,
    g,
    planes,
    frames,
    upstream,
    matrices,
    normalisers,
    grad_q,
    by_query,
    across,
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
    padded,
    plane,
    blocks,
    DIM: tl.constexpr,
    COLS: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNKED: tl.constexpr,
    REVERSE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write the gradient of a block of queries.

    Grid: (block, part of the features, row).
    """
    block, part, row = tl.num_programs(0) - 1 - tl.program_id(0), tl.program_id(1), tl.program_id(2)
    chunk, own = block // blocks, block % blocks
    q += head_offset(row, num_heads, stride_qb, stride_qh)
    k += head_offset(row, num_heads, stride_kb, stride_kh)
    v += head_offset(row, num_heads, stride_vb, stride_vh)
    g += head_offset(row, num_heads, stride_gb, stride_gh)
    grad_q += head_offset(row, num_heads, stride_rb, stride_rh)
    offset = row.to(tl.int64) * (num_chunks * padded)
    planes += offset
    upstream += offset
    by_query += offset
    across += ((part * tl.num_programs(2) + row) * tl.num_programs(0) + block).to(tl.int64) * blocks
    dtype: tl.constexpr = planes.dtype.element_ty
    first, inside = chunk * padded, tl.arange(0, BLOCK)
    t = first + own * BLOCK + inside
    multiple, remainder = tl.load(upstream + t), tl.load(upstream + plane + t)
    grad_sum = tl.load(upstream + 2 * plane + t)
    q_block = load_block(q, t, part * COLS, stride_qt, S, DIM, COLS, REVERSE)
    g_block = load_block(g, t, 0, stride_gt, S, DIM, COLS, REVERSE)
    grad, earlier = tl.zeros((BLOCK, COLS), dtype), tl.zeros((BLOCK,), dtype)
    if CHUNKED:
        state = row.to(tl.int64) * (num_chunks - 1) + tl.maximum(chunk - 1, 0)
        matrices += state * (DIM * DIM)
        normaliser = load_vector(normalisers + state * DIM, part * COLS, DIM, COLS)
        for index in range(PARTS):
            g_part = g_block
            if PARTS > 1:
                g_part = load_block(g, t, index * COLS, stride_gt, S, DIM, COLS, REVERSE)
            matrix = load_matrix(matrices, part * COLS, index * COLS, DIM, COLS)
            grad = product(g_part, tl.trans(matrix), grad, PRECISION)
        # The first chunk reads no state, because its frame is -inf.
        read = tl.exp((multiple + rounded(tl.load(frames + row * num_chunks + chunk))) + remainder)
        grad = (grad + grad_sum[:, None] * normaliser[None, :]) * read[:, None]
        earlier = tl.sum(q_block * grad, 1)
    # Pairs inside the chunk are counted once, by the first part.
    counts = tl.where(part == 0, 1.0, 0.0).to(dtype)
    for index in range(own):
        s = first + index * BLOCK + inside
        tl.store(across + index, tl.sum(earlier, 0))
        scores, k_block = products(
            q_block, q, k, t, s, stride_qt, stride_kt, part, S, dtype, DIM, COLS, PARTS, REVERSE, PRECISION
        )
        G, _ = products(
            g_block, g, v, t, s, stride_gt, stride_vt, 0, S, dtype, DIM, COLS, PARTS, REVERSE, PRECISION
        )
        level, key = tl.load(planes + 2 * plane + s), tl.load(planes + 3 * plane + s)
        weights = tl.exp((multiple[:, None] + level[None, :]) + (remainder[:, None] + key[None, :]))
        G = weights * (G + grad_sum[:, None])
        earlier += counts * tl.sum(scores * G, 1)
        grad = product(as_operand(G, k_block), k_block, grad, PRECISION)
    s = t
    scores, k_block = products(
        q_block, q, k, t, s, stride_qt, stride_kt, part, S, dtype, DIM, COLS, PARTS, REVERSE, PRECISION
    )
    G, _ = products(
        g_block, g, v, t, s, stride_gt, stride_vt, 0, S, dtype, DIM, COLS, PARTS, REVERSE, PRECISION
    )
    level, key = tl.load(planes + 2 * plane + s), tl.load(planes + 3 * plane + s)
    D = (multiple[:, None] + level[None, :]) + (remainder[:, None] + key[None, :])
    weights = tl.exp(tl.where(inside[:, None] >= inside[None, :], D, float("-inf")))
    G = weights * (G + grad_sum[:, None])
    grad = product(as_operand(G, k_block), k_block, grad, PRECISION)
    store_block(grad_q, grad, t, part * COLS, stride_rt, S, DIM, COLS, REVERSE)
    tl.store(by_query + part * plane + t, tl.cumsum(earlier, 0, reverse=True))
    before = tl.cumsum(scores * G, 1)
    before = tl.sum(tl.where(inside[:, None] > inside[None, :], before, 0.0), 0)
    if part == 0:
        tl.store(by_query + tl.num_programs(1) * plane + t, before)


@triton.jit(do_not_specialize=["S", "num_chunks", "padded", "blocks"])
def key_gradients(
    q,
    k,
    v,
    g,
    planes,
    frames,
    upstream,
    grad_matrices,
    grad_normalisers,
    grad_k,
    grad_v,
    by_key,
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
    padded,
    plane,
    blocks,
    DIM: tl.constexpr,
    COLS: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNKED: tl.constexpr,
    REVERSE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write the gradients of a block of keys and values.

    Grid: (block, part of the features, row).
    """
    block, part, row = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    chunk, own = block // blocks, block % blocks
    q += head_offset(row, num_heads, stride_qb, stride_qh)
    k += head_offset(row, num_heads, stride_kb, stride_kh)
    v += head_offset(row, num_heads, stride_vb, stride_vh)
    g += head_offset(row, num_heads, stride_gb, stride_gh)
    grad_k += head_offset(row, num_heads, stride_rb, stride_rh)
    grad_v += head_offset(row, num_heads, stride_rb, stride_rh)
    offset = row.to(tl.int64) * (num_chunks * padded)
    planes += offset
    upstream += offset
    by_key += offset
    dtype: tl.constexpr = planes.dtype.element_ty
    first, inside = chunk * padded, tl.arange(0, BLOCK)
    s = first + own * BLOCK + inside
    level, key = tl.load(planes + 2 * plane + s), tl.load(planes + 3 * plane + s)
    k_block = load_block(k, s, part * COLS, stride_kt, S, DIM, COLS, REVERSE)
    v_block = load_block(v, s, 0, stride_vt, S, DIM, COLS, REVERSE)
    by_later, grad_key = tl.zeros((BLOCK,), dtype), tl.zeros((BLOCK, COLS), dtype)
    grad_value = tl.zeros((BLOCK, COLS), dtype)
    if CHUNKED:
        state = row.to(tl.int64) * (num_chunks - 1) + tl.minimum(chunk, num_chunks - 2)
        grad_matrices += state * (DIM * DIM)
        grad_normaliser = load_vector(grad_normalisers + state * DIM, part * COLS, DIM, COLS)
        for index in range(PARTS):
            k_part, v_part = k_block, v_block
            if PARTS > 1:
                k_part = load_block(k, s, index * COLS, stride_kt, S, DIM, COLS, REVERSE)
                v_part = load_block(v, s, index * COLS, stride_vt, S, DIM, COLS, REVERSE)
            across_values = load_matrix(grad_matrices, part * COLS, index * COLS, DIM, COLS)
            grad_key = product(v_part, tl.trans(across_values), grad_key, PRECISION)
            across_keys = load_matrix(grad_matrices, index * COLS, part * COLS, DIM, COLS)
            grad_value = product(k_part, across_keys, grad_value, PRECISION)
        last = first + padded - 1
        frame = tl.load(frames + row * num_chunks + tl.minimum(chunk + 1, num_chunks - 1))
        multiple = (tl.load(planes + last) - rounded(frame)) + level
        # The last chunk writes no state.
        multiple = tl.where(chunk < num_chunks - 1, multiple, float("-inf"))
        write = tl.exp(multiple + (tl.load(planes + plane + last) + key))
        grad_key = (grad_key + grad_normaliser[None, :]) * write[:, None]
        grad_value *= write[:, None]
        by_later = tl.sum(k_block * grad_key, 1)
    tl.store(beyond + (part * tl.num_programs(2) + row) * tl.num_programs(0) + block, tl.sum(by_later, 0))
    # Pairs inside the chunk are counted once, by the first part.
    counts = tl.where(part == 0, 1.0, 0.0).to(dtype)
    by_own = tl.zeros((BLOCK,), dtype)
    for index in range(own, tl.minimum(blocks, tl.cdiv(S - first, BLOCK))):
        t = first + index * BLOCK + inside
        scores, q_block = products(
            k_block, k, q, s, t, stride_kt, stride_qt, part, S, dtype, DIM, COLS, PARTS, REVERSE, PRECISION
        )
        multiple, remainder = tl.load(upstream + t), tl.load(upstream + plane + t)
        D = (multiple[None, :] + level[:, None]) + (remainder[None, :] + key[:, None])
        weights = tl.exp(tl.where(s[:, None] <= t[None, :], D, float("-inf")))
        scores *= weights
        G, g_block = products(
            v_block, v, g, s, t, stride_vt, stride_gt, part, S, dtype, DIM, COLS, PARTS, REVERSE, PRECISION
        )
        grad_value = product(as_operand(scores, g_block), g_block, grad_value, PRECISION)
        G += tl.load(upstream + 2 * plane + t)[None, :]
        total = counts * tl.sum(scores * G, 1)
        by_own += tl.where(index == own, total, 0.0)
        by_later += tl.where(index == own, 0.0, total)
        grad_key = product(as_operand(G * weights, q_block), q_block, grad_key, PRECISION)
    store_block(grad_k, grad_key, s, part * COLS, stride_rt, S, DIM, COLS, REVERSE)
    store_block(grad_v, grad_value, s, part * COLS, stride_rt, S, DIM, COLS, REVERSE)
    by_key += part * plane + s
    tl.store(by_key, by_own + by_later)
    tl.store(by_key + tl.num_programs(1) * plane, tl.cumsum(by_later, 0))
