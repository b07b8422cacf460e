"""Causal depthwise convolution over tokens."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class CausalConvolution(nn.Module):
    """Depthwise convolution of each token and its predecessors in reading order.

    Args:
        dim: Features of a token.
        kernel_size: Number of tokens in the kernel, the token itself included.
    """

    def __init__(self, dim: int, *, kernel_size: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv1d(dim, dim, kernel_size, groups=dim)

    def forward(
        self, x: Float[Tensor, "batch token dim"], *, reverse: bool
    ) -> Float[Tensor, "batch token dim"]:
        """Convolve the tokens.

        Args:
            x: The tokens.
            reverse: Whether to read the tokens from the last to the first.
        """
        weight, reach = self.conv.weight, self.conv.weight.shape[-1] - 1
        kernel = weight.flip(-1) if reverse else weight
        padded = F.pad(x.transpose(1, 2), (0, reach) if reverse else (reach, 0))
        return F.conv1d(padded, kernel, self.conv.bias, groups=weight.shape[0]).transpose(1, 2)
