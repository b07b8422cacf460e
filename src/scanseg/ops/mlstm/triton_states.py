"""Triton kernels of the mLSTM's states between chunks, and their gradients.

State j is the state at the end of chunk j, which chunk j + 1 reads. Its gradient comes from chunk j + 1 and from state
j + 1. Updates, float32 or wider, are (row, chunk - 1, DIM * DIM + DIM), the matrix (key features x value features) and
the normalizer side by side. Results are separate: matrices in the dtype of the products, normalizers unconverted.
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


@triton.jit
def _operand(block, WIDE: tl.constexpr):
    """Convert float16, which has a small exponent, to float32 without loss."""
    return block.to(WIDE) if block.dtype == tl.float16 else block


@triton.jit(do_not_specialize=["S", "num_chunks"])
def state_updates(
    x,
    y,
    planes,
    frames,
    upstream,
    updates,
    stride_xb,
    stride_xh,
    stride_xt,
    stride_yb,
    stride_yh,
    stride_yt,
    S,
    num_heads,
    num_chunks,
    plane,
    DIM: tl.constexpr,
    COLS: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK: tl.constexpr,
    PADDED: tl.constexpr,
    ADJOINT: tl.constexpr,
    REVERSE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Sum weighted x times y over a chunk.

    Grid: (part of x * part of y, chunk - 1, row). Forward, x and y are keys and values. With ADJOINT they are queries
    and the gradient of h, and the chunk adds the sum to the gradient of the state that it reads.
    """
    part_x, part_y = tl.program_id(0) // PARTS, tl.program_id(0) % PARTS
    state, row = tl.program_id(1), tl.program_id(2)
    chunk = state + 1 if ADJOINT else state
    x += head_offset(row, num_heads, stride_xb, stride_xh)
    y += head_offset(row, num_heads, stride_yb, stride_yh)
    offset = row.to(tl.int64) * (num_chunks * PADDED)
    planes += offset
    upstream += offset
    frames += row * num_chunks
    dtype: tl.constexpr = planes.dtype.element_ty
    first = chunk * PADDED
    if ADJOINT:
        frame = tl.load(frames + chunk)
    else:
        last = first + PADDED - 1
        multiple_end = tl.load(planes + last) - rounded(tl.load(frames + chunk + 1))
        remainder_end = tl.load(planes + plane + last)
    matrix = tl.zeros((COLS, COLS), dtype)
    vector = tl.zeros((COLS,), dtype)
    for index in range(PADDED // BLOCK):
        t = first + index * BLOCK + tl.arange(0, BLOCK)
        x_block = load_block(x, t, part_x * COLS, stride_xt, S, DIM, COLS, REVERSE)
        y_block = _operand(load_block(y, t, part_y * COLS, stride_yt, S, DIM, COLS, REVERSE), dtype)
        if ADJOINT:
            weight = tl.exp((tl.load(upstream + t) + rounded(frame)) + tl.load(upstream + plane + t))
            vector += tl.sum(x_block * (weight * tl.load(upstream + 2 * plane + t))[:, None], 0)
        else:
            level, key = tl.load(planes + 2 * plane + t), tl.load(planes + 3 * plane + t)
            weight = tl.exp((multiple_end + level) + (remainder_end + key))
            vector += tl.sum(x_block * weight[:, None], 0)
        weighted = as_operand(x_block * weight[:, None], y_block)
        matrix = product(tl.trans(weighted), y_block, matrix, PRECISION)
    updates += (row.to(tl.int64) * (num_chunks - 1) + state) * (DIM * DIM + DIM)
    rows, cols = part_x * COLS + tl.arange(0, COLS), part_y * COLS + tl.arange(0, COLS)
    exists = (rows < DIM)[:, None] & (cols < DIM)[None, :]
    tl.store(updates + rows[:, None] * DIM + cols[None, :], matrix, mask=exists)
    if part_y == 0:
        tl.store(updates + DIM * DIM + rows, vector, mask=rows < DIM)


@triton.jit
def _decay(planes, plane, frames, chunk, padded):
    """Return the decay of a state over a chunk."""
    end = chunk * padded + (padded - 1)
    multiple = tl.load(planes + end) + (
        rounded(tl.load(frames + chunk)) - rounded(tl.load(frames + chunk + 1))
    )
    return tl.exp(multiple + tl.load(planes + plane + end))


@triton.jit(do_not_specialize=["num_chunks"])
def scan_states(
    updates,
    planes,
    frames,
    matrices,
    normalisers,
    num_chunks,
    padded,
    plane,
    DIM: tl.constexpr,
    SLICE: tl.constexpr,
):
    """Pass the states from chunk to chunk.

    Grid: (slice of a state, row).
    """
    row = tl.program_id(1)
    element = tl.program_id(0) * SLICE + tl.arange(0, SLICE)
    size: tl.constexpr = DIM * DIM
    exists, in_matrix = element < size + DIM, element < size
    states = row.to(tl.int64) * (num_chunks - 1)
    updates += states * (size + DIM)
    matrices += states * size
    normalisers += states * DIM
    planes += row.to(tl.int64) * (num_chunks * padded)
    frames += row * num_chunks
    carry = tl.zeros((SLICE,), planes.dtype.element_ty)
    for state in tl.range(num_chunks - 1, num_stages=4):
        update = tl.load(updates + state * (size + DIM) + element, mask=exists, other=0.0)
        carry = _decay(planes, plane, frames, state, padded) * carry + update
        tl.store(
            matrices + state * size + element, to_nearest(carry, matrices.dtype.element_ty), mask=in_matrix
        )
        tl.store(normalisers + state * DIM + (element - size), carry, mask=exists & (element >= size))


@triton.jit(do_not_specialize=["num_chunks"])
def scan_state_gradients(
    updates,
    planes,
    frames,
    matrices,
    normalisers,
    grad_matrices,
    grad_normalisers,
    over,
    num_chunks,
    padded,
    plane,
    DIM: tl.constexpr,
    SLICE: tl.constexpr,
):
    """Pass the gradients of the states from chunk to chunk, in reverse.

    Grid: (slice of a state, row). `over`, (slice, row, chunk), receives the sums of dL/dD over the pairs of tokens
    around each chunk.
    """
    index, row = tl.program_id(0), tl.program_id(1)
    element = index * SLICE + tl.arange(0, SLICE)
    size: tl.constexpr = DIM * DIM
    exists, in_matrix = element < size + DIM, element < size
    in_normaliser = exists & (element >= size)
    states = row.to(tl.int64) * (num_chunks - 1)
    updates += states * (size + DIM)
    matrices += states * size
    normalisers += states * DIM
    grad_matrices += states * size
    grad_normalisers += states * DIM
    planes += row.to(tl.int64) * (num_chunks * padded)
    frames += row * num_chunks
    over += (index * tl.num_programs(1) + row) * num_chunks
    dtype: tl.constexpr = planes.dtype.element_ty
    carry = tl.zeros((SLICE,), dtype)
    for step in tl.range(num_chunks - 1, num_stages=4):
        state = num_chunks - 2 - step
        update = tl.load(updates + state * (size + DIM) + element, mask=exists, other=0.0)
        matrix = tl.load(matrices + state * size + element, mask=in_matrix, other=0.0).to(dtype)
        normaliser = tl.load(normalisers + state * DIM + (element - size), mask=in_normaliser, other=0.0)
        # The last chunk passes no state on.
        passed = _decay(planes, plane, frames, tl.minimum(state + 1, num_chunks - 2), padded) * carry
        tl.store(over + state + 1, tl.sum(passed * (matrix + normaliser), 0))
        carry = passed + update
        grad = to_nearest(carry, grad_matrices.dtype.element_ty)
        tl.store(grad_matrices + state * size + element, grad, mask=in_matrix)
        tl.store(grad_normalisers + state * DIM + (element - size), carry, mask=in_normaliser)
