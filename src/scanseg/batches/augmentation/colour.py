"""Changes of the colours of patches with three channels.

Source: hue and saturation as linear maps of RGB, after Haeberli 1993, "Matrix operations for image processing".
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

from scanseg.batches.shard import WHOLE_BATCH, BatchShard
from scanseg.batches.transfer import to_device
from scanseg.specs import ColourTransform


def change_colours(
    images: Float[Tensor, "batch 3 *axes"],
    *,
    spec: ColourTransform,
    rngs: Sequence[np.random.Generator],
    shard: BatchShard = WHOLE_BATCH,
) -> Float[Tensor, "batch 3 *axes"]:
    """Change hue, saturation and brightness of each patch.

    Args:
        images: Patches of one or more batches in order.
        spec: Probability and ranges.
        rngs: Source of randomness of each batch.
        shard: Shard of each batch. The result equals its part of the whole batch.

    Returns:
        The changed patches.
    """
    share = len(images) // len(rngs)
    part = shard.of(share * shard.count)
    drawn = [_draw(spec, rng, batch_size=share * shard.count) for rng in rngs]
    matrices, offsets = (np.concatenate([each[number][part] for each in drawn]) for number in range(2))
    sent = to_device(matrices.astype(np.float32), offsets.astype(np.float32), device=images.device)
    ones = (1,) * (images.ndim - 2)
    factors, added = sent[0].view(*sent[0].shape, *ones), sent[1].view(-1, 1, *ones)
    # No matrix product: a GPU may round it to TF32.
    changed = sum((factors[:, :, channel] * images[:, channel, None] for channel in range(3)), start=added)
    return changed.to(images.dtype)


def _draw(
    spec: ColourTransform, rng: np.random.Generator, *, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the colour changes of a batch.

    Returns:
        Map of colours of each patch, (patch, 3, 3), and its added brightness, (patch,).
    """
    changed = rng.random(batch_size) < spec.probability
    angles = np.deg2rad(rng.uniform(*spec.hue_degrees_range, size=batch_size))
    saturations = rng.uniform(*spec.saturation_range, size=batch_size)
    offsets = rng.uniform(*spec.brightness_range, size=batch_size)
    matrices = colour_matrix(angles, saturations)
    matrices[~changed], offsets[~changed] = np.eye(3), 0.0
    return matrices, offsets


def colour_matrix(angles: np.ndarray, saturations: np.ndarray) -> np.ndarray:
    """Return maps of colours that turn the hue and scale the saturation.

    Grey stays grey.

    Args:
        angles: Rotations about the grey axis in radians, (patch,).
        saturations: Factors of the distance from the grey axis, (patch,).

    Returns:
        Matrices of shape (patch, 3, 3).
    """
    grey = np.full((3, 3), 1 / 3)
    turned = np.array([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / np.sqrt(3)
    cosines, sines = np.cos(angles)[:, None, None], np.sin(angles)[:, None, None]
    return np.asarray(grey + saturations[:, None, None] * (cosines * (np.eye(3) - grey) + sines * turned))
