"""Batch normalization, ReLU and depthwise 2D convolution as one operator.

    h = ReLU((x - mean) / sqrt(variance + eps) * norm_weight + norm_bias),    result[c] = weight[c] * h[c] + bias[c]

Mean and (biased) variance are those of the batch in training, else the running ones. On the GPU, h is never in memory.
The operator is the middle part of LKPE.
"""

from jaxtyping import Float
from torch import Tensor

from scanseg.errors import InputError
from scanseg.ops._support.accepted_calls import recall, remember, signature_of
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
    """Normalize, rectify and convolve each channel of a map.

    Args:
        x: The map.
        weight: The kernels, of an odd size and any floating dtype.
        bias: Added to the convolution.
        norm_weight: Factor of each normalized channel.
        norm_bias: Added to each normalized channel.
        running_mean: Mean of each channel over batches. With a momentum it is updated in place, as in
            `torch.nn.functional.batch_norm`.
        running_var: Variance (unbiased) of each channel over batches, updated in the same way.
        momentum: Share of this batch in the running statistics. The map is then normalized by the statistics of the
            batch. `None`: it is normalized by the running statistics, which do not change.
        eps: Added to the variance.
        backend: Name of the backend. `None`: the first one that accepts the call.

    Returns:
        The result, in the dtype of `x`, or that of autocast with the PyTorch backend.

    Raises:
        InputError: Shapes, dtypes or devices do not fit together, the kernel size is even, or a training batch has a
            single pixel.
        UsageError: The backend is unknown or cannot run the call.

    Example:
        >>> import torch
        >>> from scanseg.ops import normed_depthwise_conv
        >>> x, ones, zeros = torch.randn(2, 3, 4, 4), torch.ones(3), torch.zeros(3)
        >>> y = normed_depthwise_conv(
        ...     x,
        ...     torch.ones(3, 1, 3, 3),
        ...     zeros,
        ...     norm_weight=ones,
        ...     norm_bias=zeros,
        ...     running_mean=torch.zeros(3),
        ...     running_var=torch.ones(3),
        ...     momentum=0.1,
        ... )
        >>> y.shape, bool((y >= 0).all())
        (torch.Size([2, 3, 4, 4]), True)
    """
    rest = (bias, norm_weight, norm_bias, running_mean, running_var)
    signature = signature_of(("normed_depthwise_conv", momentum is None), backend, x, weight, *rest)
    chosen = recall(signature)
    if chosen is None:
        names = ("bias", "norm_weight", "norm_bias", "running_mean", "running_var")
        _check(x, weight, dict(zip(names, rest, strict=True)), of_batch=momentum is not None)
        chosen = choose("normed_depthwise_conv", BACKENDS, backend, x, weight, *rest)
        remember(signature, chosen, operator="normed_depthwise_conv", first=x)
    return chosen.run(x, weight, *rest, momentum=momentum, eps=eps)


def _check(x: Tensor, weight: Tensor, rest: dict[str, Tensor], *, of_batch: bool) -> None:
    """Check shapes, dtypes and devices."""
    operator = "normed_depthwise_conv"
    require_axes(operator, "x", x, "batch channel height width")
    require_axes(operator, "weight", weight, "channel 1 size size")
    channels, size = x.shape[1], weight.shape[-1]
    require_shapes(
        operator,
        Expected("x", x, "batch, channel, height, width", tuple(x.shape)),
        Expected("weight", weight, "channel, 1, size, size", (channels, 1, size, size)),
        *(Expected(name, tensor, "channel", (channels,)) for name, tensor in rest.items()),
    )
    if size % 2 == 0:
        raise InputError(
            f"{operator}: expected kernels of an odd size, got {size}. Use an odd size such as {size + 1}."
        )
    if of_batch and x.numel() == channels:
        raise InputError(
            f"{operator}: x: expected at least two pixels for a variance, got shape {tuple(x.shape)}. "
            "Pass a larger batch or map."
        )
