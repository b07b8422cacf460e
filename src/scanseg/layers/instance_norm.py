"""Instance norm as a module, with what follows it."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scanseg.ops import instance_norm


class InstanceNorm(nn.Module):
    """Instance norm with scale and bias, then the sum with a shortcut and leaky ReLU where they are asked for.

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
        """Normalise, add, activate.

        Args:
            x: The map.
            residual: What is added before the activation.
            residual_bias: What is added to every voxel of `residual`: a bias that the convolution that made it
                left to this pass.
            negative_slope: Slope of the leaky ReLU at negative values; None: no activation.
        """
        bias = self.bias if residual_bias is None else self.bias + residual_bias
        return instance_norm(
            x, self.weight, bias, eps=self.eps, residual=residual, negative_slope=negative_slope
        )

    def extra_repr(self) -> str:
        """Return the sizes for the printed form of the module."""
        return f"{self.weight.shape[0]}, eps={self.eps}"
