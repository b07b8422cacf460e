"""Gradients of a branch's parameters from partial sums, by one launch.

Kernels of norms and convolutions write one partial sum for each program. PyTorch would add them by one launch for each
parameter, and rearrange and copy the sums by others. The order of the additions is fixed, so results are bitwise
repeatable.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from scanseg.ops._support.launching import Launch

Form = Literal["plain", "taps", "decays", "repeated"]
"""`plain`: columns are the parameter. `taps`: (size * size, channel) of depthwise kernels (channel, 1, size, size), of
which smaller ones are the middle. `decays`: (4, N, dim) of (4, dim, N). `repeated`: the same for each direction."""

_NUMBERS: dict[Form, int] = {"plain": 0, "taps": 1, "decays": 2, "repeated": 3}

MOST_SOURCES = 4
"""Maximum number of matrices with partial sums."""

MOST_PLACES = 4
"""Maximum number of depthwise kernels in one matrix of taps."""

ROWS, COLUMNS = 64, 32
"""Partial sums and columns that a program reads at a time."""

SHARE_ROWS, SHARE_COLUMNS = 64, 64
"""Rows and columns that a program of `row_sums` reads at a time."""

SHARES = 1024
"""Programs of `row_sums`, which fill a GPU."""

Shapes = tuple[tuple[int, ...], ...]


class Piece(NamedTuple):
    """Columns of one matrix, the gradient of one or several parameters.

    Attributes:
        source: Number of the matrix.
        shape: Shape of the columns.
        form: See `Form`.
        sizes: Sizes of all kernels, for `taps`.
    """

    source: int
    shape: tuple[int, ...]
    form: Form = "plain"
    sizes: tuple[int, ...] = ()

    @property
    def counts(self) -> tuple[int, ...]:
        """Elements of each parameter."""
        if self.form == "taps":
            return tuple(self.shape[1] * size * size for size in self.sizes)
        return (torch.Size(self.shape).numel(),)

    @property
    def columns(self) -> int:
        """Number of columns."""
        return self.shape[1] if self.form == "repeated" else torch.Size(self.shape).numel()

    @property
    def numbers(self) -> tuple[int, int]:
        """Two sizes for the kernel."""
        if self.form == "taps":
            return max(self.sizes), self.shape[1]
        if self.form == "decays":
            return self.shape[1], self.shape[2]
        return (self.shape[0], self.shape[1]) if self.form == "repeated" else (0, 0)


class Layout:
    """Meaning of all columns of some matrices.

    Layouts are compared by identity, which takes less time than to compare their pieces in each backward pass.

    Attributes:
        pieces: The pieces. Pieces of one matrix follow each other.
        counts: Elements of each parameter.
        total: Elements of all parameters.
    """

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self.pieces = tuple(pieces)
        self.counts = [count for piece in pieces for count in piece.counts]
        self.total = sum(self.counts)


@lru_cache(maxsize=1024)
def layout_of(
    pieces: Callable[[Shapes], Sequence[Piece]], shapes: Shapes, norm_channels: int | None
) -> Layout:
    """Return the layout of the sums of a branch.

    Args:
        pieces: Returns the pieces of parameters with some shapes.
        shapes: Shapes of the parameters.
        norm_channels: Channels of the norm before the branch, whose weight and bias come last. `None`: no norm.
    """
    found = list(pieces(shapes))
    if norm_channels is not None:
        number = max([piece.source + 1 for piece in found], default=0)
        found += [Piece(number, (norm_channels,))] * 2
    return Layout(found)


def like_parameter(total: Tensor, parameter: Tensor) -> Tensor:
    """Return the sums of a parameter in its shape and dtype."""
    total = total if parameter.ndim == 1 else total.view(parameter.shape)
    return total if total.dtype == parameter.dtype else total.to(parameter.dtype)


def summed(partials: Sequence[Tensor], layout: Layout) -> Tensor:
    """Return the gradients of all parameters, one after the other.

    Args:
        partials: Partial sums, one part in each row, contiguous.
        layout: Meaning of all columns.
    """
    first = partials[0]
    dtype = first.dtype
    partials = [each if each.dtype == dtype else each.to(dtype) for each in partials]
    launch, table = _plan(layout, tuple([partial.shape for partial in partials]), dtype, first.device)
    sums = first.new_empty(layout.total)
    launch(*partials, *[first] * (MOST_SOURCES - len(partials)), sums, table)
    return sums


def row_sums(matrix: Tensor) -> Tensor:
    """Return partial sums (part, column) of a contiguous matrix over its rows.

    They are at least float32.
    """
    rows, columns = matrix.shape
    launch, shares = _row_sums_plan(rows, columns, matrix.dtype)
    wide = torch.float64 if matrix.dtype == torch.float64 else torch.float32
    parts = matrix.new_empty((shares, columns), dtype=wide)
    launch(matrix, parts)
    return parts


@lru_cache(maxsize=1024)
def _row_sums_plan(rows: int, columns: int, dtype: torch.dtype) -> tuple[Launch, int]:
    """Return the launch for a dtype, and the number of parts."""
    from scanseg.ops._support.triton_kernels import sum_rows

    tiles = -(-columns // SHARE_COLUMNS)
    shares = max(1, min(-(-rows // SHARE_ROWS), SHARES // tiles))
    constants = {"BLOCK_ROWS": SHARE_ROWS, "BLOCK": SHARE_COLUMNS}
    return Launch(sum_rows, (tiles, shares), (rows, columns), **constants, num_warps=4), shares


@lru_cache(maxsize=1024)
def _plan(layout: Layout, shapes: Shapes, dtype: torch.dtype, device: torch.device) -> tuple[Launch, Tensor]:
    """Return the launch for partial sums of some shapes, and its table."""
    from scanseg.ops._support.triton_kernels import sum_parts

    table = _table(layout, shapes, device)
    constants = {"COLUMNS": table.shape[1], "PLACES": MOST_PLACES, "BLOCK_ROWS": ROWS, "BLOCK": COLUMNS}
    return Launch(sum_parts, (len(table),), (), **constants, num_warps=4), table


def _table(layout: Layout, shapes: Shapes, device: torch.device) -> Tensor:
    """Return a row of numbers for each program."""
    sizes = [(shape[0], torch.Size(shape[1:]).numel()) for shape in shapes]
    rows: list[list[int]] = []
    starts, target = [0] * len(sizes), 0
    for piece in layout.pieces:
        places = []
        for count, size in zip(piece.counts, piece.sizes or (0,), strict=True):
            places += [target, size]
            target += count
        places += [0, 0] * (MOST_PLACES - len(places) // 2)
        head = [piece.source, *sizes[piece.source], starts[piece.source]]
        tail = [_NUMBERS[piece.form], *piece.numbers, *places]
        rows += [[*head, start, piece.columns, *tail] for start in range(0, piece.columns, COLUMNS)]
        starts[piece.source] += piece.columns
    with torch.inference_mode(mode=False):
        return torch.tensor(rows, dtype=torch.int64).to(device)
