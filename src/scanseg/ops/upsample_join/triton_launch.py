"""Launching of the upsampling kernels: tile sizes and grids."""

from collections.abc import Sequence

import torch
import triton.language as tl
from torch import Tensor

from scanseg.ops._support.launching import launch
from scanseg.ops.upsample_join.triton_kernels import lower_kernel, raise_kernel

TILES = {32: (128, 32, 4), 64: (64, 64, 4)}
"""Voxels, channels and warps of a tile, by the maximum number of channels. Wider maps use the last tile."""


def write_raised(x: Tensor, joined: Tensor, *, first_channel: int, factors: Sequence[int]) -> None:
    """Write a repeated map into channels of another map.

    Args:
        x: The map, channels-last.
        joined: The map to write into, channels-last.
        first_channel: First channel to write.
        factors: Output voxels for each input voxel, per axis.
    """
    batch, channels = x.shape[:2]
    block_v, block_c, num_warps = _tile(channels)
    voxels = joined.shape[2:].numel()
    dz, dy, dx = _three(factors)
    launch(raise_kernel, (-(-voxels // block_v), -(-channels // block_c), batch))(
        x,
        joined,
        voxels,
        channels,
        first_channel,
        joined.shape[1],
        *joined.shape[-2:],
        DZ=dz,
        DY=dy,
        DX=dx,
        BLOCK_V=block_v,
        BLOCK_C=block_c,
        num_warps=num_warps,
    )


def sum_lowered(joined: Tensor, lowered: Tensor, *, first_channel: int, factors: Sequence[int]) -> None:
    """Sum the fine voxels of each coarse voxel.

    Args:
        joined: The map to read, channels-last.
        lowered: The sums, a channels-last map.
        first_channel: First channel to read.
        factors: Fine voxels for each coarse voxel, per axis.
    """
    batch, channels = lowered.shape[:2]
    block_v, block_c, num_warps = _tile(channels)
    voxels = lowered.shape[2:].numel()
    dz, dy, dx = _three(factors)
    launch(lower_kernel, (-(-voxels // block_v), -(-channels // block_c), batch))(
        joined,
        lowered,
        voxels,
        channels,
        first_channel,
        joined.shape[1],
        *lowered.shape[-2:],
        DZ=dz,
        DY=dy,
        DX=dx,
        BLOCK_V=block_v,
        BLOCK_C=block_c,
        ACCUMULATE=tl.float64 if joined.dtype == torch.float64 else tl.float32,
        num_warps=num_warps,
    )


def _tile(channels: int) -> tuple[int, int, int]:
    return next((tile for limit, tile in TILES.items() if channels <= limit), list(TILES.values())[-1])


def _three(factors: Sequence[int]) -> tuple[int, int, int]:
    dz, dy, dx = (1,) * (3 - len(factors)) + tuple(factors)
    return dz, dy, dx
