"""Tensors that a four-direction scan keeps for its gradients."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from scanseg.ops.ss2d import gluon_backend

SEGMENT = 32
"""Tokens of a segment in the kernels of `triton_backend`. The state at its start is kept."""


def kept_like(x: Tensor, A_log: Tensor, *dtypes: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return empty tensors in the shapes of the kept ones.

    Args:
        x: A tensor with the shape and device of the map.
        A_log: See `ss2d_scan`.
        *dtypes: Dtypes of the map and of the projected map.
    """
    dim, state = x.shape[1], A_log.shape[2]
    wide = torch.float64 if dtypes[0] == torch.float64 else torch.float32
    if gluon_backend.accepts(x, A_log, *dtypes):
        shapes: list[tuple[int, ...]] = [gluon_backend.states_shape(x.shape), (0,), (0,)]
    else:
        shapes = [_states_shape(x.shape, state), (4, state, dim), (dim,)]
    states, rates, skips = (x.new_empty(shape, dtype=wide) for shape in shapes)
    return states, rates, skips


def scan_state_bytes(shape: Sequence[int], *, state: int) -> int:
    """Count the bytes of states that gradients need.

    They are kept by a pass in bfloat16 on a GPU.

    Args:
        shape: Shape of the map (batch, dim, height, width).
        state: States of a channel.

    Example:
        >>> from scanseg.ops import scan_state_bytes
        >>> scan_state_bytes((32, 96, 56, 56), state=1)
        19267584
    """
    in_gluon = gluon_backend.fits(shape, state)
    return 4 * math.prod(gluon_backend.states_shape(shape) if in_gluon else _states_shape(shape, state))


def _states_shape(shape: Sequence[int], state: int) -> tuple[int, ...]:
    """Return the shape of the states at the starts of the segments."""
    batch, dim, height, width = shape
    return (batch, 4, -(-height * width // SEGMENT), state, dim)
