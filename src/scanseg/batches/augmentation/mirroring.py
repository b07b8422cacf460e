"""Flips of patches along their axes."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from scanseg.batches.shard import WHOLE_BATCH, BatchShard
from scanseg.batches.transfer import to_device
from scanseg.specs import MirrorTransform


def mirror(
    images: Float[Tensor, "batch channel *axes"],
    label_maps: Int[Tensor, "batch *axes"],
    *,
    spec: MirrorTransform,
    rngs: Sequence[np.random.Generator],
    shard: BatchShard = WHOLE_BATCH,
) -> tuple[Float[Tensor, "batch channel *axes"], Int[Tensor, "batch *axes"]]:
    """Flip each patch along each of the axes with probability one half.

    Args:
        images: Patches of one batch or, one behind the other, of several.
        label_maps: Their label maps, flipped alike.
        spec: The axes, counted from the first spatial axis.
        rngs: Source of randomness of each batch.
        shard: Which part of each batch the patches are.
    """
    if not spec.axes:
        return images, label_maps
    share = len(images) // len(rngs)
    flipped = np.concatenate(
        [_draw(spec, rng, batch_size=share * shard.count)[:, shard.of(share * shard.count)] for rng in rngs],
        axis=1,
    )
    size = label_maps.shape[1:]
    numbers = [np.arange(length) for length in (*images.shape[:2], *size)]
    for row, axis in zip(flipped, spec.axes, strict=True):
        there = numbers[2 + axis]
        numbers[2 + axis] = np.where(row[:, None], there[::-1], there)
    index = to_device(*_spread(numbers), device=images.device)
    label_index = [each.squeeze(1) for each in (index[0], *index[2:])]
    return images[index], label_maps[tuple(label_index)]


def _spread(numbers: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Shape an index along each axis, each either of one number a voxel or of as many for each patch."""
    shaped = []
    for axis, each in enumerate(numbers):
        shape = [1] * len(numbers)
        shape[axis] = each.shape[-1]
        if each.ndim == 2:
            shape[0] = len(each)
        shaped.append(each.reshape(shape))
    return shaped


def _draw(spec: MirrorTransform, rng: np.random.Generator, *, batch_size: int) -> np.ndarray:
    """Draw along which axes each patch of a batch is flipped, (axis, patch)."""
    allowed = rng.random(batch_size) < spec.probability
    return np.stack([(rng.random(batch_size) < 0.5) & allowed for _ in spec.axes])
