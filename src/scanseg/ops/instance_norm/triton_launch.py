"""Launching of the instance norm's kernels: tile sizes and grids."""

from typing import NamedTuple

import torch
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
    """Voxels and channels of a tile, and warps of its program."""

    voxels: int
    channels: int
    num_warps: int


class Passes(NamedTuple):
    """Tiles of the multi-pass kernels.

    Attributes:
        sum: Tile of the pass that sums over a chunk.
        write: Tile of the pass that writes a map.
    """

    sum: Tile
    write: Tile


class Tiles(NamedTuple):
    """Tiles of one memory format.

    Attributes:
        whole: Tiles of the single-pass kernels, by increasing voxels. The first tile that holds all voxels is used.
        narrow: Tiles of larger maps with at most as many channels as the tile.
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
COMBINE = Tile(512, 16, 8)
"""Tile that merges chunks. Its voxels are the maximum number of chunks of an instance."""
NUM_PROGRAMS = 1056
"""Target number of programs of a reduction: eight for each multiprocessor of an H100. Results depend on it."""


class _Schedule(NamedTuple):
    """Choice of kernels and tiles for a map."""

    geometry: tuple[int, int, int, int]
    """Strides of voxels and channels, then numbers of voxels and channels."""
    num_instances: int
    whole: Tile | None
    """Tile of the single-pass kernels. `None`: the map takes several passes."""
    passes: Passes

    @property
    def tiles_per_chunk(self) -> int:
        columns = self.num_instances * -(-self.geometry[3] // self.passes.sum.channels)
        wanted = max(1, min(NUM_PROGRAMS // columns, COMBINE.voxels))
        tiles = -(-self.geometry[2] // self.passes.sum.voxels)
        return -(-tiles // wanted)

    @property
    def chunk_voxels(self) -> int:
        return self.tiles_per_chunk * self.passes.sum.voxels

    @property
    def num_chunks(self) -> int:
        return -(-self.geometry[2] // self.chunk_voxels)

    @property
    def whole_grid(self) -> tuple[int, int]:
        assert self.whole is not None
        return -(-self.geometry[3] // self.whole.channels), self.num_instances

    @property
    def sum_grid(self) -> tuple[int, int, int]:
        return self.num_chunks, -(-self.geometry[3] // self.passes.sum.channels), self.num_instances

    @property
    def write_grid(self) -> tuple[int, int, int]:
        _, _, voxels, channels = self.geometry
        tile = self.passes.write
        return -(-voxels // tile.voxels), -(-channels // tile.channels), self.num_instances


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
    """Compute the norm and its statistics.

    Args:
        x: The map, dense in the memory format of `channels_last`.
        weight: Scale.
        bias: Offset.
        residual: Added before the activation, in the memory format of `x`.
        eps: Added to the variance.
        negative_slope: See `instance_norm`.
        channels_last: The memory format of all maps.

    Returns:
        The result, and mean and rstd (2, batch, channel).
    """
    schedule = _choose_schedule(x, channels_last=channels_last)
    y = torch.empty_like(x)
    stats = x.new_empty((2, *x.shape[:2]), dtype=state_dtype(x))
    slope = 0.0 if negative_slope is None else negative_slope
    flags = {"HAS_RESIDUAL": residual is not None, "ACTIVE": negative_slope is not None}
    tensors = (x, x if residual is None else residual, weight, bias, y, stats)
    if schedule.whole is not None:
        options = flags | _options(schedule.whole, x)
        launch(whole_forward_kernel, schedule.whole_grid)(*tensors, *schedule.geometry, eps, slope, **options)
        return y, stats
    partial = stats.new_empty((2, schedule.num_instances, schedule.num_chunks, x.shape[1]))
    launch(moments_kernel, schedule.sum_grid)(
        x, partial, *schedule.geometry, schedule.tiles_per_chunk, **_options(schedule.passes.sum, x)
    )
    launch(combine_moments_kernel, (-(-x.shape[1] // COMBINE.channels), schedule.num_instances))(
        partial,
        stats,
        *schedule.geometry[2:],
        schedule.num_chunks,
        schedule.chunk_voxels,
        eps,
        **_combining(x),
    )
    options = flags | _options(schedule.passes.write, x)
    launch(apply_kernel, schedule.write_grid)(*tensors, *schedule.geometry, slope, **options)
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
    """Compute the gradients of the norm.

    Args:
        grad: Gradient of the result, dense in the memory format of `channels_last`.
        x: The map, in the same memory format.
        y: The result, if the norm had a residual.
        weight: Scale.
        bias: Offset.
        stats: Mean and rstd.
        negative_slope: See `instance_norm`.
        channels_last: The memory format of all maps.

    Returns:
        The gradient of x, those of bias and weight for each instance (2, batch, channel), and that of the residual.
        The last one is empty unless the norm had a residual and an activation. Without activation it equals `grad`.
    """
    schedule = _choose_schedule(x, channels_last=channels_last)
    grad_x, sums = torch.empty_like(x), torch.empty_like(stats)
    masked = y is not None and negative_slope is not None
    g = torch.empty_like(x, dtype=grad.dtype) if masked else grad.new_empty(0)
    slope = 0.0 if negative_slope is None else negative_slope
    flags = {"HAS_RESIDUAL": y is not None, "ACTIVE": negative_slope is not None}
    tensors = (grad, x, x if y is None else y, weight, bias, stats)
    if schedule.whole is not None:
        options = flags | _options(schedule.whole, x)
        launch(whole_backward_kernel, schedule.whole_grid)(
            *tensors, grad_x, g, sums, *schedule.geometry, slope, **options
        )
        return grad_x, sums, g
    partial = stats.new_empty((2, schedule.num_instances, schedule.num_chunks, x.shape[1]))
    options = flags | _options(schedule.passes.sum, x)
    launch(gradient_sums_kernel, schedule.sum_grid)(
        *tensors, g, partial, *schedule.geometry, schedule.tiles_per_chunk, slope, **options
    )
    launch(combine_sums_kernel, (-(-x.shape[1] // COMBINE.channels), 2 * schedule.num_instances))(
        partial, sums, x.shape[1], schedule.num_chunks, **_combining(x)
    )
    options = {"ACTIVE": negative_slope is not None and not masked} | _options(schedule.passes.write, x)
    inputs = (g if masked else grad, x, weight, bias, stats, sums)
    launch(gradient_kernel, schedule.write_grid)(*inputs, grad_x, *schedule.geometry, slope, **options)
    return grad_x, sums, g


def _choose_schedule(x: Tensor, *, channels_last: bool) -> _Schedule:
    batch, channels = x.shape[:2]
    voxels = x.shape[2:].numel()
    tiles = CHANNELS_LAST if channels_last else CHANNELS_FIRST
    strides = (channels, 1) if channels_last else (1, voxels)
    fitting = [tile for tile in tiles.whole if voxels <= tile.voxels]
    return _Schedule(
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
