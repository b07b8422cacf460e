"""Compiled loops of the CPU backend, forward and backward.

This module imports numba. A task is one image and `LANES` channels. It reads the four directions one after the other,
in tiles of `TILE` tokens. Tasks share no memory that they write. Scratch arrays are flat, with a row of `LANES`
channels per token. Each one has its own allocation, because LLVM does not vectorize loops over parts of one shared
allocation (measured: five times the time of the forward pass). The channels of parameters are padded with zeros to
whole rows. The maps of an image are read in raster order. `places` (2, token) holds the raster index of each token of
the sequence by rows and by columns.

Names: see the package. `grad_x` is the gradient with respect to x, and `steps` is dt before softplus.
"""

import numpy as np
from numba import njit

from scanseg.ops._support.cpu import LANES
from scanseg.ops._support.lanes import (
    add_product_of_rows,
    add_scaled_row,
    copy_row,
    dot_of_rows,
    exp_nonpositive,
    log1p_of_unit,
    multiply_rows,
    scale_row,
)

TILE = 64
"""Tokens of a tile, with decays and states held at the same time."""

_OPTIONS = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}


def _cached(function):
    """Compile a function, with a cache on disk if possible.

    The cache lies beside this file or in the user's cache folder. If neither can be written, the function has no cache.
    """
    try:
        return njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # numba: "no locator available for file"
        return njit(**_OPTIONS)(function)


@njit(**_OPTIONS)
def _read_channels(maps, start, rows):
    """Transpose the channels from `start` on into rows.

    `maps` is (channel, token). Missing channels are 0.
    """
    dim, token = maps.shape
    for c in range(LANES):
        if start + c < dim:
            for t in range(token):
                rows[t * LANES + c] = maps[start + c, t]
        else:
            for t in range(token):
                rows[t * LANES + c] = 0


@njit(**_OPTIONS)
def _write_channels(rows, start, maps):
    """Invert `_read_channels`."""
    dim, token = maps.shape
    for c in range(min(LANES, dim - start)):
        for t in range(token):
            maps[start + c, t] = rows[t * LANES + c]


@njit(**_OPTIONS)
def _find_tile(places, k, first, count, at):
    """Write the raster indices of a tile's tokens in direction k."""
    token = places.shape[1]
    for s in range(count):
        at[s] = places[k % 2, first + s if k < 2 else token - 1 - first - s]


@njit(**_OPTIONS)
def _measure_steps(projected, weight, bias, rank, weight_start, dim, bias_start, at, count, steps):
    """Compute steps[s] = bias + sum_r weight[r] dt_low[at[s], r].

    The arrays `weight` and `bias` are flat.
    """
    for s in range(count):
        copy_row(steps, s * LANES, bias, bias_start)
        for r in range(rank):
            add_scaled_row(steps, s * LANES, weight, weight_start + r * dim, projected[at[s], r])


@njit(**_OPTIONS)
def _soften(steps, delta, length):
    """Compute delta = softplus(steps) without overflow.

    The result is exact to rounding, also for very negative steps.
    """
    zero = steps.dtype.type(0)  # a plain 0 would promote float32 to float64
    for i in range(length):
        step = steps[i]
        delta[i] = (step if step > zero else zero) + log1p_of_unit(exp_nonpositive(-abs(step)))


@njit(**_OPTIONS)
def _to_slopes(steps, length):
    """Replace steps by sigmoid(steps), the derivative of softplus."""
    one, zero = steps.dtype.type(1), steps.dtype.type(0)
    for i in range(length):
        step = steps[i]
        e = exp_nonpositive(-abs(step))
        steps[i] = (one if step > zero else e) / (one + e)


@njit(**_OPTIONS)
def _walk(delta, written, rates, rate_start, projected, column, at, count, decay, h):
    """Compute decays and states of one state number in a tile.

    Row 0 of h is the state before the tile.
    """
    for s in range(count):
        multiply_rows(decay, s * LANES, delta, s * LANES, rates, rate_start)
        scale_row(h, (s + 1) * LANES, written, s * LANES, projected[at[s], column])
    for i in range(count * LANES):
        decay[i] = exp_nonpositive(decay[i])
    for s in range(count):
        add_product_of_rows(h, (s + 1) * LANES, decay, s * LANES, h, s * LANES)


@njit(**_OPTIONS)
def _write_states(delta, x_rows, u, at, count):
    """Compute u = delta x, the input to the state before B."""
    for s in range(count):
        multiply_rows(u, s * LANES, delta, s * LANES, x_rows, at[s] * LANES)


@_cached
def scan_maps(x, projected, weight, bias, rates, places, merged, first, stride):
    """Sum the four scans without the skip.

    The call runs the tasks first, first + stride, ...

    Args:
        x: (batch, dim, token).
        projected: (batch, 4, token, R + 2N).
        weight: (4, R, padded dim), flat.
        bias: (4, padded dim), flat.
        rates: A = -exp(A_log), (4, N, padded dim), flat.
        places: See the module.
        merged: The result, in the layout of x.
        first: First task of this call.
        stride: Distance between the tasks of this call.
    """
    batch, dim, token = x.shape
    blocks = -(-dim // LANES)
    padded = blocks * LANES
    rank, state = weight.size // (4 * padded), rates.size // (4 * padded)
    x_rows, sums = np.empty(token * LANES, x.dtype), np.empty(token * LANES, x.dtype)
    steps, delta = np.empty(TILE * LANES, x.dtype), np.empty(TILE * LANES, x.dtype)
    u, decay = np.empty(TILE * LANES, x.dtype), np.empty(TILE * LANES, x.dtype)
    h, states = np.empty((TILE + 1) * LANES, x.dtype), np.empty(state * LANES, x.dtype)
    at = np.empty(TILE, np.int64)
    for task in range(first, batch * blocks, stride):
        image, start = task // blocks, task % blocks * LANES
        _read_channels(x[image], start, x_rows)
        sums[:] = 0
        for k in range(4):
            maps, of_k = projected[image, k], k * padded + start
            of_weight = k * rank * padded + start
            states[:] = 0
            for tile in range(0, token, TILE):
                count = min(TILE, token - tile)
                _find_tile(places, k, tile, count, at)
                _measure_steps(maps, weight, bias, rank, of_weight, padded, of_k, at, count, steps)
                _soften(steps, delta, count * LANES)
                _write_states(delta, x_rows, u, at, count)
                for n in range(state):
                    of_rates = (k * state + n) * padded + start
                    copy_row(h, 0, states, n * LANES)
                    _walk(delta, u, rates, of_rates, maps, rank + n, at, count, decay, h)
                    copy_row(states, n * LANES, h, count * LANES)
                    for s in range(count):
                        add_scaled_row(sums, at[s] * LANES, h, (s + 1) * LANES, maps[at[s], rank + state + n])
        _write_channels(sums, start, merged[image])


@njit(**_OPTIONS)
def _carry_back(grad_rows, projected, column, decay, carried, carried_start, at, count, grad_h):
    """Compute the gradients of the states of a tile from its end.

    `carried` holds the gradient from the later tile and receives that for the earlier one.
    """
    copy_row(grad_h, count * LANES, carried, carried_start)
    for s in range(count):
        scale_row(grad_h, s * LANES, grad_rows, at[s] * LANES, projected[at[s], column])
    last = (count - 1) * LANES
    add_scaled_row(grad_h, last, grad_h, last + LANES, grad_h.dtype.type(1))
    for s in range(count - 2, -1, -1):
        add_product_of_rows(grad_h, s * LANES, decay, (s + 1) * LANES, grad_h, (s + 1) * LANES)
    multiply_rows(carried, carried_start, decay, 0, grad_h, 0)


@_cached
def scan_maps_gradients(
    x,
    projected,
    weight,
    bias,
    rates,
    places,
    grad_merged,
    grad_x,
    grad_steps,
    grad_states,
    grad_rates,
    first,
    stride,
):
    """Compute the gradients of `scan_maps`.

    The states are recomputed from those at the starts of the tiles.

    Args:
        x: See `scan_maps`.
        projected: See `scan_maps`.
        weight: See `scan_maps`.
        bias: See `scan_maps`.
        rates: See `scan_maps`.
        places: See `scan_maps`.
        grad_merged: Gradient of the result, in the layout of x.
        grad_x: Result, in the layout of x.
        grad_steps: Result, (batch, 4, token, padded dim), flat.
        grad_states: Result, (batch, 4, padded dim / LANES, token, 2N): gradients of B and C, a part of each per task.
        grad_rates: Result, (batch, 4, N, padded dim), flat.
        first: First task of this call.
        stride: Distance between the tasks of this call.
    """
    batch, dim, token = x.shape
    blocks = -(-dim // LANES)
    padded = blocks * LANES
    rank, state = weight.size // (4 * padded), rates.size // (4 * padded)
    tiles = -(-token // TILE)
    x_rows, grad_rows = np.empty(token * LANES, x.dtype), np.empty(token * LANES, x.dtype)
    grad_x_rows = np.empty(token * LANES, x.dtype)
    steps, delta = np.empty(TILE * LANES, x.dtype), np.empty(TILE * LANES, x.dtype)
    u, decay = np.empty(TILE * LANES, x.dtype), np.empty(TILE * LANES, x.dtype)
    exponent = np.empty(TILE * LANES, x.dtype)
    grad_u, grad_delta = np.empty(TILE * LANES, x.dtype), np.empty(TILE * LANES, x.dtype)
    h, grad_h = np.empty((TILE + 1) * LANES, x.dtype), np.empty((TILE + 1) * LANES, x.dtype)
    states = np.empty((tiles + 1) * state * LANES, x.dtype)
    carried, grad_rate = np.empty(state * LANES, x.dtype), np.empty(state * LANES, x.dtype)
    at = np.empty(TILE, np.int64)
    for task in range(first, batch * blocks, stride):
        image, block = task // blocks, task % blocks
        start = block * LANES
        _read_channels(x[image], start, x_rows)
        _read_channels(grad_merged[image], start, grad_rows)
        grad_x_rows[:] = 0
        for k in range(4):
            maps, of_k = projected[image, k], k * padded + start
            of_weight = k * rank * padded + start
            states[: state * LANES] = 0
            carried[:] = 0
            grad_rate[:] = 0
            # The backward pass starts with the states of the last tile.
            for tile in range(tiles - 1):
                count = TILE
                _find_tile(places, k, tile * TILE, count, at)
                _measure_steps(maps, weight, bias, rank, of_weight, padded, of_k, at, count, steps)
                _soften(steps, delta, count * LANES)
                _write_states(delta, x_rows, u, at, count)
                for n in range(state):
                    of_rates = (k * state + n) * padded + start
                    copy_row(h, 0, states, (tile * state + n) * LANES)
                    _walk(delta, u, rates, of_rates, maps, rank + n, at, count, decay, h)
                    copy_row(states, ((tile + 1) * state + n) * LANES, h, count * LANES)
            for tile in range(tiles - 1, -1, -1):
                count = min(TILE, token - tile * TILE)
                length = count * LANES
                _find_tile(places, k, tile * TILE, count, at)
                _measure_steps(maps, weight, bias, rank, of_weight, padded, of_k, at, count, steps)
                _soften(steps, delta, length)
                _to_slopes(steps, length)
                _write_states(delta, x_rows, u, at, count)
                grad_u[:length] = 0
                grad_delta[:length] = 0
                for n in range(state):
                    of_rates = (k * state + n) * padded + start
                    copy_row(h, 0, states, (tile * state + n) * LANES)
                    _walk(delta, u, rates, of_rates, maps, rank + n, at, count, decay, h)
                    column = rank + state + n
                    _carry_back(grad_rows, maps, column, decay, carried, n * LANES, at, count, grad_h)
                    parts = grad_states[image, k, block]
                    for s in range(count):
                        parts[at[s], n] = dot_of_rows(grad_h, s * LANES, u, s * LANES)
                        parts[at[s], state + n] = dot_of_rows(grad_rows, at[s] * LANES, h, (s + 1) * LANES)
                        add_scaled_row(grad_u, s * LANES, grad_h, s * LANES, maps[at[s], rank + n])
                    for i in range(length):
                        exponent[i] = grad_h[i] * decay[i] * h[i]
                    for s in range(count):
                        add_product_of_rows(grad_delta, s * LANES, exponent, s * LANES, rates, of_rates)
                        add_product_of_rows(grad_rate, n * LANES, exponent, s * LANES, delta, s * LANES)
                for s in range(count):
                    add_product_of_rows(grad_delta, s * LANES, grad_u, s * LANES, x_rows, at[s] * LANES)
                    add_product_of_rows(grad_x_rows, at[s] * LANES, grad_u, s * LANES, delta, s * LANES)
                    of_token = ((image * 4 + k) * token + at[s]) * padded + start
                    multiply_rows(grad_steps, of_token, grad_delta, s * LANES, steps, s * LANES)
            for n in range(state):
                of_rates = ((image * 4 + k) * state + n) * padded + start
                copy_row(grad_rates, of_rates, grad_rate, n * LANES)
        _write_channels(grad_x_rows, start, grad_x[image])
