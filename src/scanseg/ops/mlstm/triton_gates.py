"""Triton kernels of the mLSTM's gates: sums, maxima and gradients.

F is the sum of log forget gates from the start of the chunk to the token, inclusive. F and the input gates are kept as
multiples of 1/16 (with sums exact up to 2^20) and remainders, so that differences keep their digits behind closed gates
and near large ones. In all weights m is rounded to such a multiple in the same way.

Planes, each (row, chunk * padded chunk length): 0 multiple of F, 1 remainder of F, 2 multiple of i - F (-inf beyond
the last token), 3 remainder of i - F, 4 maximum of i - F over the tokens of the chunk read so far. Frames, (row,
chunk), hold m at the starts of the chunks, with -inf for the first.

The kernels read a few numbers per token. A kernel with one program per row takes 2048 tokens or 1024 chunks per step.
"""

import triton
import triton.language as tl

from scanseg.ops.mlstm.triton_blocks import head_offset, positions, rounded


@triton.jit
def _larger(a, b):
    return tl.maximum(a, b)


@triton.jit
def _then(shift_a, peak_a, shift_b, peak_b):
    """Compose max(x + shift, peak) of earlier and of later chunks."""
    return shift_a + shift_b, tl.maximum(peak_a + shift_b, peak_b)


@triton.jit
def after(keep_a, sum_a, keep_b, sum_b):
    """Compose the maps sum + keep x, with b after a."""
    return keep_a * keep_b, sum_b + keep_b * sum_a


@triton.jit
def log_sigmoid(x):
    """Return log(sigmoid(x)), with full precision also near 0."""
    e = tl.exp(-tl.abs(x))
    u = 1.0 + e
    # log(1 + e), corrected for the rounding of 1 + e.
    return tl.minimum(x, 0.0) - (tl.log(u) + (e - (u - 1.0)) / u)


@triton.jit(do_not_specialize=["S"])
def sum_gates(
    igate,
    fgate,
    planes,
    frames,
    stride_ib,
    stride_ih,
    stride_it,
    stride_fb,
    stride_fh,
    stride_ft,
    S,
    num_heads,
    plane,
    PADDED: tl.constexpr,
    REVERSE: tl.constexpr,
):
    """Write the planes of one chunk.

    Grid: (chunk, row).
    """
    chunk, row, num_chunks = tl.program_id(0), tl.program_id(1), tl.num_programs(0)
    inside = tl.arange(0, PADDED)
    t = chunk * PADDED + inside
    exists, at = t < S, positions(t, S, REVERSE)
    igate += head_offset(row, num_heads, stride_ib, stride_ih)
    fgate += head_offset(row, num_heads, stride_fb, stride_fh)
    dtype: tl.constexpr = planes.dtype.element_ty
    i = tl.load(igate + at * stride_it, mask=exists, other=0.0).to(dtype)
    log_forget = log_sigmoid(tl.load(fgate + at * stride_ft, mask=exists, other=0.0).to(dtype))
    log_forget = tl.where(exists, log_forget, 0.0)
    multiple = rounded(log_forget)
    remainder = tl.cumsum(log_forget - multiple, 0)
    multiple = tl.cumsum(multiple, 0)
    level = tl.where(exists, rounded(i) - multiple, float("-inf"))
    key = (i - rounded(i)) - remainder
    planes += row.to(tl.int64) * (num_chunks * PADDED) + t
    tl.store(planes, multiple)
    tl.store(planes + plane, remainder)
    tl.store(planes + 2 * plane, level)
    tl.store(planes + 3 * plane, key)
    tl.store(planes + 4 * plane, tl.associative_scan(level + key, 0, _larger))
    if chunk == 0:
        tl.store(frames + row * num_chunks, float("-inf"))


@triton.jit(do_not_specialize=["num_chunks", "padded"])
def scan_frames(planes, frames, num_chunks, padded, plane, STEP: tl.constexpr):
    """Write m at the starts of all chunks except the first.

    Grid: (row,).
    """
    row = tl.program_id(0)
    planes += row.to(tl.int64) * (num_chunks * padded)
    frames += row * num_chunks
    dtype: tl.constexpr = planes.dtype.element_ty
    carry = tl.full((), -1e30, dtype)
    for first in range(0, num_chunks, STEP):
        chunk = first + tl.arange(0, STEP)
        exists, end = chunk < num_chunks, chunk * padded + (padded - 1)
        total = tl.load(planes + end, mask=exists, other=0.0)
        total += tl.load(planes + plane + end, mask=exists, other=0.0)
        peak = tl.load(planes + 4 * plane + end, mask=exists, other=-1e30)
        shift, level = tl.associative_scan((total, total + peak), 0, _then)
        m = tl.maximum(carry + shift, level)
        tl.store(frames + 1 + chunk, m, mask=chunk < num_chunks - 1)
        carry = tl.sum(tl.where(chunk == first + STEP - 1, m, 0.0), 0)


@triton.jit
def leads(planes, plane, frames, t, exists, padded):
    """Return whether m[t] comes from token t itself.

    It is also true beyond the last token.
    """
    frame = tl.load(frames + t // padded, mask=exists, other=0.0)
    own = tl.load(planes + 2 * plane + t, mask=exists, other=0.0)
    own += tl.load(planes + 3 * plane + t, mask=exists, other=0.0)
    peak = tl.load(planes + 4 * plane + t, mask=exists, other=0.0)
    return (own >= tl.maximum(frame, peak)) | (exists == 0)


@triton.jit
def through_m(planes, plane, frames, grad_m, chunk, S, TILE: tl.constexpr):
    """Sum the gradients of m over later tokens with the same s*.

    The sums stay inside the chunk. Returns for every token the factor of the sum at the first token of the next chunk,
    and the sum.
    """
    t = chunk * TILE + tl.arange(0, TILE)
    next_leads = leads(planes, plane, frames, t + 1, t + 1 < S, TILE)
    keep = tl.where(next_leads, 0.0, 1.0).to(grad_m.dtype)
    return tl.associative_scan((keep, grad_m), 0, after, reverse=True)


@triton.jit(do_not_specialize=["blocks", "parts", "slices"])
def sum_around_blocks(
    across, beyond, over, around, blocks, parts, slices, BLOCKS: tl.constexpr, SLICES: tl.constexpr
):
    """Sum dL/dD over the token pairs around each block.

    These are the pairs with the whole block between them. Grid: (chunk, row).

    Args:
        across: Sums of a block of t with all tokens read before a block, (part, row, block, block of the chunk).
        beyond: Sums of a block of s with later chunks, (part, row, block).
        over: Sums over the pairs around a chunk, (slice, row, chunk).
        around: Result, (row, block).
        blocks: Number of blocks of a chunk.
        parts: Number of parts of the features.
        slices: Number of parts of the states.
        BLOCKS: `blocks`, rounded up to a power of two.
        SLICES: `slices`, rounded up to a power of two.
    """
    chunk, num_chunks, row, rows = tl.program_id(0), tl.num_programs(0), tl.program_id(1), tl.num_programs(1)
    other, block = tl.arange(0, BLOCKS)[:, None], tl.arange(0, BLOCKS)[None, :]
    later, earlier = (other < blocks) & (other > block), (block < blocks) & (other < block)
    total = tl.zeros((BLOCKS, BLOCKS), around.dtype.element_ty)
    for part in range(parts):
        pair = ((part * rows + row) * num_chunks + chunk) * blocks + other
        total += tl.load(across + pair * blocks + block, mask=later, other=0.0)
        total += tl.load(beyond + pair + tl.zeros_like(block), mask=earlier, other=0.0)
    index = tl.arange(0, SLICES)
    # No token is before the first chunk or after the last one.
    inner = tl.where((chunk > 0) & (chunk < num_chunks - 1), slices, 0)
    over += (index * rows + row) * num_chunks + chunk
    over_chunk = tl.sum(tl.load(over, mask=index < inner, other=0.0), 0)
    at = tl.arange(0, BLOCKS)
    around += (row * num_chunks + chunk) * blocks + at
    tl.store(around, tl.sum(total, 0) + over_chunk, mask=at < blocks)


@triton.jit(do_not_specialize=["S", "num_chunks", "blocks", "parts"])
def gate_gradients(
    planes,
    frames,
    upstream,
    by_query,
    by_key,
    around,
    fgate,
    grad_igate,
    grad_fgate,
    stride_fb,
    stride_fh,
    stride_ft,
    S,
    num_heads,
    num_chunks,
    padded,
    plane,
    blocks,
    parts,
    BLOCK: tl.constexpr,
    STEP: tl.constexpr,
    REVERSE: tl.constexpr,
):
    """Compute the gradients of the gates from the other kernels' sums.

    Grid: (row,). The gradient of a log forget gate r is the sum over pairs s < r <= t, split by the positions of s and
    t: both in the block of r or only t in it (`by_query`), only s in it (`by_key`), neither (`around`). Both gates also
    receive the gradient through m[t] = D[t, s*], a sum over the tokens t with the same s*.

    Args:
        planes: See the module.
        frames: See the module.
        upstream: See `upstream_gradients`. Plane 3 is the gradient of m.
        by_query: For each part of the features a plane of sums for r = t, then one for r = t + 1 in the same block.
        by_key: For each part a plane of gradients of the input gates, then for each part one of sums for r = s + 1.
        around: See `sum_around_blocks`.
        fgate: The forget gates.
        grad_igate: Result, contiguous.
        grad_fgate: Result, contiguous.
        stride_fb: Stride of the batch axis of `fgate`.
        stride_fh: Stride of the head axis of `fgate`.
        stride_ft: Stride of the token axis of `fgate`.
        S: Number of tokens.
        num_heads: Number of heads.
        num_chunks: Number of chunks.
        padded: Tokens of a chunk, in the planes.
        plane: Elements of a plane.
        blocks: Number of blocks of a chunk.
        parts: Number of parts of the features.
        BLOCK: Tokens of a block.
        STEP: Tokens per step.
        REVERSE: Whether tokens are read from the last to the first.
    """
    row = tl.program_id(0)
    tokens = num_chunks * padded
    offset = row.to(tl.int64) * tokens
    planes += offset
    upstream += offset
    by_query += offset
    by_key += offset
    frames += row * num_chunks
    fgate += head_offset(row, num_heads, stride_fb, stride_fh)
    around += row * (num_chunks * blocks)
    results = row.to(tl.int64) * S
    dtype: tl.constexpr = planes.dtype.element_ty
    carry = tl.full((), 0.0, dtype)
    for index in range(tl.cdiv(S, STEP)):
        first = (tl.cdiv(S, STEP) - 1 - index) * STEP
        t = first + tl.arange(0, STEP)
        exists = t < S
        inner = exists & (t % BLOCK != 0)
        by_i = tl.zeros((STEP,), dtype)
        by_f = tl.load(by_query + parts * plane + t - 1, mask=inner, other=0.0)
        by_f += tl.load(around + (t // padded) * blocks + (t % padded) // BLOCK, mask=exists, other=0.0)
        for part in range(parts):
            at = part * plane + t
            by_i += tl.load(by_key + at, mask=exists, other=0.0)
            by_f += tl.load(by_query + at, mask=exists, other=0.0)
            by_f += tl.load(by_key + parts * plane + at - 1, mask=inner, other=0.0)
        grad_m = tl.load(upstream + 3 * plane + t, mask=exists, other=0.0)
        next_leads = leads(planes, plane, frames, t + 1, t + 1 < S, padded)
        keep, total = tl.associative_scan(
            (tl.where(next_leads, 0.0, 1.0).to(dtype), grad_m), 0, after, reverse=True
        )
        through_m = total + keep * carry
        carry = tl.sum(tl.where(t == first, through_m, 0.0), 0)
        own_m = leads(planes, plane, frames, t, exists, padded)
        at = positions(t, S, REVERSE)
        gate = tl.load(fgate + at * stride_ft, mask=exists, other=0.0).to(dtype)
        e = tl.exp(-tl.abs(gate))
        closed = tl.where(gate > 0, e, 1.0) / (1.0 + e)
        tl.store(grad_igate + results + at, by_i + tl.where(own_m, through_m, 0.0), mask=exists)
        tl.store(grad_fgate + results + at, (by_f + tl.where(own_m, 0.0, through_m)) * closed, mask=exists)
