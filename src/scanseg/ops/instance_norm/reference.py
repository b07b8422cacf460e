"""Instance norm as written in its paper."""

from torch import Tensor

from scanseg.ops._support.contract import state_dtype


def instance_norm_reference(
    x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None, eps: float, negative_slope: float | None
) -> Tensor:
    """Normalize, add and activate, with the arguments of `instance_norm`.

    The computation is in float32 at least.
    """
    dtype = x.dtype
    x = x.to(state_dtype(x))
    axes = tuple(range(2, x.ndim))
    per_channel = (-1, *(1,) * len(axes))
    centred = x - x.mean(axes, keepdim=True)
    rstd = (centred.square().mean(axes, keepdim=True) + eps).rsqrt()
    y = centred * rstd * weight.view(per_channel) + bias.view(per_channel)
    if residual is not None:
        y = y + residual
    if negative_slope is not None:
        y = y.where(y > 0, negative_slope * y)
    return y.to(dtype)
