"""Layer norm over channels, with optional residual sum or rearrangement.

Every pixel's channels x become (x - mean(x)) / sqrt(var(x) + eps) * weight + bias. Maps that lie in memory with
channels last are not copied.
"""

from collections.abc import Callable
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from scanseg.errors import InputError
from scanseg.ops._support.accepted_calls import recall, remember, signature_of
from scanseg.ops._support.contract import Expected, require_axes, require_shapes
from scanseg.ops._support.dispatch import Backend, choose
from scanseg.ops._support.triton import as_triton_backend
from scanseg.ops.channel_norm.reference import channel_norm_pytorch, channels_to_pixels
from scanseg.ops.channel_norm.triton_backend import channel_norm_triton
from scanseg.ops.channel_norm.triton_backend import refuses as _triton_refuses

__all__ = ["BACKENDS", "channel_norm", "channels_to_pixels", "residual_channel_norm"]

_Results = tuple[Tensor, Tensor]
_Run = Callable[..., Tensor]

# These backends return two tensors, the sum and its norm.
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
    """Normalize every pixel over its channels.

    Args:
        x: The map. With a factor p it is a 2D map with p^2 times the channels of `weight`.
        weight: Factor of each channel.
        bias: Added to each channel.
        eps: Added to the variance.
        dtype: Dtype of the result. `None`: the dtype of `x`, or that of autocast with the PyTorch backend. Statistics
            are float32 at least.
        factor: Factor p of a rearrangement before the norm: channels, split as (row offset, column offset, channel),
            become p times p pixels.
        backend: Name of the backend. `None`: the first one that accepts the call.

    Returns:
        The normalized map, in memory with channels last.

    Raises:
        InputError: Shapes, dtypes or devices do not fit together.
        UsageError: The backend is unknown or cannot run the call.

    Example:
        >>> import torch
        >>> from scanseg.ops import channel_norm
        >>> x, weight, bias = torch.randn(1, 8, 4, 4), torch.ones(8), torch.zeros(8)
        >>> y = channel_norm(x, weight, bias)
        >>> y.shape, bool(y.mean(1).abs().max() < 1e-6)
        (torch.Size([1, 8, 4, 4]), True)
        >>> channel_norm(x, torch.ones(2), torch.zeros(2), factor=2).shape
        torch.Size([1, 2, 8, 8])
    """
    signature = signature_of(("channel_norm", factor), backend, x, weight, bias)
    chosen = recall(signature)
    if chosen is None:
        _check("channel_norm", x, weight, bias, factor=factor)
        chosen = choose("channel_norm", BACKENDS, backend, x, None, None, weight, bias)
        remember(signature, chosen, operator="channel_norm", first=x)
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
    """Add a branch to a map and normalize the sum over channels.

    Args:
        x: The map.
        added: The branch.
        weight: Factor of each channel.
        bias: Added to each channel.
        sample_scale: Factor of the branch for each sample (stochastic depth). It gets no gradient. `None`: 1.
        eps: Added to the variance.
        dtype: Dtype of the normalized map. `None`: the dtype of the sum.
        backend: Name of the backend. `None`: the first one that accepts the call.

    Returns:
        The sum, in the wider dtype of the two maps, and the normalized map.

    Raises:
        InputError: Shapes, dtypes or devices do not fit together.
        UsageError: The backend is unknown or cannot run the call.

    Example:
        >>> import torch
        >>> from scanseg.ops import residual_channel_norm
        >>> x, branch = torch.ones(2, 4, 3, 3), torch.ones(2, 4, 3, 3)
        >>> scale = torch.tensor([0.0, 2.0])
        >>> total, normed = residual_channel_norm(x, branch, torch.ones(4), torch.zeros(4), sample_scale=scale)
        >>> total[:, 0, 0, 0], normed.shape
        (tensor([1., 3.]), torch.Size([2, 4, 3, 3]))
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
            f"{operator}: x: expected the axes (batch channel *space), none empty, got shape {tuple(x.shape)}. "
            "Pass a tensor with these axes."
        )
    if factor != 1 and (x.ndim != 4 or factor < 1):
        raise InputError(
            f"{operator}: expected a positive factor and a map (batch, channel, height, width), got factor {factor} "
            f"and shape {tuple(x.shape)}. Leave `factor` out for other maps."
        )
    channels = x.shape[1] // factor**2
    require_shapes(
        operator,
        Expected("x", x, "batch, channel, ...", (x.shape[0], channels * factor**2, *x.shape[2:])),
        Expected("weight", weight, "channel", (channels,)),
        Expected("bias", bias, "channel", (channels,)),
        *others,
    )
