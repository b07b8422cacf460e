"""Triton kernel that converts all parameters of a network.

This module imports Triton, so only functions that need its kernels at once may import it.
"""

import triton
import triton.language as tl


@triton.jit
def convert_weights(
    rows,  # (program, COLUMNS) numbers: form, target, first element, elements, two sizes, sources with a size each
    COLUMNS: tl.constexpr,
    SOURCES: tl.constexpr,
    CAST: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Convert a part of one parameter.

    Forms: 0 in another dtype, 1 taps of depthwise kernels, 2 decays, 3 sums over directions (see `Converted`).
    """
    row = rows + tl.program_id(0) * COLUMNS
    form = tl.load(row)
    target = tl.load(row + 1)
    i = tl.load(row + 2) + tl.arange(0, BLOCK)
    within = i < tl.load(row + 3)
    major = tl.load(row + 4)
    minor = tl.load(row + 5)
    source = tl.load(row + 6).to(tl.pointer_type(tl.float32))
    if form == 0:
        tl.store(target.to(tl.pointer_type(CAST)) + i, tl.load(source + i, mask=within).to(CAST), mask=within)
    else:
        total = tl.zeros((BLOCK,), tl.float32)
        if form == 1:  # major: size of the square of taps, minor: channels
            channel, tap = i % minor, i // minor
            for j in tl.static_range(SOURCES):
                size = tl.load(row + 7 + 2 * j)
                margin = (major - size) // 2
                y, x = tap // major - margin, tap % major - margin
                inside = within & (y >= 0) & (y < size) & (x >= 0) & (x < size)
                part = tl.load(row + 6 + 2 * j).to(tl.pointer_type(tl.float32))
                total += tl.load(part + (channel * size + y) * size + x, mask=inside, other=0.0)
        elif form == 2:  # major: N, minor: dim
            place = ((i // (major * minor)) * minor + i % minor) * major + (i // minor) % major
            total -= tl.exp(tl.load(source + place, mask=within, other=0.0))
        else:  # major: directions, minor: dim
            for k in range(major):
                total += tl.load(source + k * minor + i, mask=within, other=0.0)
        tl.store(target.to(tl.pointer_type(tl.float32)) + i, total, mask=within)
