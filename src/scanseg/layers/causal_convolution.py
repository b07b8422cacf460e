"""Depthwise convolution over tokens that sees no token ahead."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class CausalConvolution(nn.Module):
    """Depthwise convolution over tokens: each sees itself and the tokens before it, in reading order.

    Args:
        dim: Features of a token.
        kernel_size: Tokens that are seen.
    """

    def __init__(self, dim: int, *, kernel_size: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv1d(dim, dim, kernel_size, groups=dim)

    def forward(
        self, x: Float[Tensor, "batch token dim"], *, reverse: bool
    ) -> Float[Tensor, "batch token dim"]:
        """Convolve; with `reverse` the tokens are read from the last to the first."""
        weight, reach = self.conv.weight, self.conv.weight.shape[-1] - 1
        kernel = weight.flip(-1) if reverse else weight
        padded = F.pad(x.transpose(1, 2), (0, reach) if reverse else (reach, 0))
        return F.conv1d(padded, kernel, self.conv.bias, groups=weight.shape[0]).transpose(1, 2)
