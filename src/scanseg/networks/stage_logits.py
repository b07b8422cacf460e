"""Logits of decoders with deep supervision."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from scanseg.layers import convolve


def stage_logits(
    heads: nn.ModuleList, maps: Sequence[Float[Tensor, "batch feature *stage_space"]], *, every_stage: bool
) -> Float[Tensor, "batch class *space"] | tuple[Float[Tensor, "batch class *stage_space"], ...]:
    """Compute logits from the maps of the decoder stages.

    Args:
        heads: 1x1 convolutions from features to logits, one for each of the last stages, in order.
        maps: Maps of all stages of shape (batch, feature, *stage_space), the deepest first.
        every_stage: Return the logits of all heads instead of only the last one.

    Returns:
        Logits of shape (batch, class, *space), or a tuple of them, the highest resolution first.
    """
    if not every_stage:
        return convolve(heads[-1], maps[-1])
    first = len(maps) - len(heads)
    return tuple(
        reversed([convolve(head, stage_map) for head, stage_map in zip(heads, maps[first:], strict=True)])
    )


def class_layers(heads: nn.ModuleList) -> tuple[nn.Conv2d | nn.Conv3d, ...]:
    """Return the last layers of a decoder.

    Args:
        heads: 1x1 convolutions from features to logits.
    """
    return tuple(each for each in heads if isinstance(each, nn.Conv2d | nn.Conv3d))
