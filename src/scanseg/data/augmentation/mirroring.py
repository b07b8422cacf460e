"""Flips of patches along their axes."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from scanseg.specs import MirrorTransform


def mirror(
    images: Float[Tensor, "batch channel *axes"],
    label_maps: Int[Tensor, "batch *axes"],
    *,
    spec: MirrorTransform,
    rng: np.random.Generator,
) -> tuple[Float[Tensor, "batch channel *axes"], Int[Tensor, "batch *axes"]]:
    """Flip each patch along each of the axes with probability one half.

    Args:
        images: Patches.
        label_maps: Their label maps, flipped alike.
        spec: The axes, counted from the first spatial axis.
        rng: Source of randomness.
    """
    batch_size = images.shape[0]
    allowed = rng.random(batch_size) < spec.probability
    for axis in spec.axes:
        flipped = torch.from_numpy((rng.random(batch_size) < 0.5) & allowed).to(images.device)
        images = torch.where(_per_patch(flipped, images), images.flip(2 + axis), images)
        label_maps = torch.where(_per_patch(flipped, label_maps), label_maps.flip(1 + axis), label_maps)
    return images, label_maps


def _per_patch(values: Tensor, like: Tensor) -> Tensor:
    """Shape one value a patch so that it spreads over the patch."""
    return values.reshape(-1, *(1,) * (like.ndim - 1))
