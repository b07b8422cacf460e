"""Instance norm with optional residual sum and leaky ReLU.

    y = act((x - mean) * rstd * weight + bias + residual),   rstd = 1 / sqrt(variance + eps)

Mean and (biased) variance are computed over the voxels of one channel of one instance (one sample of the batch).
Source: Ulyanov et al. 2016, arXiv:1607.08022.
"""

import math

from jaxtyping import Float
from torch import Tensor

from scanseg.errors import InputError
from scanseg.ops._support.accepted_calls import recall, remember, signature_of
from scanseg.ops._support.contract import Expected, require_shapes
from scanseg.ops._support.dispatch import Backend, choose
from scanseg.ops._support.triton import INTERPRETED, MISSING
from scanseg.ops.instance_norm.pytorch_backend import instance_norm_pytorch
from scanseg.ops.instance_norm.reference import instance_norm_reference
from scanseg.ops.instance_norm.triton_backend import instance_norm_triton, refuses

__all__ = ["BACKENDS", "instance_norm"]

BACKENDS = {
    "triton": Backend(instance_norm_triton, refuses, MISSING, by_name_only=INTERPRETED, custom=True),
    "pytorch": Backend(instance_norm_pytorch),
    "reference": Backend(instance_norm_reference),
}


def instance_norm(
    x: Float[Tensor, "batch channel *space"],
    weight: Float[Tensor, " channel"],
    bias: Float[Tensor, " channel"],
    *,
    eps: float = 1e-5,
    residual: Float[Tensor, "batch channel *space"] | None = None,
    negative_slope: float | None = None,
    backend: str | None = None,
) -> Float[Tensor, "batch channel *space"]:
    """Normalize every channel of every sample, add a residual and activate.

    Args:
        x: The map, with one to three spatial axes.
        weight: Scale of each channel.
        bias: Offset of each channel.
        eps: Added to the variance.
        residual: Added before the activation. `None`: nothing is added.
        negative_slope: Slope of the leaky ReLU at negative values, 0 or more. `None`: no activation.
        backend: Name of the backend. `None`: the first one that accepts the call.

    Returns:
        A map with the dtype and memory format of `x`. The backend `pytorch` always writes channels first. Statistics
        are computed in float32 at least.

    Raises:
        InputError: Shapes, dtypes or devices do not fit together, or the slope is negative.
        UsageError: The backend is unknown or cannot run the call.
        ValueError: A sample has a single voxel, which has no variance.

    Example:
        >>> import torch
        >>> from scanseg.ops import instance_norm
        >>> x = torch.randn(2, 3, 4, 4, 4)
        >>> y = instance_norm(x, torch.ones(3), torch.zeros(3), residual=x, negative_slope=0.01)
        >>> y.shape
        torch.Size([2, 3, 4, 4, 4])
    """
    signature = signature_of(("instance_norm", negative_slope), backend, x, weight, bias, residual)
    chosen = recall(signature)
    if chosen is None:
        _check(x, weight, bias, residual, negative_slope)
        chosen = choose("instance_norm", BACKENDS, backend, x, weight, bias, residual)
        remember(signature, chosen, operator="instance_norm", first=x)
    return chosen.run(x, weight, bias, residual, eps, negative_slope)


def _check(
    x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None, negative_slope: float | None
) -> None:
    """Check shapes, dtypes, devices and the slope."""
    if not 3 <= x.ndim <= 5 or x.numel() == 0:
        raise InputError(
            "instance_norm: x: expected a map (batch, channel, *space) with one to three spatial axes, none empty, "
            f"got shape {tuple(x.shape)}. Pass such a map."
        )
    channels = (x.shape[1],)
    expected = [
        Expected("x", x, "batch, channel, *space", tuple(x.shape)),
        Expected("weight", weight, "channel", channels),
        Expected("bias", bias, "channel", channels),
    ]
    if residual is not None:
        expected.append(Expected("residual", residual, "batch, channel, *space", tuple(x.shape)))
    require_shapes("instance_norm", *expected)
    if negative_slope is not None and negative_slope < 0:
        raise InputError(
            f"instance_norm: negative_slope: expected 0 or more, got {negative_slope}. Pass None for no activation."
        )
    if math.prod(x.shape[2:]) == 1:
        raise ValueError(f"Expected more than 1 spatial element when training, got input size {x.size()}")
