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
    """Flip each patch along each axis with probability 0.5.

    Args:
        images: Patches of one or more batches in order.
        label_maps: Label maps of the patches, flipped in the same way.
        spec: Axes of mirroring, counted from the first spatial axis.
        rngs: Source of randomness of each batch.
        shard: Shard of each batch.

    Returns:
        Flipped images and label maps.
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
        straight = numbers[2 + axis]
        numbers[2 + axis] = np.where(row[:, None], straight[::-1], straight)
    index = to_device(*_spread(numbers), device=images.device)
    label_index = [each.squeeze(1) for each in (index[0], *index[2:])]
    return images[index], label_maps[tuple(label_index)]


def _spread(numbers: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Reshape one index per axis so that all of them broadcast.

    An index has one number per voxel, or one per patch and voxel.
    """
    shaped = []
    for axis, each in enumerate(numbers):
        shape = [1] * len(numbers)
        shape[axis] = each.shape[-1]
        if each.ndim == 2:
            shape[0] = len(each)
        shaped.append(each.reshape(shape))
    return shaped


def _draw(spec: MirrorTransform, rng: np.random.Generator, *, batch_size: int) -> np.ndarray:
    """Draw the flips of each patch of a batch, (axis, patch)."""
    allowed = rng.random(batch_size) < spec.probability
    return np.stack([(rng.random(batch_size) < 0.5) & allowed for _ in spec.axes])
