"""Triton kernels that convert parameters and sum their gradients.

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
    ELEMENTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Convert a part of one parameter.

    Forms: 0 in another dtype, 1 taps of depthwise kernels, 2 decays, 3 sums over directions (see `Wanted`).
    """
    row = rows + tl.program_id(0) * COLUMNS
    form = tl.load(row)
    target = tl.load(row + 1)
    first = tl.load(row + 2).to(tl.int32)
    end = tl.load(row + 3).to(tl.int32)
    major = tl.load(row + 4).to(tl.int32)
    minor = tl.load(row + 5).to(tl.int32)
    source = tl.load(row + 6).to(tl.pointer_type(tl.float32))
    for start in range(0, ELEMENTS, BLOCK):
        i = first + start + tl.arange(0, BLOCK)
        within = i < end
        if form == 0:
            value = tl.load(source + i, mask=within, other=0.0)
            tl.store(target.to(tl.pointer_type(CAST)) + i, value.to(CAST), mask=within)
        else:
            total = tl.zeros((BLOCK,), tl.float32)
            if form == 1:  # major: size of the square of taps, minor: channels
                channel, tap = i % minor, i // minor
                for j in tl.static_range(SOURCES):
                    size = tl.load(row + 7 + 2 * j).to(tl.int32)
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


@triton.jit(do_not_specialize=["rows"])
def sum_rows(
    matrix,  # (row, column)
    parts,  # result: partial sums (share, column)
    rows,
    columns,
    BLOCK_ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Sum a share of the rows of a matrix in fixed order.

    Grid: (column tiles, shares).
    """
    share = tl.program_id(1)
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    within = column < columns
    total = tl.zeros((BLOCK_ROWS, BLOCK), parts.dtype.element_ty)
    for start in range(share * BLOCK_ROWS, rows, tl.num_programs(1) * BLOCK_ROWS):
        row = start + tl.arange(0, BLOCK_ROWS)
        at = row.to(tl.int64)[:, None] * columns + column[None, :]
        mask = (row < rows)[:, None] & within[None, :]
        total += tl.load(matrix + at, mask=mask, other=0.0).to(parts.dtype.element_ty)
    tl.store(parts + share * columns + column, tl.sum(total, axis=0), mask=within)


@triton.jit
def sum_parts(
    first,  # partial sums, each a matrix (part, column)
    second,
    third,
    fourth,
    sums,  # result: the gradients of all parameters, one after the other
    table,  # (program, COLUMNS) numbers, see `Piece`
    COLUMNS: tl.constexpr,
    PLACES: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Sum some columns of one matrix in fixed order.

    The sums are written in the layout of the parameters.
    """
    row = table + tl.program_id(0) * COLUMNS
    source = tl.load(row)
    parts = first
    if source == 1:
        parts = second
    elif source == 2:
        parts = third
    elif source == 3:
        parts = fourth
    rows = tl.load(row + 1)
    stride = tl.load(row + 2)
    column = tl.load(row + 4) + tl.arange(0, BLOCK)
    within = column < tl.load(row + 5)
    form = tl.load(row + 6)
    major = tl.load(row + 7)
    minor = tl.load(row + 8)
    parts += tl.load(row + 3)
    total = tl.zeros((BLOCK_ROWS, BLOCK), sums.dtype.element_ty)
    for start in range(0, rows, BLOCK_ROWS):
        part = start + tl.arange(0, BLOCK_ROWS)
        mask = (part < rows)[:, None] & within[None, :]
        total += tl.load(parts + part[:, None] * stride + column[None, :], mask=mask, other=0.0)
    result = tl.sum(total, axis=0)
    if form == 0:
        tl.store(sums + tl.load(row + 9) + column, result, mask=within)
    elif form == 1:  # taps (major * major, minor) of kernels (minor, 1, size, size)
        channel, tap = column % minor, column // minor
        for place in tl.static_range(PLACES):
            size = tl.load(row + 10 + 2 * place)
            margin = (major - size) // 2
            y, x = tap // major - margin, tap % major - margin
            inside = within & (y >= 0) & (y < size) & (x >= 0) & (x < size)
            target = tl.load(row + 9 + 2 * place) + (channel * size + y) * size + x
            tl.store(sums + target, result, mask=inside)
    elif form == 2:  # (direction, major, minor) of (direction, minor, major)
        target = ((column // (major * minor)) * minor + column % minor) * major + (column // minor) % major
        tl.store(sums + tl.load(row + 9) + target, result, mask=within)
    else:  # the same for `major` directions, each with `minor` numbers
        for direction in range(major):
            tl.store(sums + tl.load(row + 9) + direction * minor + column, result, mask=within)
