"""Nearest upsampling by whole factors, joined with a skip along the channels: the start of a U-Net's decoder stage.

    y = concatenate(repeat x factor times along each axis, skip)

PyTorch has no channels-last kernel for nearest upsampling of 3D maps on GPUs: its result is channels-first, so that the
concatenation is too, and the convolution that follows turns all of it around, forward and backward.
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
    "triton": Backend(upsample_join_triton, refuses, MISSING, by_name_only=INTERPRETED),
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
    """Repeat every voxel of a map along its axes, and put the channels of a skip behind its own.

    Args:
        x: The map, with two or three spatial axes.
        skip: A map of the raised size; None: nothing is joined.
        factors: Voxels out for each voxel in, per axis.
        backend: Name of the backend that must serve; None for the first that accepts.

    Raises:
        InputError: If shapes, dtypes, devices or factors do not fit together.
        UsageError: If the backend asked for is unknown or refuses.
    """
    if x.ndim not in (4, 5) or x.numel() == 0:
        raise InputError(
            f"upsample_join: x has shape {tuple(x.shape)}; pass a map (batch, channel, *space) with two or three "
            "spatial axes, none empty."
        )
    if len(factors) != x.ndim - 2 or min(factors) < 1:
        raise InputError(
            f"upsample_join: factors {tuple(factors)} must be {x.ndim - 2} whole numbers from 1, one for each "
            "spatial axis of x."
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
