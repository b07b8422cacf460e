"""Launching of the depthwise kernels: tile sizes, grids and partial sums.

Maps are (batch, height, width, channel), contiguous.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from scanseg.ops._support.launching import Launch
from scanseg.ops._support.triton import INTERPRETED


class Tile(NamedTuple):
    """Division of a kernel's work into programs.

    Attributes:
        vector: Neighbouring channels of a thread. Larger numbers would spill registers.
        group: Rows with loads issued together.
        warps: Warps of a program.
        channels: Channels of a program, if they divide the channels of the map.
        programs: Target number of programs. Maps are cut into strips of rows to reach it. In the backward pass a
            program takes several strips, for fewer partial sums.
    """

    vector: int
    group: int
    warps: int = 4
    channels: int = 64
    programs: int = 1056


FORWARD = {1: Tile(4, 4), 3: Tile(4, 3), 5: Tile(2, 4), 7: Tile(1, 3)}
"""Tiles of the convolution by kernel size, for an H100 with 132 multiprocessors."""

BACKWARD = {
    1: Tile(4, 4, programs=528),
    3: Tile(4, 3, programs=528),
    5: Tile(2, 2, programs=528),
    7: Tile(1, 1, programs=528),
}
"""Tiles of the gradients by kernel size."""

SHORTEST_STRIP = 7
"""Smallest number of rows of a strip. Shorter strips would mostly load rows of their neighbours."""


class Before(NamedTuple):
    """Normalization before the convolution: `relu((x - mean) * scale + shift)`.

    Each tensor has one number per channel.
    """

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
    shape: tuple[int, ...] | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Convolve the map.

    Args:
        x: The map.
        taps: Kernels, (size * size, channel), contiguous.
        bias: One number per channel. `None`: no bias.
        before: Normalization of the map before the convolution. `None`: none.
        silu: Whether SiLU is applied to the result.
        residual: Whether the map (after `before`) is added to its convolution.
        save_pre: Whether to return the result before SiLU too.
        tile: Division of the work. `None`: the one in `FORWARD`.
        shape: Shape of the map, if maps are matrices (pixel, channel). `None`: that of `x`.

    Returns:
        The result and the result before SiLU (`None` if it is not kept), in the dtype of the map.
    """
    keeps = silu and save_pre
    tensors = (taps, taps if bias is None else bias, *(before or ()))
    dtypes = (x.dtype, *[tensor.dtype for tensor in tensors])
    plan = _plan(
        shape or x.shape,
        dtypes,
        taps.shape[0],
        bias is not None,
        before is not None,
        silu,
        keeps,
        residual,
        tile,
    )
    out = torch.empty_like(x)
    pre = torch.empty_like(x) if keeps else None
    plan(
        x,
        taps,
        x if bias is None else bias.contiguous(),
        *(before or (x, x, x)),
        out,
        out if pre is None else pre,
    )
    return out, pre


@lru_cache(maxsize=1024)
def _plan(
    shape: tuple[int, ...],
    dtypes: tuple[torch.dtype, ...],
    num_taps: int,
    has_bias: bool,  # noqa: FBT001 (arguments by position take less time)
    normed: bool,  # noqa: FBT001
    silu: bool,  # noqa: FBT001
    save_pre: bool,  # noqa: FBT001
    residual: bool,  # noqa: FBT001
    tile: Tile | None,
) -> Launch:
    """Return the launch of the convolution for maps of one shape."""
    from scanseg.ops.depthwise.triton_kernels import convolve_maps

    size = math.isqrt(num_taps)
    tile = tile or FORWARD[size]
    grid = _grid(shape, tile)
    _, height, width, channels = shape
    strips = max(1, min(-(-tile.programs // (grid.blocks * grid.tiles)), height // SHORTEST_STRIP))
    strip = -(-height // strips)
    return Launch(
        convolve_maps,
        (grid.blocks * grid.tiles, -(-height // strip)),
        (grid.columns, height, width, channels, strip),
        K=size,
        INPUT="norm_relu" if normed else "none",
        HAS_BIAS=has_bias,
        SILU=silu,
        SAVE_PRE=save_pre,
        RESIDUAL=residual,
        GROUP=tile.group,
        BLOCK_COLUMNS=grid.block_columns,
        BLOCK_CHANNELS=grid.block_channels,
        ACC=_accumulator(dtypes[0]),
        num_warps=tile.warps,
    )


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
    in_parts: bool = False,
    shape: tuple[int, ...] | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute the gradients of the map and of the parameters.

    The gradients of the parameters have the dtype of accumulation.

    Args:
        grad: Gradient of the result.
        x: The map.
        pre: The result before SiLU. `None` without SiLU.
        taps: Kernels, (size * size, channel), contiguous.
        before: Normalization of the map before the convolution. `None`: none. With a normalization, the returned
            gradient of the map is that of (x - mean) * scale + shift.
        gelu: Whether GELU is applied to the map before the convolution.
        has_bias: Whether to compute the gradient of a bias.
        residual: Whether the map is added to its convolution.
        tile: Division of the work. `None`: the one in `BACKWARD`.
        in_parts: Return partial sums (part, row, channel) for the parameters.
        shape: See `convolve`.

    Returns:
        The gradient of the map, and rows of one number per channel: the gradients of the taps, then the gradient of
        the bias if it exists. With `before`, two more rows follow: the sum of the gradient after it, where ReLU is
        active, and the sum of this gradient times (x - mean).
    """
    tensors = (grad, taps, taps if pre is None else pre, *(before or ()))
    dtypes = (x.dtype, *[tensor.dtype for tensor in tensors])
    plan, parts, slots = _gradient_plan(
        shape or x.shape,
        dtypes,
        taps.shape[0],
        pre is not None,
        before is not None,
        gelu,
        has_bias,
        residual,
        tile,
    )
    grad_x = torch.empty_like(x)
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    partial = torch.empty((parts, slots, taps.shape[1]), dtype=wide, device=x.device)
    plan(grad, x, x if pre is None else pre, taps, *(before or (x, x, x)), grad_x, partial)
    return grad_x, partial if in_parts else partial.sum(0)


@lru_cache(maxsize=1024)
def _gradient_plan(
    shape: tuple[int, ...],
    dtypes: tuple[torch.dtype, ...],
    num_taps: int,
    silu: bool,  # noqa: FBT001 (arguments by position take less time)
    normed: bool,  # noqa: FBT001
    gelu: bool,  # noqa: FBT001
    has_bias: bool,  # noqa: FBT001
    residual: bool,  # noqa: FBT001
    tile: Tile | None,
) -> tuple[Launch, int, int]:
    """Return the launch of the gradients, and two sizes.

    They are the number of partial sums, and the number of rows of each.
    """
    from scanseg.ops.depthwise.triton_kernels import convolve_maps_gradients

    size = math.isqrt(num_taps)
    tile = tile or BACKWARD[size]
    grid = _grid(shape, tile)
    _, height, width, channels = shape
    strips = max(1, min(-(-tile.programs // (grid.blocks * grid.tiles)), height // SHORTEST_STRIP))
    strip = -(-height // strips)
    strips = -(-height // strip)
    programs = min(grid.tiles * strips, -(-tile.programs // grid.blocks))
    launch = Launch(
        convolve_maps_gradients,
        (grid.blocks * programs,),
        (grid.columns, height, width, channels, strip, strips, grid.tiles * strips, programs),
        K=size,
        INPUT="norm_relu" if normed else "gelu" if gelu else "none",
        HAS_BIAS=has_bias,
        SILU=silu,
        RESIDUAL=residual,
        GROUP=tile.group,
        BLOCK_COLUMNS=grid.block_columns,
        BLOCK_CHANNELS=grid.block_channels,
        ACC=_accumulator(dtypes[0]),
        num_warps=tile.warps,
    )
    return launch, programs, size * size + int(has_bias) + (2 if normed else 0)


def _grid(shape: tuple[int, ...], tile: Tile) -> _Grid:
    """Divide the columns of all images and the channels into tiles."""
    batch, _, width, channels = shape
    block_channels = tile.channels if channels % tile.channels == 0 else 32
    block_columns = tile.vector * 32 * tile.warps // block_channels
    if INTERPRETED:  # its time depends on the number of programs
        block_channels, block_columns = 16, 32
    columns = batch * width
    return _Grid(
        columns, block_columns, block_channels, -(-channels // block_channels), -(-columns // block_columns)
    )


def _accumulator(dtype: torch.dtype) -> object:
    """Return Triton's dtype for sums."""
    import triton.language as tl

    return tl.float64 if dtype == torch.float64 else tl.float32
