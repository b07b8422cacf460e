"""Triton kernels of the states between chunks of one tile.

They also compute the gradients of the states.

State j is the state at the end of chunk j, which chunk j + 1 reads. The states of a group of chunks are the product of
a matrix of decays with the updates of the chunks, so that no program walks from chunk to chunk. Only the last state of
a group is passed on.

Updates and states are matrices (row, chunk - 1, DIM * DIM) in bfloat16 (wider in the interpreter), key features x
value features, and normalizers (row, chunk - 1, DIM) in float32. Names and planes: see `triton_gates`.
"""

import triton
import triton.language as tl

from scanseg.ops.mlstm.triton_blocks import (
    as_operand,
    head_offset,
    load_block,
    product,
    rounded,
    to_nearest,
)
from scanseg.ops.mlstm.triton_gates import after


@triton.jit
def store_update(
    matrix_updates, vector_updates, state, matrix, vector, DIM: tl.constexpr, COLS: tl.constexpr
):
    """Store the update of a state, a matrix and a vector."""
    cols = tl.arange(0, COLS)
    at = matrix_updates + state * (DIM * DIM) + cols[:, None] * DIM + cols[None, :]
    values = to_nearest(matrix, matrix_updates.dtype.element_ty)
    if DIM % COLS != 0:
        tl.store(at, values, mask=(cols < DIM)[:, None] & (cols < DIM)[None, :])
    else:
        tl.store(at, values)
    tl.store(vector_updates + state * DIM + cols, vector, mask=cols < DIM)


@triton.jit(do_not_specialize=["S", "num_chunks"])
def tile_updates(
    k,
    v,
    planes,
    frames,
    matrix_updates,
    vector_updates,
    stride_kb,
    stride_kh,
    stride_kt,
    stride_vb,
    stride_vh,
    stride_vt,
    S,
    num_heads,
    num_chunks,
    plane,
    DIM: tl.constexpr,
    COLS: tl.constexpr,
    TILE: tl.constexpr,
    REVERSE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Sum weighted keys times values over a chunk.

    Grid: (chunk - 1, row).
    """
    chunk, row = tl.program_id(0), tl.program_id(1)
    k += head_offset(row, num_heads, stride_kb, stride_kh)
    v += head_offset(row, num_heads, stride_vb, stride_vh)
    planes += row.to(tl.int64) * (num_chunks * TILE)
    frames += row * num_chunks
    dtype: tl.constexpr = planes.dtype.element_ty
    s, last = chunk * TILE + tl.arange(0, TILE), chunk * TILE + TILE - 1
    k_block = load_block(k, s, 0, stride_kt, S, DIM, COLS, REVERSE)
    v_block = load_block(v, s, 0, stride_vt, S, DIM, COLS, REVERSE)
    multiple = tl.load(planes + last) - rounded(tl.load(frames + chunk + 1))
    level, key = tl.load(planes + 2 * plane + s), tl.load(planes + 3 * plane + s)
    weight = tl.exp((multiple + level) + (tl.load(planes + plane + last) + key))
    weighted = k_block * weight[:, None]
    vector = tl.sum(weighted, 0)
    matrix = tl.zeros((COLS, COLS), dtype)
    matrix = product(tl.trans(as_operand(weighted, v_block)), v_block, matrix, PRECISION)
    state = row.to(tl.int64) * (num_chunks - 1) + chunk
    store_update(matrix_updates, vector_updates, state, matrix, vector, DIM, COLS)


@triton.jit
def _decays(planes, plane, frames, state, last, TILE: tl.constexpr):
    """Return the logarithms of the decays over the chunks `state`.

    They are multiples of 1/16, and remainders. A decay below exp(-128) is 0 in the products anyway, and the bound keeps
    sums of multiples exact. Beyond `last` the decay is 1.
    """
    exists = (state >= 0) & (state <= last)
    end = state * TILE + (TILE - 1)
    remainder = tl.load(planes + plane + end, mask=exists, other=0.0)
    whole = tl.load(planes + end, mask=exists, other=0.0)
    whole += rounded(tl.load(frames + state, mask=exists, other=0.0))
    whole -= rounded(tl.load(frames + state + 1, mask=exists, other=0.0))
    multiple = rounded(remainder)
    return tl.maximum(whole + multiple, -128.0), remainder - multiple


@triton.jit(do_not_specialize=["num_chunks"])
def tile_decays(
    planes,
    frames,
    decays,
    ends,
    num_chunks,
    plane,
    STEP: tl.constexpr,
    TILE: tl.constexpr,
    SPLIT: tl.constexpr,
):
    """Write the decays between the states of STEP chunks.

    Grid: (group of STEP chunks, row). `decays`, (2, row, group, STEP, STEP), receives the factors of earlier states in
    later ones. With SPLIT they are sums of two bfloat16 numbers, else the second half is not written. `ends`, (2, row,
    group, STEP), receives the factors of the last state of the previous group in the states of this one, and the
    factors of these states in the first one of the next group.
    """
    group, row, groups, rows = tl.program_id(0), tl.program_id(1), tl.num_programs(0), tl.num_programs(1)
    planes += row.to(tl.int64) * (num_chunks * TILE)
    frames += row * num_chunks
    inside = tl.arange(0, STEP)
    state = group * STEP + inside
    multiple, remainder = _decays(planes, plane, frames, state, num_chunks - 2, TILE)
    multiple, remainder = tl.cumsum(multiple, 0), tl.cumsum(remainder, 0)
    weights = (multiple[:, None] - multiple[None, :]) + (remainder[:, None] - remainder[None, :])
    weights = tl.exp(tl.where(inside[:, None] >= inside[None, :], weights, float("-inf")))
    at = (row * groups + group) * STEP + inside
    size = rows * groups * STEP
    tl.store(ends + at, tl.exp(multiple + remainder))
    multiple, remainder = _decays(planes, plane, frames, state + 1, num_chunks - 2, TILE)
    multiple, remainder = tl.cumsum(multiple, 0, reverse=True), tl.cumsum(remainder, 0, reverse=True)
    tl.store(ends + size + at, tl.exp(multiple + remainder))
    at = at[:, None] * STEP + inside[None, :]
    high = weights.to(decays.dtype.element_ty)
    tl.store(decays + at, high)
    if SPLIT:
        tl.store(decays + size * STEP + at, (weights - high.to(weights.dtype)).to(tl.bfloat16))


@triton.jit
def _weighted_sum(high, low, values, total, SPLIT: tl.constexpr, PRECISION: tl.constexpr):
    """Return total + weights times values.

    With SPLIT, the operands are sums of two bfloat16 numbers, which keeps 16 digits.
    """
    if SPLIT:
        values_high = values.to(tl.bfloat16)
        if values.dtype != tl.bfloat16:
            values_low = (values - values_high.to(values.dtype)).to(tl.bfloat16)
            total = tl.dot(high, values_low, total)
        total = tl.dot(low, values_high, total)
        total = tl.dot(high, values_high, total)
    else:
        total = product(high, values, total, PRECISION)
    return total


@triton.jit(do_not_specialize=["num_chunks"])
def tile_states(
    matrix_updates,
    vector_updates,
    decays,
    ends,
    matrices,
    normalisers,
    num_chunks,
    groups,
    DIM: tl.constexpr,
    SLICE: tl.constexpr,
    SLICES: tl.constexpr,
    STEP: tl.constexpr,
    SPLIT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Pass the states from chunk to chunk, STEP chunks at a time.

    Grid: (slice of a state, row). The last slices are the normalizer.
    """
    index, row = tl.program_id(0), tl.program_id(1)
    states = row.to(tl.int64) * (num_chunks - 1)
    ends += row * groups * STEP
    low = decays + (tl.num_programs(1) + row) * groups * (STEP * STEP)
    decays += row * groups * (STEP * STEP)
    inside = tl.arange(0, SLICE)
    if index < SLICES:
        _pass_on(
            matrix_updates + states * (DIM * DIM),
            matrices + states * (DIM * DIM),
            decays,
            low,
            ends,
            index * SLICE + inside,
            num_chunks,
            groups,
            DIM * DIM,
            STEP,
            SPLIT,
            PRECISION,
        )
    else:
        _pass_on(
            vector_updates + states * DIM,
            normalisers + states * DIM,
            decays,
            low,
            ends,
            (index - SLICES) * SLICE + inside,
            num_chunks,
            groups,
            DIM,
            STEP,
            SPLIT,
            PRECISION,
        )


@triton.jit
def _pass_on(
    updates,
    results,
    decays,
    low,
    ends,
    element,
    num_chunks,
    groups,
    SIZE: tl.constexpr,
    STEP: tl.constexpr,
    SPLIT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write the states of some elements."""
    inside = tl.arange(0, STEP)
    square = inside[:, None] * STEP + inside[None, :]
    carry = tl.zeros((element.shape[0],), ends.dtype.element_ty)
    for group in tl.range(0, groups, num_stages=1):
        state = group * STEP + inside
        exists = (state < num_chunks - 1)[:, None] & (element < SIZE)[None, :]
        offsets = state[:, None] * SIZE + element[None, :]
        update = tl.load(updates + offsets, mask=exists, other=0.0)
        high = tl.load(decays + group * (STEP * STEP) + square)
        rest = high
        if SPLIT:
            rest = tl.load(low + group * (STEP * STEP) + square)
        total = tl.load(ends + state)[:, None] * carry[None, :]
        total = _weighted_sum(high, rest, update, total, SPLIT, PRECISION)
        tl.store(results + offsets, to_nearest(total, results.dtype.element_ty), mask=exists)
        carry = tl.sum(tl.where((inside == STEP - 1)[:, None], total, 0.0), 0)


@triton.jit(do_not_specialize=["num_chunks"])
def tile_state_gradients(
    matrix_updates,
    vector_updates,
    decays,
    ends,
    matrices,
    normalisers,
    grad_matrices,
    grad_normalisers,
    over,
    sums_m,
    num_chunks,
    groups,
    DIM: tl.constexpr,
    SLICE: tl.constexpr,
    SLICES: tl.constexpr,
    STEP: tl.constexpr,
    SPLIT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Pass the gradients of the states from chunk to chunk, in reverse.

    Grid: (slice of a state, row). The last slices are the normalizer. The last program of a row also replaces the sums
    in `sums_m` by sums over all later tokens. `over`, (row, chunk, slice), receives the sums of dL/dD over the pairs of
    tokens around each chunk.
    """
    index, row, slices, rows = tl.program_id(0), tl.program_id(1), tl.num_programs(0), tl.num_programs(1)
    states = row.to(tl.int64) * (num_chunks - 1)
    over += row * num_chunks * slices + index
    ends += (rows + row) * groups * STEP
    low = decays + (rows + row) * groups * (STEP * STEP)
    decays += row * groups * (STEP * STEP)
    inside = tl.arange(0, SLICE)
    if index < SLICES:
        at = states * (DIM * DIM)
        _pass_back(
            matrix_updates + at,
            matrices + at,
            grad_matrices + at,
            over,
            slices,
            decays,
            low,
            ends,
            index * SLICE + inside,
            num_chunks,
            groups,
            DIM * DIM,
            STEP,
            SPLIT,
            PRECISION,
        )
    else:
        at = states * DIM
        _pass_back(
            vector_updates + at,
            normalisers + at,
            grad_normalisers + at,
            over,
            slices,
            decays,
            low,
            ends,
            (index - SLICES) * SLICE + inside,
            num_chunks,
            groups,
            DIM,
            STEP,
            SPLIT,
            PRECISION,
        )
    if index == slices - 1:
        _pass_sums_back(sums_m + row * num_chunks, rows, num_chunks, STEP)


@triton.jit
def _pass_sums_back(sums_m, rows, num_chunks, STEP: tl.constexpr):
    """Add to each chunk's sum the next one, times its factor."""
    inside = tl.arange(0, STEP)
    carry = tl.full((), 0.0, sums_m.dtype.element_ty)
    for first in range(0, num_chunks, STEP):
        chunk = num_chunks - 1 - first - inside
        total = tl.load(sums_m + chunk, mask=chunk >= 0, other=0.0)
        keep = tl.load(sums_m + rows * num_chunks + chunk, mask=chunk >= 0, other=1.0)
        keep, total = tl.associative_scan((keep, total), 0, after)
        total += keep * carry
        tl.store(sums_m + chunk, total, mask=chunk >= 0)
        carry = tl.sum(tl.where(inside == STEP - 1, total, 0.0), 0)


@triton.jit
def _pass_back(
    updates,
    states,
    results,
    over,
    slices,
    decays,
    low,
    ends,
    element,
    num_chunks,
    groups,
    SIZE: tl.constexpr,
    STEP: tl.constexpr,
    SPLIT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write the gradients of the states of some elements.

    State j reads its gradient from state j + 1 through chunk j + 1.
    """
    inside = tl.arange(0, STEP)
    square, later = inside[:, None] * STEP + inside[None, :], inside[:, None] > inside[None, :]
    carry = tl.zeros((element.shape[0],), ends.dtype.element_ty)
    for step in tl.range(0, groups, num_stages=1):
        group = groups - 1 - step
        state = group * STEP + inside
        exists = (state < num_chunks - 1)[:, None] & (element < SIZE)[None, :]
        offsets = state[:, None] * SIZE + element[None, :]
        update = tl.load(updates + offsets, mask=exists, other=0.0)
        value = tl.load(states + offsets, mask=exists, other=0.0)
        high = tl.load(decays + group * (STEP * STEP) + square, mask=later, other=0.0)
        rest = high
        if SPLIT:
            rest = tl.load(low + group * (STEP * STEP) + square, mask=later, other=0.0)
        passed = tl.load(ends + state)[:, None] * carry[None, :]
        passed = _weighted_sum(tl.trans(high), tl.trans(rest), update, passed, SPLIT, PRECISION)
        tl.store(over + (state + 1) * slices, tl.sum(passed * value, 1), mask=state < num_chunks - 1)
        total = passed + update
        tl.store(results + offsets, to_nearest(total, results.dtype.element_ty), mask=exists)
        carry = tl.sum(tl.where((inside == 0)[:, None], total, 0.0), 0)
