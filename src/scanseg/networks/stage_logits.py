"""Logits of a decoder whose stages are supervised together."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from scanseg.layers import convolve


def stage_logits(
    heads: nn.ModuleList, maps: Sequence[Float[Tensor, "batch feature *stage_space"]], *, every_stage: bool
) -> Float[Tensor, "batch class *space"] | tuple[Float[Tensor, "batch class *stage_space"], ...]:
    """Turn the maps of the decoder stages into logits.

    Args:
        heads: A 1x1 convolution from features to logits for the last stages, in their order.
        maps: The maps of all stages, the deepest first.
        every_stage: Whether to return the logits of all heads, the highest resolution first, or the last's
            alone.
    """
    if not every_stage:
        return convolve(heads[-1], maps[-1])
    first = len(maps) - len(heads)
    return tuple(
        reversed([convolve(head, stage_map) for head, stage_map in zip(heads, maps[first:], strict=True)])
    )
