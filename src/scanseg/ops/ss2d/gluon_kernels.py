"""Gluon kernels of the four-direction scan, for one state per channel.

A program has 16 channels of a map and walks along all four sequences, tile after tile, or along two of them if SPLIT
is 2. So no segments are measured before. W warps have consecutive tokens of a tile, and pass the effect of their
tokens on the state through shared memory. The directions follow in the order 0, 2, 1, 3, and each adds to the sum of
the earlier ones. While a program works on a tile, the inputs of the next one are copied into shared memory.

The forward pass keeps the state before each thread's tokens, and the backward pass repeats the states from there. It
walks from the last token to the first with the gradient of the state. Instructions per channel, token and direction
on sm_90 at 56x56 pixels: about 47 forward and 71 backward. The limits are in docs/experiments.md.

Names: see the package, `gluon_layouts` and `triton_kernels`. M is the number of tokens of a thread, W the number of
warps, RP is R + 1 padded for products, and WHOLE tells that 16 divides the number of channels. `steps` is delta /
ln 2, z is log2(e) (dt_weight dt_low + dt_bias), and B is multiplied by ln 2.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy, mma_v2

from scanseg.ops.ss2d.gluon_blocks import (
    LN_2,
    LOG2_E,
    addresses,
    by_channel,
    by_thread,
    by_token,
    channels_of,
    dot_tokens,
    exp2,
    expand,
    find_places,
    last_axis,
    load_weights,
    load_wide,
    log2,
    mask_of,
    one_column,
    reciprocal,
    soften,
    sum_skips,
    wait_for_warps,
    walk,
    walk_again,
    walk_back,
    warps_of,
    which_exist,
)
from scanseg.ops.ss2d.gluon_copies import (
    copy_inputs,
    copy_upstream,
    read_low,
    read_map,
    read_pairs,
    read_states,
)
from scanseg.ops.ss2d.gluon_layouts import grouped_layout, product_layout, right_layout, tile_layout

_FLAT = gl.constexpr(gl.SwizzledSharedLayout(1, 1, 1, [2, 1, 0]))


@gluon.jit(do_not_specialize=["length", "height", "width"])
def scan_map(
    x,  # (batch, token, dim)
    projected,  # (batch, token, 4, R + 2)
    dt_weight,  # (4, dim, R)
    dt_bias,  # (4, dim)
    A_log,  # (4, dim)
    D_skip,  # (4, dim)
    merged,  # result (SPLIT, batch, token, dim)
    states,  # result: states before the threads (batch, 4, token / M, dim)
    length,
    height,
    width,
    dim,
    R: gl.constexpr,
    RP: gl.constexpr,
    W: gl.constexpr,
    M: gl.constexpr,
    WHOLE: gl.constexpr,
    SPLIT: gl.constexpr,
):
    """Compute the merged scan.

    Grid: (channels, batch, SPLIT).
    """
    first, image, part = gl.program_id(0) * 16, gl.program_id(1).to(gl.int64), gl.program_id(2)
    TILE: gl.constexpr = tile_layout(W, M)
    IN_MEMORY: gl.constexpr = tile_layout(W, M, channels_first=True)
    GROUPS: gl.constexpr = gl.SliceLayout(3, grouped_layout(W, M))
    products = gl.allocate_shared_memory(gl.float32, [4, W, 16], _FLAT)
    ends = gl.allocate_shared_memory(gl.float32, [4, W, 16], _FLAT)
    values_ahead = gl.allocate_shared_memory(x.dtype.element_ty, [2, W, 4 * M, 16], _FLAT)
    sums_ahead = gl.allocate_shared_memory(gl.float32, [2, W, 4 * M, 16], _FLAT)
    low_ahead = gl.allocate_shared_memory(x.dtype.element_ty, [2, W, 4 * M, RP], _FLAT)
    pairs_ahead = gl.allocate_shared_memory(x.dtype.element_ty, [2, W, 4 * M, 2], _FLAT)
    x += image * length * dim
    merged += (part * gl.num_programs(1) + image) * length * dim
    projected += image * length * 4 * (R + 2)
    groups = (length + M - 1) // M
    tiles = (length + 4 * M * W - 1) // (4 * M * W)
    channel = channels_of(first, TILE)
    stored_channel = channels_of(first, IN_MEMORY)
    group_channel = channels_of(first, GROUPS)
    group_number = warps_of(W, GROUPS) * 4 + last_axis(4, GROUPS)
    within = channel < dim
    skip = gl.where(part == 0, sum_skips(D_skip, channel, dim), 0.0)
    for sweep in range(4 // SPLIT):
        direction = part * (4 // SPLIT) + sweep
        k = direction // 2 + 2 * (direction % 2)
        of_k = projected + k * (R + 2)
        weights = load_weights(dt_weight, k, first, dim, R, RP, W, x.dtype.element_ty)
        bias = gl.load(dt_bias + k * dim + channel, mask=within, other=0.0) * LOG2_E
        A = -gl.exp(gl.load(A_log + k * dim + channel, mask=within, other=0.0))
        carry = gl.zeros((16,), gl.float32, gl.SliceLayout(0, gl.SliceLayout(2, TILE)))
        memory = (values_ahead, low_ahead, pairs_ahead, sums_ahead)
        next_place = find_places(0, k, length, height, width, W, M)
        copy_inputs(memory, 0, x, of_k, merged, sweep, next_place, first, dim, R, RP, W, M, WHOLE)
        async_copy.commit_group()
        for i in range(tiles):
            begin, place, slot = i * (4 * M * W), next_place, i % 2
            async_copy.wait_group(0)
            if i + 1 < tiles:
                next_place = find_places(begin + 4 * M * W, k, length, height, width, W, M)
                copy_inputs(
                    memory, 1 - slot, x, of_k, merged, sweep, next_place, first, dim, R, RP, W, M, WHOLE
                )
                async_copy.commit_group()
            B, C = read_pairs(pairs_ahead.index(slot), which_exist(begin, length, TILE, W, M), W, M)
            low = read_low(low_ahead.index(slot), R, RP, W, M)
            values = read_map(values_ahead.index(slot), W, M)
            z = expand(weights, low, W, M) * LOG2_E + bias
            steps = soften(z, exp2(gl.minimum(z, 126.0)))
            h, before, carry = walk(
                exp2(steps * A), steps * ((B * LN_2) * values), carry, products, ends, W, M
            )
            sum_before = values * skip
            if sweep != 0:
                sum_before = read_map(sums_ahead.index(slot), W, M)
            at = addresses(place, stored_channel, dim, IN_MEMORY)
            mask = mask_of(which_exist(begin, length, IN_MEMORY, W, M), stored_channel, dim, WHOLE)
            gl.store(merged + at, gl.convert_layout(sum_before + C * h, IN_MEMORY), mask=mask)
            group = begin // M + group_number
            gl.store(
                states + ((image * 4 + k) * groups + group) * dim + group_channel,
                gl.convert_layout(by_thread(before, W, M), GROUPS),
                mask=(group < groups) & (group_channel < dim),
            )
        wait_for_warps()  # the next direction reads the sums of other threads


@gluon.jit(do_not_specialize=["length", "height", "width", "batch"])
def scan_map_backward(
    grad,  # of the merged sum (batch, token, dim)
    x,
    projected,
    dt_weight,
    dt_bias,
    A_log,
    D_skip,
    states,  # as in `scan_map`
    sums,  # of grad_x over the directions so far (SPLIT, batch, token, dim), a result unless SPLIT is 1
    grad_x,  # result if SPLIT is 1 (batch, token, dim)
    grad_projected,  # result (channels / 16, batch, token, 4, R + 2): a part for each 16 channels
    grad_parameters,  # result (batch, *): dt_weight (4, dim, R), dt_bias (4, dim), A_log (4, dim), D (dim)
    length,
    height,
    width,
    dim,
    batch,
    R: gl.constexpr,
    RP: gl.constexpr,
    W: gl.constexpr,
    M: gl.constexpr,
    WHOLE: gl.constexpr,
    SPLIT: gl.constexpr,
    COLUMNS: gl.constexpr,  # columns of the product for dt_low, and for B and C if JOINT
    JOINT: gl.constexpr,
):
    """Compute the gradients.

    Grid: (channels, batch, SPLIT).
    """
    first, image, part = gl.program_id(0) * 16, gl.program_id(1).to(gl.int64), gl.program_id(2)
    TILE: gl.constexpr = tile_layout(W, M)
    IN_MEMORY: gl.constexpr = tile_layout(W, M, channels_first=True)
    GROUPS: gl.constexpr = gl.SliceLayout(3, grouped_layout(W, M))
    PRODUCT: gl.constexpr = product_layout(W)
    CHANNELS: gl.constexpr = gl.SliceLayout(0, gl.SliceLayout(2, TILE))
    OF_BC: gl.constexpr = COLUMNS if JOINT else 8
    products = gl.allocate_shared_memory(gl.float32, [4, W, 16], _FLAT)
    ends = gl.allocate_shared_memory(gl.float32, [4, W, 16], _FLAT)
    values_ahead = gl.allocate_shared_memory(x.dtype.element_ty, [2, W, 4 * M, 16], _FLAT)
    grads_ahead = gl.allocate_shared_memory(grad.dtype.element_ty, [2, W, 4 * M, 16], _FLAT)
    sums_ahead = gl.allocate_shared_memory(gl.float32, [2, W, 4 * M, 16], _FLAT)
    low_ahead = gl.allocate_shared_memory(x.dtype.element_ty, [2, W, 4 * M, RP], _FLAT)
    pairs_ahead = gl.allocate_shared_memory(x.dtype.element_ty, [2, W, 4 * M, 2], _FLAT)
    states_ahead = gl.allocate_shared_memory(gl.float32, [2, W, 4, 16], _FLAT)
    x += image * length * dim
    grad += image * length * dim
    grad_x += image * length * dim
    sums += (part * batch + image) * length * dim
    projected += image * length * 4 * (R + 2)
    grad_projected += (gl.program_id(0).to(gl.int64) * batch + image) * length * 4 * (R + 2)
    grad_parameters += image * (4 * dim * (R + 2) + dim)
    groups = (length + M - 1) // M
    tiles = (length + 4 * M * W - 1) // (4 * M * W)
    channel = channels_of(first, TILE)
    stored_channel = channels_of(first, IN_MEMORY)
    flat_channel = first + gl.arange(0, 16, layout=CHANNELS)
    column = last_axis(COLUMNS, PRODUCT)
    column_of_BC = last_axis(OF_BC, PRODUCT)
    row = gl.expand_dims(gl.arange(0, 16, layout=gl.SliceLayout(1, gl.SliceLayout(0, PRODUCT))), 1)
    row_channel = first + row % 8 * 2 + row // 8
    rank = gl.expand_dims(gl.arange(0, RP, layout=gl.SliceLayout(0, gl.SliceLayout(0, PRODUCT))), 0)
    token_row = gl.expand_dims(
        gl.expand_dims(gl.arange(0, 4 * M, layout=gl.SliceLayout(0, gl.SliceLayout(2, PRODUCT))), 0), 2
    )
    to_B = one_column(R if JOINT else 0, W, OF_BC)
    to_C = one_column(R + 1 if JOINT else 1, W, OF_BC)
    scale = gl.where(column_of_BC == (R if JOINT else 0), LN_2, 1.0)
    within = channel < dim
    skip = gl.where(part == 0, sum_skips(D_skip, channel, dim), 0.0)
    for sweep in range(4 // SPLIT):
        direction = part * (4 // SPLIT) + sweep
        k = direction // 2 + 2 * (direction % 2)
        of_k = projected + k * (R + 2)
        weights = load_weights(dt_weight, k, first, dim, R, RP, W, x.dtype.element_ty)
        wide = load_wide(dt_weight, k, first, dim, R, COLUMNS, W)
        bias = gl.load(dt_bias + k * dim + channel, mask=within, other=0.0) * LOG2_E
        A = -gl.exp(gl.load(A_log + k * dim + channel, mask=within, other=0.0))
        carry = gl.zeros((16,), gl.float32, CHANNELS)
        d_weight = gl.zeros((W, 16, RP), gl.float32, PRODUCT)
        d_decay = gl.zeros((W, 16, 4), gl.float32, GROUPS)
        d_skip = gl.zeros((W, 16, 4), gl.float32, GROUPS)
        memory = (values_ahead, low_ahead, pairs_ahead, sums_ahead)
        states_of_k = states + (image * 4 + k) * groups * dim
        next_place = find_places((tiles - 1) * (4 * M * W), k, length, height, width, W, M)
        copy_inputs(memory, 0, x, of_k, sums, sweep, next_place, first, dim, R, RP, W, M, WHOLE)
        copy_upstream(
            grads_ahead,
            states_ahead,
            0,
            grad,
            states_of_k,
            (tiles - 1) * (4 * W),
            groups,
            next_place,
            first,
            dim,
            W,
            M,
            WHOLE,
        )
        async_copy.commit_group()
        for i in range(tiles):
            begin, place, slot = (tiles - 1 - i) * (4 * M * W), next_place, i % 2
            async_copy.wait_group(0)
            if i + 1 < tiles:
                next_place = find_places(begin - 4 * M * W, k, length, height, width, W, M)
                copy_inputs(
                    memory, 1 - slot, x, of_k, sums, sweep, next_place, first, dim, R, RP, W, M, WHOLE
                )
                copy_upstream(
                    grads_ahead,
                    states_ahead,
                    1 - slot,
                    grad,
                    states_of_k,
                    begin // M - 4 * W,
                    groups,
                    next_place,
                    first,
                    dim,
                    W,
                    M,
                    WHOLE,
                )
                async_copy.commit_group()
            exists = which_exist(begin, length, TILE, W, M)
            B, C = read_pairs(pairs_ahead.index(slot), exists, W, M)
            B = B * LN_2
            low = read_low(low_ahead.index(slot), R, RP, W, M)
            values = read_map(values_ahead.index(slot), W, M)
            dy = read_map(grads_ahead.index(slot), W, M)
            before = gl.convert_layout(read_states(states_ahead.index(slot), W), GROUPS)
            z = expand(weights, low, W, M) * LOG2_E + bias
            e = exp2(gl.minimum(z, 126.0))
            steps = gl.maximum(log2(1.0 + e), z)  # precise enough for operands of 16 bits
            a = exp2(steps * A)
            u = values * steps
            decayed, h = walk_again(a, B * u, before, W, M)
            dh, carry = walk_back(a, C * dy, carry, products, ends, W, M)
            d_BC = mma_v2(by_token(dy * h, W), to_C, gl.zeros((W, 4 * M, OF_BC), gl.float32, PRODUCT))
            d_BC = mma_v2(by_token(dh * u, W), to_B, d_BC)
            written = dh * B
            d_decayed = dh * decayed
            d_decay += dot_tokens(d_decayed, steps, W, M)
            dx = written * steps
            if sweep == 0:
                d_skip += dot_tokens(gl.where(exists, dy, 0.0), values, W, M)
                dx += dy * skip
            else:
                dx += read_map(sums_ahead.index(slot), W, M)
            dx = gl.convert_layout(dx, IN_MEMORY)
            at = addresses(place, stored_channel, dim, IN_MEMORY)
            mask = mask_of(which_exist(begin, length, IN_MEMORY, W, M), stored_channel, dim, WHOLE)
            if sweep == 3:
                gl.store(grad_x + at, dx.to(grad_x.dtype.element_ty), mask=mask)
            else:
                gl.store(sums + at, dx, mask=mask)
            # The slope of softplus, times ln 2 as `written` is. The factors of `wide` and of the result take it out.
            dz = (d_decayed * (A * LN_2) + written * values) * (e * reciprocal(1.0 + e))
            token = gl.expand_dims(gl.convert_layout(place, gl.SliceLayout(2, PRODUCT)), 2)
            to = grad_projected + token * (4 * (R + 2)) + k * (R + 2)
            exists = begin + warps_of(W, PRODUCT) * (4 * M) + token_row < length
            if JOINT:
                d_low = mma_v2(by_token(dz, W), wide, d_BC) * scale
                gl.store(
                    to + column, d_low.to(grad_projected.dtype.element_ty), mask=exists & (column < R + 2)
                )
            else:
                d_low = mma_v2(by_token(dz, W), wide, gl.zeros((W, 4 * M, COLUMNS), gl.float32, PRODUCT))
                gl.store(to + column, d_low.to(grad_projected.dtype.element_ty), mask=exists & (column < R))
                d_BC = (d_BC * scale).to(grad_projected.dtype.element_ty)
                gl.store(to + R + column_of_BC, d_BC, mask=exists & (column_of_BC < 2))
            low = gl.convert_layout(gl.permute(low, (0, 2, 1)), right_layout(W))
            d_weight = mma_v2(by_channel(dz, W, M), low, d_weight)
        # Row R of dt_low is one, so column R is the gradient of the bias.
        at = gl.where(rank < R, (k * dim + row_channel) * R + rank, 4 * dim * R + k * dim + row_channel)
        mask = (row_channel < dim) & (rank <= R)
        gl.store(grad_parameters + at, gl.sum(d_weight, 0) * LOG2_E, mask=mask)
        within_flat = flat_channel < dim
        rates = -gl.exp(gl.load(A_log + k * dim + flat_channel, mask=within_flat, other=0.0))
        decays = gl.convert_layout(gl.sum(gl.sum(d_decay, 2), 0), CHANNELS) * (rates * LN_2)
        gl.store(grad_parameters + 4 * dim * (R + 1) + k * dim + flat_channel, decays, mask=within_flat)
        if direction == 0:
            skips = gl.convert_layout(gl.sum(gl.sum(d_skip, 2), 0), CHANNELS)
            gl.store(grad_parameters + 4 * dim * (R + 2) + flat_channel, skips, mask=within_flat)
        wait_for_warps()
