"""Building blocks of the mLSTM's Triton kernels: blocks, products and pair weights.

Tokens are counted in reading order. Only `load_block` and `store_block` use the position of a token in memory. A block
is `BLOCK` tokens by `COLS` of the `DIM` features. `PARTS` such blocks cover the features of a token.
"""

import triton
import triton.language as tl

from scanseg.ops._support.triton import INTERPRETED as _INTERPRETED

INTERPRETED = tl.constexpr(_INTERPRETED)


@triton.jit
def positions(t, S, REVERSE: tl.constexpr):
    """Return the positions of the tokens `t` in memory, in tokens."""
    return S - 1 - t if REVERSE else t


@triton.jit
def head_offset(row, num_heads, stride_batch, stride_head):
    """Return the offset of the first token of a row.

    A row is one head of one sample (batch * head).
    """
    return (row // num_heads).to(tl.int64) * stride_batch + (row % num_heads).to(tl.int64) * stride_head


@triton.jit
def block_offsets(t, first, stride, S, DIM: tl.constexpr, COLS: tl.constexpr, REVERSE: tl.constexpr):
    """Return the offsets and the mask of a block.

    The block has the tokens `t` and the features from `first` on. The mask is true for elements that exist.
    """
    cols = first + tl.arange(0, COLS)
    exists = (t < S)[:, None]
    if DIM % COLS != 0:
        exists = exists & (cols < DIM)[None, :]
    return positions(t, S, REVERSE)[:, None] * stride + cols[None, :], exists


@triton.jit
def load_block(base, t, first, stride, S, DIM: tl.constexpr, COLS: tl.constexpr, REVERSE: tl.constexpr):
    """Load tokens x features, with 0 for missing elements."""
    offsets, exists = block_offsets(t, first, stride, S, DIM, COLS, REVERSE)
    return tl.load(base + offsets, mask=exists, other=0.0)


@triton.jit
def to_nearest(values, DTYPE: tl.constexpr):
    """Round to a dtype, also in the interpreter, which truncates to bfloat16."""
    if INTERPRETED and values.dtype == tl.float32 and tl.bfloat16 == DTYPE:
        bits = values.to(tl.int32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & -65536
        values = bits.to(tl.float32, bitcast=True)
    return values.to(DTYPE)


@triton.jit
def store_block(
    base, values, t, first, stride, S, DIM: tl.constexpr, COLS: tl.constexpr, REVERSE: tl.constexpr
):
    """Store tokens x features that exist."""
    offsets, exists = block_offsets(t, first, stride, S, DIM, COLS, REVERSE)
    tl.store(base + offsets, to_nearest(values, base.dtype.element_ty), mask=exists)


@triton.jit
def load_matrix(base, first_row, first_col, DIM: tl.constexpr, COLS: tl.constexpr):
    """Load COLS x COLS of a contiguous DIM x DIM matrix.

    Missing elements are 0.
    """
    rows, cols = first_row + tl.arange(0, COLS), first_col + tl.arange(0, COLS)
    pointers = base + rows[:, None] * DIM + cols[None, :]
    if DIM % COLS != 0:
        matrix = tl.load(pointers, mask=(rows < DIM)[:, None] & (cols < DIM)[None, :], other=0.0)
    else:
        matrix = tl.load(pointers)
    return matrix


@triton.jit
def load_vector(base, first, DIM: tl.constexpr, COLS: tl.constexpr):
    """Load COLS of DIM numbers, with 0 for missing elements."""
    cols = first + tl.arange(0, COLS)
    return tl.load(base + cols, mask=cols < DIM, other=0.0)


@triton.jit
def as_operand(values, like):
    """Convert computed values to the dtype of another operand of a product.

    The interpreter keeps them wide, because it truncates instead of rounding, and its 16-bit products are wrong.
    """
    return values if INTERPRETED else values.to(like.dtype)


@triton.jit
def product(a, b, total, PRECISION: tl.constexpr):
    """Return total + a b.

    Operands of different dtypes are converted to the dtype of `b`, which is then the wider dtype of a state.
    """
    if INTERPRETED:
        a, b = a.to(total.dtype), b.to(total.dtype)
        total += tl.dot(a, b, input_precision=PRECISION, out_dtype=total.dtype)
    else:
        total = tl.dot(a.to(b.dtype), b, total, input_precision=PRECISION)
    return total


@triton.jit
def products(
    a_block,
    a,
    b,
    t_a,
    t_b,
    stride_a,
    stride_b,
    part,
    S,
    WIDE: tl.constexpr,
    DIM: tl.constexpr,
    COLS: tl.constexpr,
    PARTS: tl.constexpr,
    REVERSE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Return the products a[t_a] . b[t_b] over all features.

    Also return the block `part` of b. If a token has one part, `a_block` holds a[t_a].
    """
    total = tl.zeros((t_a.shape[0], t_b.shape[0]), dtype=WIDE)
    if PARTS == 1:
        b_block = load_block(b, t_b, 0, stride_b, S, DIM, COLS, REVERSE)
        total = product(a_block, tl.trans(b_block), total, PRECISION)
    else:
        for index in range(PARTS):
            a_part = load_block(a, t_a, index * COLS, stride_a, S, DIM, COLS, REVERSE)
            b_part = load_block(b, t_b, index * COLS, stride_b, S, DIM, COLS, REVERSE)
            total = product(a_part, tl.trans(b_part), total, PRECISION)
        b_block = load_block(b, t_b, part * COLS, stride_b, S, DIM, COLS, REVERSE)
    return total, b_block


@triton.jit
def rounded(x):
    """Return the nearest multiple of 1/16."""
    return tl.floor(x * 16.0 + 0.5) * 0.0625


@triton.jit
def stabiliser(planes, plane, index, frame):
    """Return the maximum m of the tokens at `index` of the planes.

    `frame` is m at the end of the previous chunk.
    """
    total = tl.load(planes + index) + tl.load(planes + plane + index)
    return total + tl.maximum(frame, tl.load(planes + 4 * plane + index))
