"""Batch normalisation, ReLU and a depthwise 2D convolution in one: the middle of LKPE.

    h = ReLU((x - mean) / sqrt(variance + eps) * norm_weight + norm_bias),    result[c] = weight[c] * h[c] + bias[c]

Mean and (biased) variance are those of the batch in training, else running ones. On the GPU h is never in memory.
"""

from jaxtyping import Float
from torch import Tensor

from scanseg.errors import InputError
from scanseg.ops._support.contract import Expected, require_axes, require_shapes
from scanseg.ops._support.dispatch import Backend, choose
from scanseg.ops._support.triton import as_triton_backend
from scanseg.ops.normed_depthwise.reference import normed_depthwise_conv_pytorch
from scanseg.ops.normed_depthwise.triton_backend import normed_depthwise_conv_triton
from scanseg.ops.normed_depthwise.triton_backend import refuses as _triton_refuses

__all__ = ["BACKENDS", "normed_depthwise_conv"]

BACKENDS = {
    "triton": as_triton_backend(normed_depthwise_conv_triton)._replace(refuses=_triton_refuses),
    "pytorch": Backend(normed_depthwise_conv_pytorch),
}


def normed_depthwise_conv(
    x: Float[Tensor, "batch channel height width"],
    weight: Float[Tensor, "channel 1 size size"],
    bias: Float[Tensor, " channel"],
    *,
    norm_weight: Float[Tensor, " channel"],
    norm_bias: Float[Tensor, " channel"],
    running_mean: Float[Tensor, " channel"],
    running_var: Float[Tensor, " channel"],
    momentum: float | None,
    eps: float = 1e-5,
    backend: str | None = None,
) -> Float[Tensor, "batch channel height width"]:
    """Normalise each channel of a map, rectify it, and convolve it with its own kernel.

    Args:
        x: The map.
        weight: The kernels, of an odd size; in any precision.
        bias: Added to the convolution.
        norm_weight: Factor of each normalised channel.
        norm_bias: Added to each normalised channel.
        running_mean: Mean of each channel over batches; with a momentum it is moved to this batch's, in place, as
            `torch.nn.functional.batch_norm` does.
        running_var: Variance of each channel over batches (unbiased), likewise.
        momentum: Share of this batch in the running statistics, and the map is normalised by the batch's own; None to
            normalise it by the running ones.
        eps: Added to the variance.
        backend: Name of the backend that must serve; None for the first that accepts.

    Returns:
        The result, in the dtype of `x` (under autocast with PyTorch: in that of the autocast).

    Raises:
        InputError: If shapes, dtypes or devices do not fit together, the size of the kernels is even, or a batch has
            a single pixel.
        UsageError: If the backend asked for is unknown or refuses.
    """
    operator = "normed_depthwise_conv"
    require_axes(operator, "x", x, "batch channel height width")
    require_axes(operator, "weight", weight, "channel 1 size size")
    channels, size = x.shape[1], weight.shape[-1]
    rest = {
        "bias": bias,
        "norm_weight": norm_weight,
        "norm_bias": norm_bias,
        "running_mean": running_mean,
        "running_var": running_var,
    }
    require_shapes(
        operator,
        Expected("x", x, "batch, channel, height, width", tuple(x.shape)),
        Expected("weight", weight, "channel, 1, size, size", (channels, 1, size, size)),
        *(Expected(name, tensor, "channel", (channels,)) for name, tensor in rest.items()),
    )
    if size % 2 == 0:
        raise InputError(f"{operator}: kernels of size {size}; the size must be odd, as {size + 1}.")
    if momentum is not None and x.numel() == channels:
        raise InputError(
            f"{operator}: x has shape {tuple(x.shape)}; one pixel has no variance, pass a larger batch or map."
        )
    chosen = choose(operator, BACKENDS, backend, x, weight, *rest.values())
    return chosen.run(x, weight, *rest.values(), momentum=momentum, eps=eps)
