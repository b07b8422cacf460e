"""Instance norm by PyTorch's operators."""

from torch import Tensor
from torch.nn import functional as F


def instance_norm_pytorch(
    x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None, eps: float, negative_slope: float | None
) -> Tensor:
    """Normalize, add and activate, with the arguments of `instance_norm`."""
    y = F.instance_norm(x, weight=weight, bias=bias, eps=eps)
    if residual is not None:
        y = (y + residual).to(x.dtype)
    # In place, because neither the norm nor the sum needs its result for the gradient.
    return y if negative_slope is None else F.leaky_relu(y, negative_slope, inplace=True)
