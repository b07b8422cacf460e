"""Feed-forward branch with its residual sum and norm, as one operator.

    total = x + added,                           u = norm(total)
    h = GELU(weight1 u + bias1),                 branch = weight2 (h + sum_k depthwise_k(h)) + bias2

Source: Chen et al. 2024 (MS-FFN), arXiv:2408.13735. Convolution is linear, so the kernels are padded to the largest
size and summed, and one convolution replaces all. The map itself is added separately: a one in a 16-bit kernel would
absorb small weights.
"""

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from scanseg.ops._support.accepted_calls import recall, remember, signature_of
from scanseg.ops._support.branch import BranchStart
from scanseg.ops._support.contract import Expected, require_axes, require_shapes
from scanseg.ops._support.dispatch import Backend, choose
from scanseg.ops._support.triton import as_triton_backend
from scanseg.ops.feed_forward.reference import feed_forward_composed, merged_kernel
from scanseg.ops.feed_forward.triton_backend import feed_forward_triton, refuses

__all__ = ["BACKENDS", "feed_forward", "merged_kernel"]

# These backends take a `BranchStart`, and return two tensors.
BACKENDS = {
    "triton": as_triton_backend(feed_forward_triton)._replace(refuses=refuses),  # type: ignore[arg-type]
    "composed": Backend(feed_forward_composed),  # type: ignore[arg-type]
}


def feed_forward(
    start: BranchStart,
    weight1: Float[Tensor, "hidden dim"],
    *,
    bias1: Float[Tensor, " hidden"],
    weight2: Float[Tensor, "out hidden"],
    bias2: Float[Tensor, " out"],
    kernels: Sequence[Float[Tensor, "hidden 1 size size"]] = (),
    eps: float = 1e-5,
    dtype: torch.dtype | None = None,
    backend: str | None = None,
) -> tuple[Float[Tensor, "batch dim height width"], Float[Tensor, "batch out height width"]]:
    """Mix the channels of every pixel, and its surroundings if kernels exist.

    Args:
        start: The map, the last branch, and the norm before the layers.
        weight1: First linear layer.
        bias1: Its bias.
        weight2: Last linear layer.
        bias2: Its bias.
        kernels: Depthwise convolutions between the layers, of odd sizes. They are added to the map. Defaults to none.
        eps: Added to the variance of the norm.
        dtype: Dtype of matrix products and of the branch: that of autocast, if it is enabled. `None`: that of the map.
        backend: Name of the backend. `None`: the first backend to accept the call.

    Returns:
        The sum of the map and the last branch, and the new branch.

    Raises:
        InputError: Shapes, dtypes or devices do not fit together.
        UsageError: The backend is unknown or cannot run the call.

    Example:
        >>> import torch
        >>> from scanseg.layers.feed_forward import FeedForward
        >>> FeedForward(4, kernels=(1, 3))(torch.randn(1, 4, 5, 6)).shape
        torch.Size([1, 4, 5, 6])
    """
    parameters = (weight1, bias1, weight2, bias2, *kernels)
    signature = signature_of("feed_forward", backend, *start, *parameters)
    chosen = recall(signature)
    if chosen is None:
        _check(start, weight1, bias1, weight2, bias2, kernels)
        chosen = choose("feed_forward", BACKENDS, backend, start, *parameters)
        remember(signature, chosen, operator="feed_forward", first=start)
    results = chosen.run(start, *parameters, eps=eps, dtype=start.x.dtype if dtype is None else dtype)
    return cast(tuple[Tensor, Tensor], results)


def _check(
    start: BranchStart,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    kernels: Sequence[Tensor],
) -> None:
    """Check shapes, dtypes and devices."""
    x = start.x
    require_axes("feed_forward", "x", x, "batch dim height width")
    require_axes("feed_forward", "weight1", weight1, "hidden dim")
    require_axes("feed_forward", "weight2", weight2, "out hidden")
    hidden, out = weight1.shape[0], weight2.shape[0]
    require_shapes(
        "feed_forward",
        *start.expected(),
        Expected("weight1", weight1, "hidden, dim", (hidden, x.shape[1])),
        Expected("bias1", bias1, "hidden", (hidden,)),
        Expected("weight2", weight2, "out, hidden", (out, hidden)),
        Expected("bias2", bias2, "out", (out,)),
        *(
            Expected("kernels", kernel, "hidden, 1, size, size", (hidden, 1, *kernel.shape[-1:] * 2))
            for kernel in kernels
        ),
    )
