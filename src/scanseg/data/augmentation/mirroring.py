"""Flips of patches along their axes."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from scanseg.data.parts import WHOLE, Part
from scanseg.specs import MirrorTransform


def mirror(
    images: Float[Tensor, "batch channel *axes"],
    label_maps: Int[Tensor, "batch *axes"],
    *,
    spec: MirrorTransform,
    rng: np.random.Generator,
    part: Part = WHOLE,
) -> tuple[Float[Tensor, "batch channel *axes"], Int[Tensor, "batch *axes"]]:
    """Flip each patch along each of the axes with probability one half.

    Args:
        images: Patches.
        label_maps: Their label maps, flipped alike.
        spec: The axes, counted from the first spatial axis.
        rng: Source of randomness.
        part: Which part of a batch the patches are.
    """
    batch_size = len(images) * part.count
    here = part.of(batch_size)
    allowed = rng.random(batch_size) < spec.probability
    for axis in spec.axes:
        flipped = torch.from_numpy(((rng.random(batch_size) < 0.5) & allowed)[here]).to(images.device)
        images = torch.where(_per_patch(flipped, images), images.flip(2 + axis), images)
        label_maps = torch.where(_per_patch(flipped, label_maps), label_maps.flip(1 + axis), label_maps)
    return images, label_maps


def _per_patch(values: Tensor, like: Tensor) -> Tensor:
    """Shape one value a patch so that it spreads over the patch."""
    return values.reshape(-1, *(1,) * (like.ndim - 1))
