"""The feed-forward branch by separate operators, for any device and dtype."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from scanseg.ops._support.branch import BranchStart
from scanseg.ops._support.branch_parts import start_branch
from scanseg.ops.depthwise import depthwise_conv


def feed_forward_composed(
    start: BranchStart,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    *kernels: Tensor,
    eps: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Compute the branch, with the arguments of `feed_forward`.

    Under autocast its dtype is `dtype`.
    """
    total, x = start_branch(start, eps=eps, dtype=dtype)
    hidden = F.linear(x.movedim(1, -1), weight1, bias1).movedim(-1, 1)
    if kernels:
        hidden = depthwise_conv(hidden, merged_kernel(kernels), input_activation="gelu", residual=True)
    else:
        hidden = F.gelu(hidden)
    return total, F.linear(hidden.movedim(1, -1), weight2, bias2).movedim(-1, 1)


def merged_kernel(kernels: Sequence[Tensor]) -> Tensor:
    """Return the sum of depthwise kernels, padded to the largest size.

    Args:
        kernels: Kernels (channel, 1, size, size) of odd sizes.

    Example:
        >>> import torch
        >>> from scanseg.ops import merged_kernel
        >>> merged_kernel([torch.ones(1, 1, 1, 1), torch.ones(1, 1, 3, 3)])[0, 0]
        tensor([[1., 1., 1.],
                [1., 2., 1.],
                [1., 1., 1.]])
    """
    largest = max(kernel.shape[-1] for kernel in kernels)
    margins = [(largest - kernel.shape[-1]) // 2 for kernel in kernels]
    padded = [F.pad(kernel, (margin,) * 4) for kernel, margin in zip(kernels, margins, strict=True)]
    return torch.stack(padded).sum(0)
