"""Launching the kernels of the depthwise convolution: tile sizes, grids, and the adding up of partial sums.

Maps are (batch, height, width, channel), contiguous.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from scanseg.ops._support.launching import launch
from scanseg.ops._support.triton import INTERPRETED


class Tile(NamedTuple):
    """How a kernel divides its work.

    Attributes:
        vector: Neighbouring channels of a thread; larger ones would spill.
        group: Rows whose loads are issued together.
        warps: Warps of a program.
        channels: Channels of a program, where they divide those of the map.
        programs: Programs to aim at, by cutting maps into strips of rows; backward also by taking several strips, so
            that there are fewer partial sums.
    """

    vector: int
    group: int
    warps: int = 4
    channels: int = 64
    programs: int = 1056


FORWARD = {1: Tile(4, 4), 3: Tile(4, 3), 5: Tile(2, 4), 7: Tile(1, 3)}
"""Tiles of the convolution by size of its kernel, for an H100 with its 132 multiprocessors."""

BACKWARD = {
    1: Tile(4, 4, programs=528),
    3: Tile(4, 3, programs=528),
    5: Tile(2, 2, programs=528),
    7: Tile(1, 1, programs=528),
}
"""Tiles of its gradients."""

SHORTEST_STRIP = 7
"""Rows: below, strips would load mostly the rows of their neighbours."""


class Before(NamedTuple):
    """What stands before the convolution: `relu((x - mean) * scale + shift)`; each has one number a channel."""

    mean: Tensor
    scale: Tensor
    shift: Tensor


class _Grid(NamedTuple):
    columns: int
    block_columns: int
    block_channels: int
    blocks: int
    tiles: int


def convolve(
    x: Tensor,
    taps: Tensor,
    bias: Tensor | None,
    *,
    before: Before | None,
    silu: bool,
    residual: bool,
    save_pre: bool,
    tile: Tile | None = None,
) -> tuple[Tensor, Tensor]:
    """Convolve the map.

    Args:
        x: The map.
        taps: Kernels, (size * size, channel), contiguous.
        bias: One number a channel, or None.
        before: What is applied to the map first, or None.
        silu: Whether SiLU is applied to the result.
        residual: Whether the map (after `before`) is added to its convolution.
        save_pre: Whether the result before SiLU is returned too.
        tile: How the work is divided; None for the table's way.

    Returns:
        The result and the result before SiLU (empty where it is not kept), in the dtype of the map.
    """
    import triton

    from scanseg.ops.depthwise.triton_kernels import convolve_maps

    size = math.isqrt(taps.shape[0])
    tile = tile or FORWARD[size]
    grid = _grid(x, tile)
    height = x.shape[1]
    strips = max(1, min(triton.cdiv(tile.programs, grid.blocks * grid.tiles), height // SHORTEST_STRIP))
    out = torch.empty_like(x)
    pre = torch.empty_like(x) if silu and save_pre else x.new_empty(0)
    strip = triton.cdiv(height, strips)
    with torch.cuda.device_of(x):
        launch(convolve_maps, (grid.blocks * grid.tiles, triton.cdiv(height, strip)))(
            x,
            taps,
            x if bias is None else bias.contiguous(),
            *(before or (x, x, x)),
            out,
            pre,
            grid.columns,
            height,
            x.shape[2],
            x.shape[3],
            strip,
            K=size,
            INPUT="norm_relu" if before else "none",
            HAS_BIAS=bias is not None,
            SILU=silu,
            SAVE_PRE=pre.numel() > 0,
            RESIDUAL=residual,
            GROUP=tile.group,
            BLOCK_COLUMNS=grid.block_columns,
            BLOCK_CHANNELS=grid.block_channels,
            ACC=_accumulator(x),
            num_warps=tile.warps,
        )
    return out, pre


def gradients(
    grad: Tensor,
    x: Tensor,
    pre: Tensor | None,
    taps: Tensor,
    *,
    before: Before | None,
    gelu: bool,
    has_bias: bool,
    residual: bool,
    tile: Tile | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the gradient of the map, and those of the parameters, in the dtype of accumulation.

    Args:
        grad: Gradient of the result.
        x: The map.
        pre: The result before SiLU; None without SiLU.
        taps: Kernels, (size * size, channel), contiguous.
        before: What is applied to the map first, or None. The gradient returned for the map is then that of
            (x - mean) * scale + shift.
        gelu: Whether GELU is applied to the map first.
        has_bias: Whether the gradient of a bias is wanted.
        residual: Whether the map is added to its convolution.
        tile: How the work is divided; None for the table's way.

    Returns:
        The gradient of the map, and rows of one number a channel: the gradients of the taps; with a bias its own; with
        `before` the sum of the gradient after it, where that is not 0, and the sum of this times (x - mean).
    """
    import triton

    from scanseg.ops.depthwise.triton_kernels import convolve_maps_gradients

    size = math.isqrt(taps.shape[0])
    tile = tile or BACKWARD[size]
    grid = _grid(x, tile)
    height = x.shape[1]
    strips = max(1, min(triton.cdiv(tile.programs, grid.blocks * grid.tiles), height // SHORTEST_STRIP))
    strip = triton.cdiv(height, strips)
    strips = triton.cdiv(height, strip)
    programs = min(grid.tiles * strips, triton.cdiv(tile.programs, grid.blocks))
    grad_x = torch.empty_like(x)
    slots = size * size + int(has_bias) + (2 if before else 0)
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    partial = x.new_empty((programs, slots, x.shape[3]), dtype=wide)
    with torch.cuda.device_of(x):
        launch(convolve_maps_gradients, (grid.blocks * programs,))(
            grad,
            x,
            x if pre is None else pre,
            taps,
            *(before or (x, x, x)),
            grad_x,
            partial,
            grid.columns,
            height,
            x.shape[2],
            x.shape[3],
            strip,
            strips,
            grid.tiles * strips,
            programs,
            K=size,
            INPUT="norm_relu" if before else "gelu" if gelu else "none",
            HAS_BIAS=has_bias,
            SILU=pre is not None,
            RESIDUAL=residual,
            GROUP=tile.group,
            BLOCK_COLUMNS=grid.block_columns,
            BLOCK_CHANNELS=grid.block_channels,
            ACC=_accumulator(x),
            num_warps=tile.warps,
        )
    return grad_x, partial.sum(0)


def _grid(x: Tensor, tile: Tile) -> _Grid:
    """Divide columns of all images, and channels, into tiles."""
    batch, _, width, channels = x.shape
    block_channels = tile.channels if channels % tile.channels == 0 else 32
    block_columns = tile.vector * 32 * tile.warps // block_channels
    if INTERPRETED:  # its time is that of the number of programs
        block_channels, block_columns = 16, 32
    columns = batch * width
    return _Grid(
        columns, block_columns, block_channels, -(-channels // block_channels), -(-columns // block_columns)
    )


def _accumulator(x: Tensor) -> object:
    """Return Triton's name of the dtype in which sums are kept."""
    import triton.language as tl

    return tl.float64 if x.dtype == torch.float64 else tl.float32
