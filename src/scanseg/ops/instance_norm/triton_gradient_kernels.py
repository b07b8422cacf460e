"""Triton kernels of the gradients of the instance norm.

With g the gradient of the sum before the activation and x^ the normalized map, over the voxels of a channel of an
instance:

    dx = weight * rstd * (g - mean(g) - x^ mean(g x^)),   d weight = sum g x^,   d bias = sum g,   d residual = g

Without a residual, the sign of the sum before the activation is recomputed from x. With a residual it is the sign of y,
which the next layer keeps for its own gradient anyway. Names and cost: see `triton_kernels`.
"""

import triton
import triton.language as tl

from scanseg.ops.instance_norm.triton_kernels import _affine, _load, _sum_over_voxels


@triton.jit
def _grad_of_sum(
    grad,
    y,
    offsets,
    mask,
    normalised,
    weight,
    bias,
    channel,
    in_range,
    slope,
    HAS_RESIDUAL: tl.constexpr,
    ACTIVE: tl.constexpr,
    ACCUMULATE: tl.constexpr,
):
    g = _load(grad, offsets, mask, ACCUMULATE)
    if ACTIVE:
        if HAS_RESIDUAL:
            activated = _load(y, offsets, mask, ACCUMULATE)
        else:
            activated = _affine(normalised, weight, bias, channel, in_range, ACCUMULATE)
        g = tl.where(activated > 0, g, g * slope)
    return g


@triton.jit(do_not_specialize=["num_voxels"])
def whole_backward_kernel(
    grad,
    x,
    y,
    weight,
    bias,
    stats,
    grad_x,
    grad_residual,
    sums,
    stride_v,
    stride_c,
    num_voxels,
    num_channels,
    slope,
    HAS_RESIDUAL: tl.constexpr,
    ACTIVE: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_C: tl.constexpr,
    ACCUMULATE: tl.constexpr,
):
    """Compute all gradients of BLOCK_C channels of one instance.

    Grid: (channel tiles, batch). `sums` (2, batch, channel) receives d bias and d weight of each instance.
    """
    instance, num_instances = tl.program_id(1), tl.num_programs(1)
    channel = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    voxel = tl.arange(0, BLOCK_V)
    in_range = channel < num_channels
    mask = (voxel < num_voxels)[:, None] & in_range[None, :]
    offsets = voxel[:, None] * stride_v + channel[None, :] * stride_c
    start = instance.to(tl.int64) * num_voxels * num_channels
    slot = instance * num_channels + channel
    mean = tl.load(stats + slot, mask=in_range, other=0.0)
    rstd = tl.load(stats + num_instances * num_channels + slot, mask=in_range, other=0.0)
    scale = tl.load(weight + channel, mask=in_range, other=0.0).to(ACCUMULATE) * rstd
    normalised = (_load(x + start, offsets, mask, ACCUMULATE) - mean[None, :]) * rstd[None, :]
    g = _grad_of_sum(
        grad + start,
        y + start,
        offsets,
        mask,
        normalised,
        weight,
        bias,
        channel,
        in_range,
        slope,
        HAS_RESIDUAL,
        ACTIVE,
        ACCUMULATE,
    )
    if HAS_RESIDUAL and ACTIVE:
        tl.store(grad_residual + start + offsets, g.to(grad_residual.dtype.element_ty), mask=mask)
    total = _sum_over_voxels(g)
    product = _sum_over_voxels(g * normalised)
    inner = g - (total / num_voxels)[None, :] - normalised * (product / num_voxels)[None, :]
    tl.store(grad_x + start + offsets, (inner * scale[None, :]).to(grad_x.dtype.element_ty), mask=mask)
    tl.store(sums + slot, total, mask=in_range)
    tl.store(sums + num_instances * num_channels + slot, product, mask=in_range)


@triton.jit(do_not_specialize=["tiles_per_chunk"])
def gradient_sums_kernel(
    grad,
    x,
    y,
    weight,
    bias,
    stats,
    grad_residual,
    partial,
    stride_v,
    stride_c,
    num_voxels,
    num_channels,
    tiles_per_chunk,
    slope,
    HAS_RESIDUAL: tl.constexpr,
    ACTIVE: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_C: tl.constexpr,
    ACCUMULATE: tl.constexpr,
):
    """Sum g and g x^ over a chunk.

    Grid: (chunks, channel tiles, batch). `partial` is (2, batch, chunk, channel). With a residual also write g.
    """
    chunk, instance = tl.program_id(0), tl.program_id(2)
    num_chunks, num_instances = tl.num_programs(0), tl.num_programs(2)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    row = tl.arange(0, BLOCK_V)
    in_range = channel < num_channels
    start = instance.to(tl.int64) * num_voxels * num_channels
    slot = instance * num_channels + channel
    mean = tl.load(stats + slot, mask=in_range, other=0.0)
    rstd = tl.load(stats + num_instances * num_channels + slot, mask=in_range, other=0.0)
    total = tl.zeros((BLOCK_V, BLOCK_C), dtype=ACCUMULATE)
    product = tl.zeros((BLOCK_V, BLOCK_C), dtype=ACCUMULATE)
    for tile in range(tiles_per_chunk):
        voxel = (chunk * tiles_per_chunk + tile) * BLOCK_V + row
        mask = (voxel < num_voxels)[:, None] & in_range[None, :]
        offsets = voxel[:, None] * stride_v + channel[None, :] * stride_c
        normalised = (_load(x + start, offsets, mask, ACCUMULATE) - mean[None, :]) * rstd[None, :]
        g = _grad_of_sum(
            grad + start,
            y + start,
            offsets,
            mask,
            normalised,
            weight,
            bias,
            channel,
            in_range,
            slope,
            HAS_RESIDUAL,
            ACTIVE,
            ACCUMULATE,
        )
        if HAS_RESIDUAL and ACTIVE:
            tl.store(grad_residual + start + offsets, g.to(grad_residual.dtype.element_ty), mask=mask)
        # Outside the map g is 0 for any x^.
        total += g
        product += g * normalised
    slot = (instance * num_chunks + chunk) * num_channels + channel
    tl.store(partial + slot, _sum_over_voxels(total), mask=in_range)
    second = num_instances * num_chunks * num_channels
    tl.store(partial + second + slot, _sum_over_voxels(product), mask=in_range)


@triton.jit(do_not_specialize=["num_chunks"])
def combine_sums_kernel(
    partial,
    sums,
    num_channels,
    num_chunks,
    BLOCK_K: tl.constexpr,
    BLOCK_C: tl.constexpr,
    ACCUMULATE: tl.constexpr,
):
    """Sum over the chunks (at most BLOCK_K), to (2, batch, channel).

    Grid: (channel tiles, 2 * batch).
    """
    line = tl.program_id(1)
    channel = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    chunk = tl.arange(0, BLOCK_K)
    in_range = channel < num_channels
    mask = (chunk < num_chunks)[:, None] & in_range[None, :]
    slots = (line * num_chunks + chunk)[:, None] * num_channels + channel[None, :]
    total = _sum_over_voxels(_load(partial, slots, mask, ACCUMULATE))
    tl.store(sums + line * num_channels + channel, total, mask=in_range)


@triton.jit
def gradient_kernel(
    grad,
    x,
    weight,
    bias,
    stats,
    sums,
    grad_x,
    stride_v,
    stride_c,
    num_voxels,
    num_channels,
    slope,
    ACTIVE: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_C: tl.constexpr,
    ACCUMULATE: tl.constexpr,
):
    """Compute the gradient of x in a tile.

    Grid: (voxel tiles, channel tiles, batch), starting at the end of the map. Without `ACTIVE`, `grad` is already g.
    """
    instance, num_instances = tl.num_programs(2) - 1 - tl.program_id(2), tl.num_programs(2)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    voxel = (tl.num_programs(0) - 1 - tl.program_id(0)) * BLOCK_V + tl.arange(0, BLOCK_V)
    in_range = channel < num_channels
    mask = (voxel < num_voxels)[:, None] & in_range[None, :]
    offsets = voxel[:, None] * stride_v + channel[None, :] * stride_c
    start = instance.to(tl.int64) * num_voxels * num_channels
    slot = instance * num_channels + channel
    second = num_instances * num_channels
    mean = tl.load(stats + slot, mask=in_range, other=0.0)
    rstd = tl.load(stats + second + slot, mask=in_range, other=0.0)
    total = tl.load(sums + slot, mask=in_range, other=0.0) / num_voxels
    product = tl.load(sums + second + slot, mask=in_range, other=0.0) / num_voxels
    scale = tl.load(weight + channel, mask=in_range, other=0.0).to(ACCUMULATE) * rstd
    normalised = (_load(x + start, offsets, mask, ACCUMULATE) - mean[None, :]) * rstd[None, :]
    g = _grad_of_sum(
        grad + start,
        grad,
        offsets,
        mask,
        normalised,
        weight,
        bias,
        channel,
        in_range,
        slope,
        False,
        ACTIVE,
        ACCUMULATE,
    )
    result = (g - total[None, :] - normalised * product[None, :]) * scale[None, :]
    tl.store(grad_x + start + offsets, result.to(grad_x.dtype.element_ty), mask=mask)
