"""Instance norm with the residual sum and activation after it."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scanseg.ops import instance_norm


class InstanceNorm(nn.Module):
    """Instance norm with scale and bias, optional residual sum and leaky ReLU.

    Args:
        num_channels: Channels of the map.
        eps: Added to the variance.
    """

    def __init__(self, num_channels: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))

    def forward(
        self,
        x: Float[Tensor, "batch channel *space"],
        *,
        residual: Float[Tensor, "batch channel *space"] | None = None,
        residual_bias: Float[Tensor, " channel"] | None = None,
        negative_slope: float | None = None,
    ) -> Float[Tensor, "batch channel *space"]:
        """Normalize, add the residual and activate.

        Args:
            x: The map.
            residual: Added before the activation. `None`: nothing is added.
            residual_bias: Added to every voxel of `residual`, such as the bias of the convolution before it.
            negative_slope: Slope of the leaky ReLU at negative values. `None`: no activation.
        """
        bias = self.bias if residual_bias is None else self.bias + residual_bias
        return instance_norm(
            x, self.weight, bias, eps=self.eps, residual=residual, negative_slope=negative_slope
        )

    def extra_repr(self) -> str:
        """Return the sizes for the representation of the module."""
        return f"{self.weight.shape[0]}, eps={self.eps}"
