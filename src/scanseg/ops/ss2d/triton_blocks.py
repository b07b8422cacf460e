"""Building blocks of the four-direction scan's kernels.

They compute step sizes and scans of tiles. A tile holds T tokens and BD channels. Tensor cores leave the rows of a
product with a distance of 8 in one thread. So row r of a tile is token r % 8 * (T / 8) + r // 8. A thread processes
T / 8 consecutive tokens in its registers, and threads exchange only the effect of these tokens on the state.

Step sizes are in base 2: with z = log2(e) (dt_weight dt_low + dt_bias), delta / ln 2 = log2(1 + 2^z), and a decay is
2^((delta / ln 2) A).

Names: see the package and `triton_kernels`.
"""

import triton
import triton.language as tl

from scanseg.ops._support.triton import INTERPRETED

EXACT = tl.constexpr(INTERPRETED)
"""Whether to avoid inline assembly and 16-bit products, which the interpreter lacks or computes wrongly."""
LOG2_E = tl.constexpr(1.4426950408889634)
LANES = tl.constexpr(8)
"""Number of threads that hold the tokens of a channel."""
LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def exp2(v):
    """Return 2^v, accurate to 2 units in the last place."""
    if EXACT:
        result = tl.exp2(v)
    else:
        result = tl.inline_asm_elementwise(
            "ex2.approx.ftz.f32 $0, $1;", "=f,f", [v], dtype=tl.float32, is_pure=True, pack=1
        )
    return result


@triton.jit
def log2(v):
    """Return the base-2 logarithm, with an absolute error of 2^-22."""
    if EXACT:
        result = tl.log2(v)
    else:
        result = tl.inline_asm_elementwise(
            "lg2.approx.ftz.f32 $0, $1;", "=f,f", [v], dtype=tl.float32, is_pure=True, pack=1
        )
    return result


@triton.jit
def reciprocal(v):
    """Return 1 / v, accurate to one unit in the last place."""
    if EXACT:
        result = 1.0 / v
    else:
        result = tl.inline_asm_elementwise(
            "rcp.approx.ftz.f32 $0, $1;", "=f,f", [v], dtype=tl.float32, is_pure=True, pack=1
        )
    return result


@triton.jit
def multiply(a, b, PRECISION: tl.constexpr):
    """Return the product of two matrices, accumulated in float32."""
    if EXACT:
        result = tl.sum(a[:, :, None] * b[None, :, :], axis=1)
    else:
        result = tl.dot(a, b, input_precision=PRECISION)
    return result


@triton.jit
def soften(z, e):
    """Return log2(1 + e) for e = 2^z.

    A short series is used for small e, because 1 + e loses digits. For large e the result is z.
    """
    if EXACT:
        one_more = 1.0 + e
        rounded = one_more - 1.0
        small = tl.where(
            rounded == 0.0, e * LOG2_E, tl.log2(one_more) * (e / tl.where(rounded == 0.0, 1.0, rounded))
        )
        result = tl.maximum(small, z)
    else:
        tail = 0.7213475204444817 - e * (0.48089834696298783 - e * 0.36067376022224085)
        result = tl.where(e < 0.05, e * (LOG2_E - e * tail), tl.maximum(log2(1.0 + e), z))
    return result


@triton.jit
def halves(v, ROWS: tl.constexpr, BD: tl.constexpr):
    """Return the first and the second half of the rows."""
    return tl.split(tl.permute(tl.reshape(v, (2, ROWS // 2, BD)), (1, 2, 0)))


@triton.jit
def join_halves(first, second, ROWS: tl.constexpr, BD: tl.constexpr):
    """Invert `halves`."""
    return tl.reshape(tl.permute(tl.join(first, second), (2, 0, 1)), (ROWS, BD))


@triton.jit
def walk(a, b, state, ROWS: tl.constexpr, STEP: tl.constexpr, BD: tl.constexpr, REVERSE: tl.constexpr):
    """Run state = a state + b over blocks of STEP rows.

    Return the states before each block, and the last state (STEP, BD).
    """
    if ROWS == STEP:
        before = state
        last = a * state + b
    else:
        a_first, a_second = halves(a, ROWS, BD)
        b_first, b_second = halves(b, ROWS, BD)
        if REVERSE:
            second, middle = walk(a_second, b_second, state, ROWS // 2, STEP, BD, REVERSE)
            first, last = walk(a_first, b_first, middle, ROWS // 2, STEP, BD, REVERSE)
        else:
            first, middle = walk(a_first, b_first, state, ROWS // 2, STEP, BD, REVERSE)
            second, last = walk(a_second, b_second, middle, ROWS // 2, STEP, BD, REVERSE)
        before = join_halves(first, second, ROWS, BD)
    return before, last


@triton.jit
def fold(a, b, ROWS: tl.constexpr, STEP: tl.constexpr, BD: tl.constexpr, REVERSE: tl.constexpr):
    """Return the product of a over blocks, and the last state.

    Blocks have STEP rows. The first state is zero. Both results are (STEP, BD).
    """
    if ROWS == STEP:
        total = a
        last = b
    else:
        a_first, a_second = halves(a, ROWS, BD)
        b_first, b_second = halves(b, ROWS, BD)
        total_first, last_first = fold(a_first, b_first, ROWS // 2, STEP, BD, REVERSE)
        total_second, last_second = fold(a_second, b_second, ROWS // 2, STEP, BD, REVERSE)
        total = total_first * total_second
        if REVERSE:
            last = total_first * last_second + last_first
        else:
            last = total_second * last_first + last_second
    return total, last


@triton.jit
def scan(a, b, state, T: tl.constexpr, BD: tl.constexpr, REVERSE: tl.constexpr):
    """Return the states before each token of a segment.

    `state` (1, BD) is the state before the segment.
    """
    total, last = fold(a, b, T, LANES, BD, REVERSE)
    starts = walk(total, last, state, LANES, 1, BD, REVERSE)[0]
    return walk(a, b, starts, T, LANES, BD, REVERSE)[0]


@triton.jit
def measure(a, b, T: tl.constexpr, BD: tl.constexpr, REVERSE: tl.constexpr):
    """Return the product of a over a segment, and the last state.

    The first state is zero. Both results are (1, BD).
    """
    total, last = fold(a, b, T, LANES, BD, REVERSE)
    return fold(total, last, LANES, 1, BD, REVERSE)


@triton.jit
def sum_rows(v, ROWS: tl.constexpr, BD: tl.constexpr):
    """Return the sum over the rows of a tile, (BD)."""
    if ROWS == LANES:
        result = tl.sum(v, axis=0)
    else:
        first, second = halves(v, ROWS, BD)
        result = sum_rows(first + second, ROWS // 2, BD)
    return result


@triton.jit
def find_places(segment, column, length, height, width, T: tl.constexpr):
    """Return the raster indices of a segment's tokens, and a mask.

    The order is by rows or by columns. The mask is true for tokens that exist.
    """
    row = tl.arange(0, T)
    first = segment * T
    offset = row % LANES * (T // LANES) + row // LANES
    place = first + offset
    exists = place < length
    if column != 0:
        # One integer division for the segment. Its tokens use a reciprocal, which is exact for such small numbers.
        y = first % height + offset
        x = ((y.to(tl.float32) + 0.5) * (1.0 / height)).to(tl.int32)
        place = (y - x * height) * width + first // height + x
    return place, exists


@triton.jit
def measure_steps(
    projected,
    exists,
    k,
    channels,
    dim,
    dt_weight,
    dt_bias,
    R: tl.constexpr,
    RP: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute z (T, BD) of direction k, and dt_low (T, RP)."""
    r = tl.arange(0, RP)
    low = tl.load(projected[:, None] + r[None, :], mask=exists[:, None] & (r < R)[None, :], other=0.0)
    rows = k * dim + channels
    weight = tl.load(
        dt_weight + rows[:, None] * R + r[None, :],
        mask=(channels < dim)[:, None] & (r < R)[None, :],
        other=0.0,
    )
    if EXACT:
        low = low.to(dt_bias.dtype.element_ty)
    weight = weight.to(low.dtype)
    bias = tl.load(dt_bias + rows, mask=channels < dim, other=0.0)
    z = (multiply(low, tl.trans(weight), PRECISION) + bias[None, :]) * LOG2_E
    return z, low


@triton.jit
def load_state_inputs(
    projected, exists, k, n, channels, dim, rates, R: tl.constexpr, N: tl.constexpr, STATE: tl.constexpr
):
    """Load A (BD), B and C (T, 1) of state number n."""
    A = tl.load(rates + (k * N + n) * dim + channels, mask=channels < dim, other=0.0)
    B = tl.load(projected + R + n, mask=exists, other=0.0).to(STATE)
    C = tl.load(projected + R + N + n, mask=exists, other=0.0).to(STATE)
    return A, B[:, None], C[:, None]


@triton.jit
def load_start(states, image, k, segments, segment, n, channels, dim, N: tl.constexpr):
    """Load the state (1, BD) before a segment.

    It is zero if the sequence has one segment only.
    """
    at = (((image * 4 + k) * segments + segment) * N + n) * dim + channels
    return tl.load(states + at, mask=channels < tl.where(segments > 1, dim, 0), other=0.0)[None, :]
