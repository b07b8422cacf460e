"""Launches of the four-direction scan's kernels in Gluon.

They run bfloat16 maps with one state per channel, as in the network, if there are enough programs. The kernels in
`triton_kernels` run all other calls. Names: see the package and `gluon_kernels`.
"""

import functools
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scanseg.ops._support.launching import Launch
from scanseg.ops._support.launching_variants import KNOWN_VERSIONS
from scanseg.ops._support.triton import INTERPRETED, MISSING

CHANNELS = 16
"""Channels of a program."""

SHORT = 256
"""Pixels of a map whose walk takes no longer than the launches of the kernels in Triton."""

FEWEST_PROGRAMS = 128
"""Programs that occupy a GPU. With fewer of them, walks along longer maps would take longer than segments."""

MOST_TOKENS = 2**20
"""Largest number of pixels. Positions of pixels are computed in float32."""

MOST_ELEMENTS = 2**31
"""Number of elements of a map for which offsets have 32 bits."""

MOST_ROWS = 128
"""Rows of dt_low for programs of several warps. With more rows, shared memory has space for one warp alone."""

ALIGNMENT = 16
"""Divisor of the addresses of maps, in bytes. Without it, copies of a tile would have fewer bytes than they may."""

SPLIT_BELOW = 264
"""Programs that keep a GPU of 132 multiprocessors busy. With fewer of them, two programs share the four directions."""


class Walk(NamedTuple):
    """How programs walk along the sequences of a map.

    Attributes:
        warps: Warps of a program, forward.
        backward_warps: The same, backward.
        tokens: Consecutive tokens of a thread. The state before them is kept for the backward pass.
        programs: Programs for the four directions of 16 channels, each with a sum of its own: 1 or 2.
        registers: Most registers of a thread, backward. `None`: as many as the compiler takes.
    """

    warps: int
    backward_warps: int
    tokens: int
    programs: int
    registers: int | None


def walk_for(shape: Sequence[int]) -> Walk:
    """Return how programs walk.

    The limits come from times at batch 32 with 56x56, 28x28, 14x14 and 7x7 pixels.

    Args:
        shape: Shape of the map (batch, dim, height, width).
    """
    batch, dim, height, width = shape
    length = height * width
    if length <= 400:
        return Walk(1, 1, tokens=4, programs=1, registers=168 if length <= 64 else None)
    programs = 2 if batch * -(-dim // CHANNELS) < SPLIT_BELOW else 1
    return Walk(4 if length > 1500 else 2, 2, tokens=8, programs=programs, registers=None)


def accepts(x: Tensor, A_log: Tensor, *dtypes: torch.dtype) -> bool:
    """Return whether the kernels run a call.

    Args:
        x: A tensor with the shape and device of the map (batch, dim, height, width).
        A_log: See `ss2d_scan`.
        *dtypes: Dtypes of the map and of the projected map.
    """
    if INTERPRETED or any(dtype != torch.bfloat16 for dtype in dtypes) or not fits(x.shape, A_log.shape[2]):
        return False
    return _has_gluon() and (not x.is_cuda or _has_products(x.device))


def fits(shape: Sequence[int], state: int) -> bool:
    """Return whether the kernels take the shape of a map.

    Args:
        shape: Shape of the map (batch, dim, height, width).
        state: States of a channel.
    """
    batch, dim, height, width = shape
    if state != 1 or height * width > MOST_TOKENS or dim * height * width >= MOST_ELEMENTS:
        return False
    return height * width <= SHORT or batch * -(-dim // CHANNELS) >= FEWEST_PROGRAMS


@functools.cache
def _has_gluon() -> bool:
    """Return whether the installed Triton has a known form of Gluon.

    Gluon is experimental, so later versions may change it.
    """
    if MISSING is not None or torch.version.hip is not None or find_spec("triton.experimental.gluon") is None:
        return False
    import triton

    version = tuple(map(int, triton.__version__.split(".")[:2]))
    return KNOWN_VERSIONS[0] <= version <= KNOWN_VERSIONS[1]


@functools.cache
def _has_products(device: torch.device) -> bool:
    """Return whether a GPU has products of bfloat16."""
    return torch.cuda.get_device_capability(device) >= (8, 0)


def states_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of the kept states.

    Args:
        shape: Shape of the map (batch, dim, height, width).
    """
    batch, dim, height, width = shape
    return (batch, 4, -(-height * width // walk_for(shape).tokens), 1, dim)


def scan(
    x: Tensor, projected: Tensor, dt_weight: Tensor, dt_bias: Tensor, A_log: Tensor, D_skip: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the merged scan, and the states before each thread's tokens."""
    pixels = _aligned(x.permute(0, 2, 3, 1))
    merged = _sums_like(pixels, x.shape)
    states = merged.new_empty(states_shape(x.shape))
    _forward(x.shape, dt_weight.shape[2])(
        pixels,
        _aligned(projected.permute(0, 3, 4, 1, 2)),
        *map(_wide, (dt_weight, dt_bias, A_log, D_skip)),
        merged,
        states,
    )
    total = merged[0] if len(merged) == 1 else torch.add(*merged)
    return total.permute(0, 3, 1, 2), states


def packed_gradients(
    grad_merged: Tensor,
    x: Tensor,
    projected: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    A_log: Tensor,
    D_skip: Tensor,
    states: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, `projected` and, in parts, all parameters.

    See `triton_backend.packed_gradients`.
    """
    batch, dim, _, _ = x.shape
    rank, blocks = dt_weight.shape[2], -(-dim // CHANNELS)
    pixels = _aligned(x.permute(0, 2, 3, 1))
    of_pixels = _aligned(projected.permute(0, 3, 4, 1, 2))
    grad_x = torch.empty_like(pixels)
    sums = _sums_like(pixels, x.shape)
    grad_projected = of_pixels.new_empty((blocks, *of_pixels.shape))
    parameters = pixels.new_empty((batch, 4 * dim * (rank + 2) + dim), dtype=torch.float32)
    _backward(x.shape, rank, grad_merged.dtype)(
        _aligned(grad_merged.permute(0, 2, 3, 1)),
        pixels,
        of_pixels,
        *map(_wide, (dt_weight, dt_bias, A_log, D_skip)),
        states,
        sums,
        grad_x,
        grad_projected,
        parameters,
    )
    if len(sums) > 1:
        torch.add(*sums, out=grad_x)
    summed = grad_projected[0] if blocks == 1 else grad_projected.sum(0)
    return grad_x.permute(0, 3, 1, 2), summed.permute(0, 3, 4, 1, 2), parameters


def _sums_like(pixels: Tensor, shape: Sequence[int]) -> Tensor:
    """Return memory for the sums over directions, one map each program."""
    return pixels.new_empty((walk_for(shape).programs, *pixels.shape), dtype=torch.float32)


@functools.lru_cache(maxsize=1024)
def _forward(shape: tuple[int, ...], rank: int) -> Launch:
    """Return the launch of the scan for maps of one shape."""
    from scanseg.ops.ss2d import gluon_kernels

    _, dim, height, width = shape
    return Launch(
        gluon_kernels.scan_map,
        _grid(shape),
        (height * width, height, width, dim),
        **forward_constants(shape, rank),
    )


@functools.lru_cache(maxsize=1024)
def _backward(shape: tuple[int, ...], rank: int, grad_dtype: torch.dtype) -> Launch:
    """Return the launch of the gradients for maps of one shape.

    `grad_dtype` is the dtype of the upstream gradient.
    """
    from scanseg.ops.ss2d import gluon_kernels

    batch, dim, height, width = shape
    return Launch(
        gluon_kernels.scan_map_backward,
        _grid(shape),
        (height * width, height, width, dim, batch),
        **backward_constants(shape, rank),
    )


def forget_launches() -> None:
    """Plan launches again, after a change of `walk_for`."""
    _forward.cache_clear()
    _backward.cache_clear()


def _grid(shape: Sequence[int]) -> tuple[int, int, int]:
    return -(-shape[1] // CHANNELS), shape[0], walk_for(shape).programs


def forward_constants(shape: Sequence[int], rank: int) -> dict[str, Any]:
    """Return the compile-time constants of the scan, and Triton's option."""
    return _constants(shape, rank, walk_for(shape).warps)


def backward_constants(shape: Sequence[int], rank: int) -> dict[str, Any]:
    """Return the compile-time constants of the gradients, and Triton's options.

    A product with few columns has those for dt_low, B and C.
    """
    walk, is_joint = walk_for(shape), rank + 2 <= 16
    columns = _power_of_two(rank + 2 if is_joint else rank, least=8)
    constants = _constants(shape, rank, walk.backward_warps) | {"COLUMNS": columns, "JOINT": is_joint}
    return constants if walk.registers is None else constants | {"maxnreg": walk.registers}


def _constants(shape: Sequence[int], rank: int, warps: int) -> dict[str, Any]:
    walk, padded = walk_for(shape), _power_of_two(rank + 1, least=16)
    warps = warps if padded <= MOST_ROWS else 1
    return {
        "R": rank,
        "RP": padded,
        "W": warps,
        "M": walk.tokens,
        "WHOLE": shape[1] % CHANNELS == 0,
        "SPLIT": walk.programs,
        "num_warps": warps,
    }


def _aligned(x: Tensor) -> Tensor:
    """Return a contiguous tensor with an address that copies of tiles need."""
    x = x.contiguous()
    return x.clone() if x.data_ptr() % ALIGNMENT else x


def _wide(parameter: Tensor) -> Tensor:
    return parameter.float().contiguous()


def _power_of_two(columns: int, *, least: int) -> int:
    """Round the columns of a product up."""
    return max(least, 1 << (columns - 1).bit_length())
