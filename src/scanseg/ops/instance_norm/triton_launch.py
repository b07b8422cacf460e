"""Launching the instance norm's kernels: the one table of tile sizes, and the grids that follow from a map's shape."""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from scanseg.ops._support.contract import state_dtype
from scanseg.ops._support.launching import launch
from scanseg.ops.instance_norm.triton_gradient_kernels import (
    combine_sums_kernel,
    gradient_kernel,
    gradient_sums_kernel,
    whole_backward_kernel,
)
from scanseg.ops.instance_norm.triton_kernels import (
    apply_kernel,
    combine_moments_kernel,
    moments_kernel,
    whole_forward_kernel,
)


class Tile(NamedTuple):
    """Voxels and channels of a tile, and the warps that work on it."""

    voxels: int
    channels: int
    num_warps: int


class Passes(NamedTuple):
    """The tiles of the general way: of the pass that sums over a chunk, and of the pass that writes a map."""

    sum: Tile
    write: Tile


class Tiles(NamedTuple):
    """The tiles of one memory format.

    Attributes:
        whole: Tiles of the small way, by rising voxels: the first that holds all voxels serves.
        narrow: Tiles of larger maps with no more channels than they.
        wide: Tiles of larger maps with more channels.
    """

    whole: tuple[Tile, ...]
    narrow: Passes
    wide: Passes


CHANNELS_LAST = Tiles(
    whole=(Tile(128, 16, 4), Tile(1024, 16, 16)),
    narrow=Passes(sum=Tile(128, 32, 4), write=Tile(256, 32, 8)),
    wide=Passes(sum=Tile(64, 64, 4), write=Tile(128, 64, 8)),
)
CHANNELS_FIRST = Tiles(
    whole=(Tile(128, 8, 4), Tile(1024, 4, 8)),
    narrow=Passes(sum=Tile(4096, 1, 8), write=Tile(4096, 1, 8)),
    wide=Passes(sum=Tile(4096, 1, 8), write=Tile(4096, 1, 8)),
)
COMBINE = Tile(256, 16, 8)
"""Tile that merges chunks: its voxels are the most chunks that an instance may have."""
NUM_PROGRAMS = 1056
"""Programs that a reduction aims at: eight for each multiprocessor of an H100. The result depends on it."""


class _Way(NamedTuple):
    """How a map is gone through."""

    geometry: tuple[int, int, int, int]
    """Strides of voxels and channels, numbers of voxels and channels."""
    num_instances: int
    whole: Tile | None
    """The tile of the small way, if it is taken."""
    passes: Passes

    @property
    def tiles_per_chunk(self) -> int:
        columns = self.num_instances * triton.cdiv(self.geometry[3], self.passes.sum.channels)
        wanted = max(1, min(NUM_PROGRAMS // columns, COMBINE.voxels))
        return triton.cdiv(triton.cdiv(self.geometry[2], self.passes.sum.voxels), wanted)

    @property
    def chunk_voxels(self) -> int:
        return self.tiles_per_chunk * self.passes.sum.voxels

    @property
    def num_chunks(self) -> int:
        return triton.cdiv(self.geometry[2], self.chunk_voxels)

    @property
    def whole_grid(self) -> tuple[int, int]:
        assert self.whole is not None
        return triton.cdiv(self.geometry[3], self.whole.channels), self.num_instances

    @property
    def sum_grid(self) -> tuple[int, int, int]:
        return self.num_chunks, triton.cdiv(self.geometry[3], self.passes.sum.channels), self.num_instances

    @property
    def write_grid(self) -> tuple[int, int, int]:
        _, _, voxels, channels = self.geometry
        tile = self.passes.write
        return triton.cdiv(voxels, tile.voxels), triton.cdiv(channels, tile.channels), self.num_instances


def normalise(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    residual: Tensor | None,
    *,
    eps: float,
    negative_slope: float | None,
    channels_last: bool,
) -> tuple[Tensor, Tensor]:
    """Return the result and (2, batch, channel) mean and rstd; `x` and `residual` are dense in the format named."""
    way = _choose_way(x, channels_last=channels_last)
    y = torch.empty_like(x)
    stats = x.new_empty((2, *x.shape[:2]), dtype=state_dtype(x))
    slope = 0.0 if negative_slope is None else negative_slope
    flags = {"HAS_RESIDUAL": residual is not None, "ACTIVE": negative_slope is not None}
    tensors = (x, x if residual is None else residual, weight, bias, y, stats)
    if way.whole is not None:
        options = flags | _options(way.whole, x)
        launch(whole_forward_kernel, way.whole_grid)(*tensors, *way.geometry, eps, slope, **options)
        return y, stats
    partial = stats.new_empty((2, way.num_instances, way.num_chunks, x.shape[1]))
    launch(moments_kernel, way.sum_grid)(
        x, partial, *way.geometry, way.tiles_per_chunk, **_options(way.passes.sum, x)
    )
    launch(combine_moments_kernel, (triton.cdiv(x.shape[1], COMBINE.channels), way.num_instances))(
        partial, stats, *way.geometry[2:], way.num_chunks, way.chunk_voxels, eps, **_combining(x)
    )
    options = flags | _options(way.passes.write, x)
    launch(apply_kernel, way.write_grid)(*tensors, *way.geometry, slope, **options)
    return y, stats


def gradients(
    grad: Tensor,
    x: Tensor,
    y: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    stats: Tensor,
    *,
    negative_slope: float | None,
    channels_last: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, of (bias, weight) for each instance (2, batch, channel), and of the residual.

    Args:
        grad: Gradient of the result, dense in the format named.
        x: The map, dense in the format named.
        y: The result, where there was a residual.
        weight: Scale.
        bias: Offset.
        stats: Mean and rstd.
        negative_slope: See `instance_norm`.
        channels_last: The memory format of all maps.

    Returns:
        The last is empty unless there are a residual and an activation (else it is `grad`, or nobody's).
    """
    way = _choose_way(x, channels_last=channels_last)
    grad_x, sums = torch.empty_like(x), torch.empty_like(stats)
    masked = y is not None and negative_slope is not None
    g = torch.empty_like(x, dtype=grad.dtype) if masked else grad.new_empty(0)
    slope = 0.0 if negative_slope is None else negative_slope
    flags = {"HAS_RESIDUAL": y is not None, "ACTIVE": negative_slope is not None}
    tensors = (grad, x, x if y is None else y, weight, bias, stats)
    if way.whole is not None:
        options = flags | _options(way.whole, x)
        launch(whole_backward_kernel, way.whole_grid)(
            *tensors, grad_x, g, sums, *way.geometry, slope, **options
        )
        return grad_x, sums, g
    partial = stats.new_empty((2, way.num_instances, way.num_chunks, x.shape[1]))
    options = flags | _options(way.passes.sum, x)
    launch(gradient_sums_kernel, way.sum_grid)(
        *tensors, g, partial, *way.geometry, way.tiles_per_chunk, slope, **options
    )
    launch(combine_sums_kernel, (triton.cdiv(x.shape[1], COMBINE.channels), 2 * way.num_instances))(
        partial, sums, x.shape[1], way.num_chunks, **_combining(x)
    )
    options = {"ACTIVE": negative_slope is not None and not masked} | _options(way.passes.write, x)
    inputs = (g if masked else grad, x, weight, bias, stats, sums)
    launch(gradient_kernel, way.write_grid)(*inputs, grad_x, *way.geometry, slope, **options)
    return grad_x, sums, g


def _choose_way(x: Tensor, *, channels_last: bool) -> _Way:
    batch, channels = x.shape[:2]
    voxels = x.shape[2:].numel()
    tiles = CHANNELS_LAST if channels_last else CHANNELS_FIRST
    strides = (channels, 1) if channels_last else (1, voxels)
    fitting = [tile for tile in tiles.whole if voxels <= tile.voxels]
    return _Way(
        geometry=(*strides, voxels, channels),
        num_instances=batch,
        whole=fitting[0] if fitting else None,
        passes=tiles.narrow if channels <= tiles.narrow.sum.channels else tiles.wide,
    )


def _accumulate(x: Tensor) -> tl.dtype:
    return tl.float64 if x.dtype == torch.float64 else tl.float32


def _options(tile: Tile, x: Tensor) -> dict[str, object]:
    return {
        "BLOCK_V": tile.voxels,
        "BLOCK_C": tile.channels,
        "ACCUMULATE": _accumulate(x),
        "num_warps": tile.num_warps,
    }


def _combining(x: Tensor) -> dict[str, object]:
    return {
        "BLOCK_K": COMBINE.voxels,
        "BLOCK_C": COMBINE.channels,
        "ACCUMULATE": _accumulate(x),
        "num_warps": COMBINE.num_warps,
    }
