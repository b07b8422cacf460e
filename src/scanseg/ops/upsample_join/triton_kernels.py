"""Triton kernels of nearest upsampling between channels-last maps.

They write to, or read from, some of the channels of a map. A map is (batch, voxel, channel), with voxels in raster
order. Each map is read or written once, forward and backward. Legend: DZ, DY, DX output voxels for each input voxel
along z, y, x.
"""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["height", "width"])
def raise_kernel(
    coarse,
    fine,
    num_voxels,
    num_channels,
    first_channel,
    all_channels,
    height,
    width,
    DZ: tl.constexpr,
    DY: tl.constexpr,
    DX: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Write a repeated map into channels of another map.

    Grid: (fine voxel tiles, channel tiles, batch). Voxels, height and width are those of the fine map, and
    `num_channels` those of the coarse map.
    """
    instance = tl.program_id(2).to(tl.int64)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    voxel = tl.program_id(0) * BLOCK_V + tl.arange(0, BLOCK_V)
    mask = (voxel < num_voxels)[:, None] & (channel < num_channels)[None, :]
    line = voxel // width
    x, y, z = voxel % width, line % height, line // height
    source = ((z // DZ) * (height // DY) + y // DY) * (width // DX) + x // DX
    coarse += instance * (num_voxels // (DZ * DY * DX)) * num_channels
    fine += instance * num_voxels * all_channels + first_channel
    value = tl.load(coarse + source[:, None] * num_channels + channel[None, :], mask=mask)
    tl.store(fine + voxel[:, None] * all_channels + channel[None, :], value, mask=mask)


@triton.jit(do_not_specialize=["height", "width"])
def lower_kernel(
    fine,
    coarse,
    num_voxels,
    num_channels,
    first_channel,
    all_channels,
    height,
    width,
    DZ: tl.constexpr,
    DY: tl.constexpr,
    DX: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_C: tl.constexpr,
    ACCUMULATE: tl.constexpr,
):
    """Sum the fine voxels of each coarse voxel.

    The fine voxels are some of the channels of `fine`. Grid: (coarse voxel tiles, channel tiles, batch). Voxels, height
    and width are those of the coarse map.
    """
    instance = tl.program_id(2).to(tl.int64)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    voxel = tl.program_id(0) * BLOCK_V + tl.arange(0, BLOCK_V)
    mask = (voxel < num_voxels)[:, None] & (channel < num_channels)[None, :]
    line = voxel // width
    x, y, z = voxel % width, line % height, line // height
    corner = (z * DZ * (height * DY) + y * DY) * (width * DX) + x * DX
    fine += instance * num_voxels * (DZ * DY * DX) * all_channels + first_channel
    coarse += instance * num_voxels * num_channels
    total = tl.zeros((BLOCK_V, BLOCK_C), dtype=ACCUMULATE)
    for dz in tl.static_range(DZ):
        for dy in tl.static_range(DY):
            for dx in tl.static_range(DX):
                child = corner + (dz * height * DY + dy) * (width * DX) + dx
                place = child[:, None] * all_channels + channel[None, :]
                total += tl.load(fine + place, mask=mask, other=0.0).to(ACCUMULATE)
    place = voxel[:, None] * num_channels + channel[None, :]
    tl.store(coarse + place, total.to(coarse.dtype.element_ty), mask=mask)
