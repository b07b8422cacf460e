"""Copies of a tile's inputs into shared memory.

They run while the program works on the tile before.

Names: see the package, `gluon_layouts` and `gluon_kernels`. Memory for two tiles has a first axis of two slots. A copy
of 4 to 16 bytes needs neighbouring elements, so maps with other numbers of channels and odd ranks are loaded instead.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy

from scanseg.ops.ss2d.gluon_blocks import last_axis
from scanseg.ops.ss2d.gluon_layouts import (
    copy_layout,
    low_layout,
    pair_layout,
    position_layout,
    right_layout,
    state_layout,
    tile_layout,
)

_start_copy = (
    async_copy.async_load if hasattr(async_copy, "async_load") else async_copy.async_copy_global_to_shared
)
"""Start a copy. Triton 3.6 has another name for it."""


@gluon.jit
def copy(memory, pointers, mask, ASYNCHRONOUS: gl.constexpr):
    """Copy a tile, with zeros where the mask is false."""
    if ASYNCHRONOUS:
        _start_copy(memory, pointers, mask)
    elif mask is None:
        memory.store(gl.load(pointers))
    else:
        memory.store(gl.load(pointers, mask=mask, other=0.0))


@gluon.jit
def by_position(v, W: gl.constexpr, M: gl.constexpr):
    """Order values of tokens (W, 4 M) by position."""
    return gl.reshape(gl.permute(gl.reshape(v, (W, 4, M)), (0, 2, 1)), (W, 4 * M))


@gluon.jit
def rows_of(positions, layout: gl.constexpr):
    """Add an axis to values of positions (W, 4 M)."""
    return gl.expand_dims(gl.convert_layout(positions, gl.SliceLayout(2, layout)), 2)


@gluon.jit
def offsets_of(positions, first, dim, W: gl.constexpr, M: gl.constexpr):
    """Return the offsets of a tile in a map, and a mask.

    The map is (token, dim), the offsets (W, 4 M, 16). The mask is true for channels that exist.
    """
    layout: gl.constexpr = copy_layout(W, 4 * M, 16, 4)
    channel = first + last_axis(16, layout)
    at = (rows_of(positions, layout) * dim + channel).to(gl.uint32)
    return at, channel < dim


@gluon.jit
def copy_map(memory, pointers, mask, WHOLE: gl.constexpr):
    """Copy a tile of a map.

    If WHOLE, all of its channels exist.
    """
    if WHOLE:
        copy(memory, pointers, None, True)
    else:
        copy(memory, pointers, mask, False)


@gluon.jit
def copy_projected(
    low, pairs, of_k, positions, R: gl.constexpr, RP: gl.constexpr, W: gl.constexpr, M: gl.constexpr
):
    """Copy dt_low, and B and C as pairs.

    The shapes are (W, 4 M, RP) and (W, 4 M, 2).
    """
    LOW: gl.constexpr = copy_layout(W, 4 * M, RP, 2)
    PAIRS: gl.constexpr = copy_layout(W, 4 * M, 2, 2)
    r = last_axis(RP, LOW)
    at = rows_of(positions, LOW) * (4 * (R + 2)) + r
    copy(low, of_k + at, r < R, R % 2 == 0)
    at = rows_of(positions, PAIRS) * (4 * (R + 2)) + (R + last_axis(2, PAIRS))
    copy(pairs, of_k + at, None, R % 2 == 0)


@gluon.jit
def copy_states(memory, states, group, groups, first, dim, W: gl.constexpr, WHOLE: gl.constexpr):
    """Copy the states (W, 4, 16) before the threads.

    `states` points to the states of a direction, and `group` is the number of the first one.
    """
    layout: gl.constexpr = state_layout(W)
    warp = gl.arange(0, W, layout=gl.SliceLayout(1, gl.SliceLayout(2, layout)))
    thread = gl.arange(0, 4, layout=gl.SliceLayout(0, gl.SliceLayout(2, layout)))
    number = group + gl.expand_dims(gl.expand_dims(warp, 1) * 4 + gl.expand_dims(thread, 0), 2)
    channel = first + last_axis(16, layout)
    copy(memory, states + number * dim + channel, (number < groups) & (channel < dim), WHOLE)


@gluon.jit
def copy_inputs(
    memory,
    slot,
    x,
    of_k,
    sums,
    sweep,
    place,
    first,
    dim,
    R: gl.constexpr,
    RP: gl.constexpr,
    W: gl.constexpr,
    M: gl.constexpr,
    WHOLE: gl.constexpr,
):
    """Copy a tile of the map, its projections and earlier sums.

    The first direction has no earlier sums. `memory` holds two tiles of the map, dt_low, B and C, and the sums.
    """
    values, low, pairs, earlier = memory
    positions = by_position(place, W, M)
    at, mask = offsets_of(positions, first, dim, W, M)
    copy_projected(low.index(slot), pairs.index(slot), of_k, positions, R, RP, W, M)
    copy_map(values.index(slot), x + at, mask, WHOLE)
    if sweep != 0:
        copy_map(earlier.index(slot), sums + at, mask, WHOLE)


@gluon.jit
def copy_upstream(
    grads,
    before,
    slot,
    grad,
    states,
    group,
    groups,
    place,
    first,
    dim,
    W: gl.constexpr,
    M: gl.constexpr,
    WHOLE: gl.constexpr,
):
    """Copy a tile of the upstream gradient, and its states."""
    at, mask = offsets_of(by_position(place, W, M), first, dim, W, M)
    copy_map(grads.index(slot), grad + at, mask, WHOLE)
    copy_states(before.index(slot), states, group, groups, first, dim, W, WHOLE)


@gluon.jit
def read_map(memory, W: gl.constexpr, M: gl.constexpr):
    """Read a tile of a map."""
    tile = gl.permute(gl.reshape(memory.load(position_layout(W, M)), (W, M, 4, 16)), (0, 3, 2, 1))
    return gl.convert_layout(gl.reshape(tile, (W, 16, 4 * M)), tile_layout(W, M)).to(gl.float32)


@gluon.jit
def read_pairs(memory, exists, W: gl.constexpr, M: gl.constexpr):
    """Read B and C, (W, 1, 4 M).

    They are zero for tokens that do not exist.
    """
    B, C = gl.split(memory.load(pair_layout(W, M)))
    return _of_tokens(B, exists, W, M), _of_tokens(C, exists, W, M)


@gluon.jit
def _of_tokens(v, exists, W: gl.constexpr, M: gl.constexpr):
    v = gl.reshape(gl.permute(gl.reshape(v, (W, M, 4)), (0, 2, 1)), (W, 4 * M))
    v = gl.expand_dims(gl.convert_layout(v, gl.SliceLayout(1, tile_layout(W, M))), 1)
    return gl.where(exists, v.to(gl.float32), 0.0)


@gluon.jit
def read_low(memory, R: gl.constexpr, RP: gl.constexpr, W: gl.constexpr, M: gl.constexpr):
    """Read dt_low (W, RP, 4 M) for `expand`.

    Row R is one.
    """
    layout: gl.constexpr = low_layout(W, M, RP)
    low = memory.load(layout)
    low = gl.where(last_axis(RP, layout) == R, gl.full_like(low, 1.0), low)
    low = gl.permute(gl.reshape(low, (W, M // 2, 2, 4, RP)), (0, 4, 1, 3, 2))
    return gl.convert_layout(gl.reshape(low, (W, RP, 4 * M)), right_layout(W))


@gluon.jit
def read_states(memory, W: gl.constexpr):
    """Read the states before the threads, (W, 16, 4)."""
    return gl.permute(memory.load(state_layout(W)), (0, 2, 1))
