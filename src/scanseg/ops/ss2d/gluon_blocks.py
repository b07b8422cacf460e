"""Building blocks of the four-direction scan's kernels in Gluon.

Names: see the package, `gluon_layouts` and `gluon_kernels`. Step sizes and decays are in base 2 (see `triton_blocks`).
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import mma_v2

from scanseg.ops.ss2d.gluon_layouts import (
    channel_layout,
    constraints,
    dot_code,
    fold_code,
    grouped_layout,
    left_layout,
    product_layout,
    repeat_code,
    right_layout,
    tile_layout,
    token_layout,
    walk_back_code,
    walk_code,
)

LOG2_E = gl.constexpr(1.4426950408889634)
LN_2 = gl.constexpr(0.6931471805599453)

wait_for_warps = gl.barrier if hasattr(gl, "barrier") else gl.thread_barrier
"""Wait for the other threads of the program, whose stores are then visible. Triton 3.6 has another name for it."""


@gluon.jit
def exp2(v):
    """Return 2^v, accurate to 2 units in the last place."""
    return gl.inline_asm_elementwise(
        "ex2.approx.ftz.f32 $0, $1;", "=f,f", [v], dtype=gl.float32, is_pure=True, pack=1
    )


@gluon.jit
def log2(v):
    """Return the base-2 logarithm, with an absolute error of 2^-22."""
    return gl.inline_asm_elementwise(
        "lg2.approx.ftz.f32 $0, $1;", "=f,f", [v], dtype=gl.float32, is_pure=True, pack=1
    )


@gluon.jit
def reciprocal(v):
    """Return 1 / v, accurate to one unit in the last place."""
    return gl.inline_asm_elementwise(
        "rcp.approx.ftz.f32 $0, $1;", "=f,f", [v], dtype=gl.float32, is_pure=True, pack=1
    )


@gluon.jit
def soften(z, e):
    """Return log2(1 + e) for e = 2^z (see `triton_blocks`)."""
    tail = 0.7213475204444817 - e * (0.48089834696298783 - e * 0.36067376022224085)
    return gl.where(e < 0.05, e * (LOG2_E - e * tail), gl.maximum(log2(1.0 + e), z))


@gluon.jit
def channels_of(first, layout: gl.constexpr):
    """Return the indices of 16 channels, (1, 16, 1)."""
    index = first + gl.arange(0, 16, layout=gl.SliceLayout(0, gl.SliceLayout(2, layout)))
    return gl.expand_dims(gl.expand_dims(index, 0), 2)


@gluon.jit
def last_axis(size: gl.constexpr, layout: gl.constexpr):
    """Return the indices of the last axis, (1, 1, size)."""
    index = gl.arange(0, size, layout=gl.SliceLayout(0, gl.SliceLayout(1, layout)))
    return gl.expand_dims(gl.expand_dims(index, 0), 1)


@gluon.jit
def warps_of(W: gl.constexpr, layout: gl.constexpr):
    """Return the indices of the warps, (W, 1, 1)."""
    index = gl.arange(0, W, layout=gl.SliceLayout(1, gl.SliceLayout(2, layout)))
    return gl.expand_dims(gl.expand_dims(index, 1), 2)


@gluon.jit
def over_channels(v, layout: gl.constexpr):
    """Repeat values of tokens (W, 4 M) for channels."""
    return gl.expand_dims(gl.convert_layout(v, gl.SliceLayout(1, layout)), 1)


@gluon.jit
def find_places(first, k, length, height, width, W: gl.constexpr, M: gl.constexpr):
    """Return the raster indices (W, 4 M) of tokens.

    The first token has number `first` in direction k. Tokens that do not exist get the place of the last one.
    """
    layout: gl.constexpr = token_layout(W, M)
    warp = gl.expand_dims(gl.arange(0, W, layout=gl.SliceLayout(1, layout)), 1)
    number = first + warp * (4 * M) + gl.expand_dims(gl.arange(0, 4 * M, layout=gl.SliceLayout(0, layout)), 0)
    place = gl.where(number < length, number, length - 1)
    if k >= 2:
        place = length - 1 - place
    if k % 2 == 1:
        # The reciprocal is exact for such numbers.
        x = ((place.to(gl.float32) + 0.5) * (1.0 / height)).to(gl.int32)
        place = (place - x * height) * width + x
    return place


@gluon.jit
def which_exist(first, length, layout: gl.constexpr, W: gl.constexpr, M: gl.constexpr):
    """Return the mask of tokens that exist.

    Its shape is (W, 1, 4 M). The first token has number `first`.
    """
    return first + warps_of(W, layout) * (4 * M) + last_axis(4 * M, layout) < length


@gluon.jit
def addresses(place, channels, dim, layout: gl.constexpr):
    """Return the offsets of a tile in a map (token, dim)."""
    return (over_channels(place, layout) * dim + channels).to(gl.uint32)


@gluon.jit
def mask_of(exists, channels, dim, WHOLE: gl.constexpr):
    """Return the mask of a tile.

    If WHOLE, all of its channels exist.
    """
    mask = exists & (channels >= 0)
    if not WHOLE:
        mask = mask & (channels < dim)
    return mask


@gluon.jit
def sum_skips(D_skip, channels, dim):
    """Return the sum of the four D (1, 16, 1)."""
    total = gl.load(D_skip + channels, mask=channels < dim, other=0.0)
    for direction in gl.static_range(1, 4):
        total += gl.load(D_skip + direction * dim + channels, mask=channels < dim, other=0.0)
    return total


@gluon.jit
def load_weights(
    dt_weight, k, first, dim, R: gl.constexpr, RP: gl.constexpr, W: gl.constexpr, dtype: gl.constexpr
):
    """Load the first factor of `expand`, (W, 16, RP)."""
    layout: gl.constexpr = left_layout(W)
    row = gl.arange(0, 16, layout=gl.SliceLayout(0, gl.SliceLayout(2, layout)))
    channel = gl.expand_dims(gl.expand_dims(first + row % 8 * 2 + row // 8, 0), 2)
    r = last_axis(RP, layout)
    mask = (channel < dim) & (r < R) & (warps_of(W, layout) < W)
    return gl.load(dt_weight + (k * dim + channel) * R + r, mask=mask, other=0.0).to(dtype)


@gluon.jit
def load_wide(dt_weight, k, first, dim, R: gl.constexpr, columns: gl.constexpr, W: gl.constexpr):
    """Load weights (W, 16, columns) for the gradient of dt_low.

    They are divided by ln 2.
    """
    layout: gl.constexpr = right_layout(W)
    r = last_axis(columns, layout)
    channel = channels_of(first, layout)
    mask = (channel < dim) & (r < R) & (warps_of(W, layout) < W)
    weights = gl.load(dt_weight + (k * dim + channel) * R + r, mask=mask, other=0.0)
    return (weights * LOG2_E).to(gl.bfloat16)


@gluon.jit
def expand(weights, low, W: gl.constexpr, M: gl.constexpr):
    """Return the product of weights and dt_low as a tile."""
    z = mma_v2(weights, low, gl.zeros((W, 16, 4 * M), gl.float32, product_layout(W)))
    z = gl.permute(gl.reshape(z, (W, 2, 8, M // 2, 4, 2)), (0, 2, 1, 4, 3, 5))
    return gl.convert_layout(gl.reshape(z, (W, 16, 4 * M)), tile_layout(W, M))


@gluon.jit
def by_channel(v, W: gl.constexpr, M: gl.constexpr):
    """Return a tile as first factor of a product over tokens."""
    v = gl.reshape(v.to(gl.bfloat16), (W, 8, 2, 4, M // 2, 2))
    v = gl.reshape(gl.permute(v, (0, 2, 1, 4, 3, 5)), (W, 16, 4 * M))
    return gl.convert_layout(v, left_layout(W))


@gluon.jit
def by_token(v, W: gl.constexpr):
    """Return a tile as the first factor of a product over channels."""
    return gl.convert_layout(gl.permute(v.to(gl.bfloat16), (0, 2, 1)), left_layout(W))


@gluon.jit
def one_column(column: gl.constexpr, W: gl.constexpr, columns: gl.constexpr):
    """Return a second factor that sums channels into a column."""
    layout: gl.constexpr = right_layout(W)
    ones = gl.full((W, 16, columns), 1.0, gl.float32, layout)
    return gl.where(last_axis(columns, layout) == column, ones, 0.0).to(gl.bfloat16)


@gluon.jit
def one_of_each(v, W: gl.constexpr, M: gl.constexpr):
    """Return the first of M equal values of each thread."""
    first, _ = gl.split(gl.reshape(v, (W, 16, 4, M // 2, 2)))
    if M == 2:
        result = gl.reshape(first, (W, 16, 4))
    else:
        result = one_of_each(first, W, M // 2)
    return result


@gluon.jit
def by_thread(v, W: gl.constexpr, M: gl.constexpr):
    """Return values that are equal within each thread as (W, 16, 4)."""
    return one_of_each(gl.reshape(v, (W, 16, 4, M)), W, M)


@gluon.jit
def for_threads(v, W: gl.constexpr, M: gl.constexpr):
    """Invert `by_thread`, for values in `SliceLayout(3, grouped_layout(W, M))`."""
    wide = gl.expand_dims(v, 3) + gl.zeros((W, 16, 4, M), gl.float32, grouped_layout(W, M))
    return gl.convert_layout(gl.reshape(wide, (W, 16, 4 * M)), tile_layout(W, M))


@gluon.jit
def dot_tokens(a, b, W: gl.constexpr, M: gl.constexpr):
    """Return the sums (W, 16, 4) of a b over tokens."""
    sums = gl.inline_asm_elementwise(
        dot_code(M), constraints(M, 1, 2), [a, b], dtype=gl.float32, is_pure=True, pack=M
    )
    return gl.convert_layout(by_thread(sums, W, M), gl.SliceLayout(3, grouped_layout(W, M)))


@gluon.jit
def fold(a, b, W: gl.constexpr, M: gl.constexpr, BACKWARD: gl.constexpr):
    """Return P and S of `fold_code`."""
    return gl.inline_asm_elementwise(
        fold_code(M, BACKWARD),
        constraints(M, 2, 2),
        [a, b],
        dtype=(gl.float32, gl.float32),
        is_pure=True,
        pack=M,
    )


@gluon.jit
def read_thread(memory, thread: gl.constexpr, warp: gl.constexpr, W: gl.constexpr, layout: gl.constexpr):
    """Read the values (16) of a thread of each channel."""
    values = memory.slice(thread, 1, 0).slice(warp, 1, 1).load(channel_layout(W))
    return gl.convert_layout(gl.reshape(values, (16,)), layout)


@gluon.jit
def pass_on(P, S, carry, products, ends, W: gl.constexpr, M: gl.constexpr, BACKWARD: gl.constexpr):
    """Return the states before each warp, and after all.

    `carry` (16) is the state before all warps. `products` and `ends` are shared memory (4, W, 16).
    """
    of_warp: gl.constexpr = gl.SliceLayout(2, tile_layout(W, M))
    of_channel: gl.constexpr = gl.SliceLayout(0, of_warp)
    products.store(gl.permute(by_thread(P, W, M), (2, 0, 1)))
    ends.store(gl.permute(by_thread(S, W, M), (2, 0, 1)))
    warp = gl.expand_dims(gl.arange(0, W, layout=gl.SliceLayout(1, of_warp)), 1)
    start = gl.zeros((W, 16), gl.float32, of_warp)
    for i in gl.static_range(W):
        if BACKWARD:
            start = gl.where(warp == W - 1 - i, gl.expand_dims(carry, 0), start)
            product = read_thread(products, 0, W - 1 - i, W, of_channel)
            carry = product * carry + read_thread(ends, 0, W - 1 - i, W, of_channel)
        else:
            start = gl.where(warp == i, gl.expand_dims(carry, 0), start)
            product = read_thread(products, 3, i, W, of_channel)
            carry = product * carry + read_thread(ends, 3, i, W, of_channel)
    return start, carry


@gluon.jit
def walk(a, b, carry, products, ends, W: gl.constexpr, M: gl.constexpr):
    """Return the states of a tile.

    They are those after each token, those before each thread and the one after the tile.
    """
    layout: gl.constexpr = tile_layout(W, M)
    P, S = fold(a, b, W, M, False)
    if W > 1:
        start, carry = pass_on(P, S, carry, products, ends, W, M, False)
    else:
        start = gl.expand_dims(carry, 0)
    h, before, last = gl.inline_asm_elementwise(
        walk_code(M),
        constraints(M, 3, 5),
        [a, b, P, S, gl.expand_dims(start, 2) + gl.zeros((W, 16, 4 * M), gl.float32, layout)],
        dtype=(gl.float32, gl.float32, gl.float32),
        is_pure=True,
        pack=M,
    )
    if W == 1:
        carry = gl.max(gl.max(last, 2), 0)
    return h, before, carry


@gluon.jit
def walk_back(a, b, carry, products, ends, W: gl.constexpr, M: gl.constexpr):
    """Return the gradients of the states after each token.

    The second result is the gradient that the tile passes on.
    """
    layout: gl.constexpr = tile_layout(W, M)
    P, S = fold(a, b, W, M, True)
    if W > 1:
        start, carry = pass_on(P, S, carry, products, ends, W, M, True)
    else:
        start = gl.expand_dims(carry, 0)
    dh, last = gl.inline_asm_elementwise(
        walk_back_code(M),
        constraints(M, 2, 5),
        [a, b, P, S, gl.expand_dims(start, 2) + gl.zeros((W, 16, 4 * M), gl.float32, layout)],
        dtype=(gl.float32, gl.float32),
        is_pure=True,
        pack=M,
    )
    if W == 1:
        carry = gl.max(gl.max(last, 2), 0)
    return dh, carry


@gluon.jit
def walk_again(a, b, before, W: gl.constexpr, M: gl.constexpr):
    """Return decayed states before each token, and states after it."""
    return gl.inline_asm_elementwise(
        repeat_code(M),
        constraints(M, 2, 3),
        [a, b, for_threads(before, W, M)],
        dtype=(gl.float32, gl.float32),
        is_pure=True,
        pack=M,
    )
