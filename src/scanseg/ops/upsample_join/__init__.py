"""Nearest upsampling by whole factors, concatenated with a skip.

    y = concatenate(repeat x factor times along each axis, skip)

This is the start of a U-Net's decoder stage. PyTorch has no channels-last kernel for nearest upsampling of 3D maps on
GPUs. Its result is channels-first, and so is the concatenation, which the next convolution then copies to another
layout, forward and backward.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from scanseg.errors import InputError
from scanseg.ops._support.contract import Expected, require_shapes
from scanseg.ops._support.dispatch import Backend, choose
from scanseg.ops._support.triton import INTERPRETED, MISSING
from scanseg.ops.upsample_join.pytorch_backend import upsample_join_pytorch
from scanseg.ops.upsample_join.reference import upsample_join_reference
from scanseg.ops.upsample_join.triton_backend import refuses, upsample_join_triton

__all__ = ["BACKENDS", "upsample_join"]

BACKENDS = {
    "triton": Backend(upsample_join_triton, refuses, MISSING, by_name_only=INTERPRETED, custom=True),
    "pytorch": Backend(upsample_join_pytorch),
    "reference": Backend(upsample_join_reference),
}


def upsample_join(
    x: Float[Tensor, "batch channel *space"],
    skip: Float[Tensor, "batch skip_channel *fine_space"] | None,
    *,
    factors: Sequence[int],
    backend: str | None = None,
) -> Float[Tensor, "batch joined_channel *fine_space"]:
    """Upsample a map by repetition and append the channels of a skip.

    Args:
        x: The map, with two or three spatial axes.
        skip: A map of the upsampled size. `None`: nothing is appended.
        factors: Output voxels for each input voxel, per axis.
        backend: Name of the backend. `None`: the first one that accepts the call.

    Returns:
        The upsampled map, followed by the channels of the skip.

    Raises:
        InputError: Shapes, dtypes, devices or factors do not fit together.
        UsageError: The backend is unknown or cannot run the call.

    Example:
        >>> import torch
        >>> from scanseg.ops import upsample_join
        >>> x, skip = torch.ones(1, 4, 3, 3), torch.zeros(1, 2, 6, 6)
        >>> upsample_join(x, skip, factors=(2, 2)).shape
        torch.Size([1, 6, 6, 6])
    """
    if x.ndim not in (4, 5) or x.numel() == 0:
        raise InputError(
            "upsample_join: x: expected a map (batch, channel, *space) with two or three spatial axes, none empty, "
            f"got shape {tuple(x.shape)}. Pass such a map."
        )
    if len(factors) != x.ndim - 2 or min(factors) < 1:
        raise InputError(
            f"upsample_join: factors: expected {x.ndim - 2} whole numbers from 1 on, got {tuple(factors)}. "
            "Pass one factor for each spatial axis of x."
        )
    expected = [Expected("x", x, "batch, channel, *space", tuple(x.shape))]
    if skip is not None:
        fine = tuple(size * factor for size, factor in zip(x.shape[2:], factors, strict=True))
        channels = skip.shape[1] if skip.ndim == x.ndim else 1
        shape = (x.shape[0], channels, *fine)
        expected.append(Expected("skip", skip, "batch, skip_channel, *fine_space", shape))
    require_shapes("upsample_join", *expected)
    chosen = choose("upsample_join", BACKENDS, backend, x, skip)
    return chosen.run(x, skip, tuple(factors))
