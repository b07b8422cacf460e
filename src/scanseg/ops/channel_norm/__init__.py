"""Layer norm over the channels of a map, alone or with the residual connection or the rearrangement before it.

Every pixel's channels x become (x - mean(x)) / sqrt(var(x) + eps) * weight + bias. Maps that lie in memory with
channels last are not copied.
"""

from collections.abc import Callable
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from scanseg.errors import InputError
from scanseg.ops._support.contract import Expected, require_axes, require_shapes
from scanseg.ops._support.dispatch import Backend, choose
from scanseg.ops._support.triton import as_triton_backend
from scanseg.ops.channel_norm.reference import channel_norm_pytorch, channels_to_pixels
from scanseg.ops.channel_norm.triton_backend import channel_norm_triton
from scanseg.ops.channel_norm.triton_backend import refuses as _triton_refuses

__all__ = ["BACKENDS", "channel_norm", "channels_to_pixels", "residual_channel_norm"]

_Results = tuple[Tensor, Tensor]
_Run = Callable[..., Tensor]

# These backends return two tensors, the sum and the norm of it.
BACKENDS = {
    "triton": as_triton_backend(cast(_Run, channel_norm_triton))._replace(refuses=_triton_refuses),
    "pytorch": Backend(cast(_Run, channel_norm_pytorch)),
}


def channel_norm(
    x: Float[Tensor, "batch channel *space"],
    weight: Float[Tensor, " channel"],
    bias: Float[Tensor, " channel"],
    *,
    eps: float = 1e-5,
    dtype: torch.dtype | None = None,
    factor: int = 1,
    backend: str | None = None,
) -> Float[Tensor, "batch channel *space"]:
    """Normalise every pixel over its channels.

    Args:
        x: The map; with a factor p, a 2D map of p^2 times the channels of `weight`.
        weight: Factor of each channel.
        bias: Added to each channel.
        eps: Added to the variance.
        dtype: Dtype of the result; None for that of `x` (under autocast with PyTorch: what autocast makes of it).
            Statistics are float32 at least.
        factor: p: channels, split as (row offset, column offset, channel), first become p times p pixels.
        backend: Name of the backend that must serve; None for the first that accepts.

    Returns:
        The normalised map, laid out with channels last.

    Raises:
        InputError: If shapes, dtypes or devices do not fit together.
        UsageError: If the backend asked for is unknown or refuses.
    """
    _check("channel_norm", x, weight, bias, factor=factor)
    chosen = choose("channel_norm", BACKENDS, backend, x, None, None, weight, bias)
    results = cast(_Results, chosen.run(x, None, None, weight, bias, eps=eps, dtype=dtype, factor=factor))
    return results[1]


def residual_channel_norm(
    x: Float[Tensor, "batch channel *space"],
    added: Float[Tensor, "batch channel *space"],
    weight: Float[Tensor, " channel"],
    bias: Float[Tensor, " channel"],
    *,
    sample_scale: Float[Tensor, " batch"] | None = None,
    eps: float = 1e-5,
    dtype: torch.dtype | None = None,
    backend: str | None = None,
) -> tuple[Float[Tensor, "batch channel *space"], Float[Tensor, "batch channel *space"]]:
    """Add a branch to a map, and normalise every pixel of the sum over its channels.

    Args:
        x: The map.
        added: The branch.
        weight: Factor of each channel.
        bias: Added to each channel.
        sample_scale: Factor of the branch for each sample (stochastic depth); it gets no gradient.
        eps: Added to the variance.
        dtype: Dtype of the normalised map; None for that of the sum.
        backend: Name of the backend that must serve; None for the first that accepts.

    Returns:
        The sum, in the wider dtype of the two maps, and the normalised map.

    Raises:
        InputError: If shapes, dtypes or devices do not fit together.
        UsageError: If the backend asked for is unknown or refuses.
    """
    others = [Expected("added", added, "as x", tuple(x.shape))]
    if sample_scale is not None:
        sample_scale = sample_scale.detach()
        others.append(Expected("sample_scale", sample_scale, "batch", (x.shape[0],)))
    _check("residual_channel_norm", x, weight, bias, *others)
    chosen = choose("residual_channel_norm", BACKENDS, backend, x, added, sample_scale, weight, bias)
    results = chosen.run(x, added, sample_scale, weight, bias, eps=eps, dtype=dtype, factor=1)
    return cast(_Results, results)


def _check(
    operator: str, x: Tensor, weight: Tensor, bias: Tensor, *others: Expected, factor: int = 1
) -> None:
    require_axes(operator, "weight", weight, "channel")
    if x.ndim < 3 or x.numel() == 0:
        raise InputError(
            f"{operator}: x has shape {tuple(x.shape)}; pass a tensor with the axes (batch channel *space), none empty."
        )
    if factor != 1 and (x.ndim != 4 or factor < 1):
        raise InputError(
            f"{operator}: factor {factor} with a map of shape {tuple(x.shape)}; rearranging takes a positive factor "
            "and a map (batch, channel, height, width)."
        )
    channels = x.shape[1] // factor**2
    require_shapes(
        operator,
        Expected("x", x, "batch, channel, ...", (x.shape[0], channels * factor**2, *x.shape[2:])),
        Expected("weight", weight, "channel", (channels,)),
        Expected("bias", bias, "channel", (channels,)),
        *others,
    )
