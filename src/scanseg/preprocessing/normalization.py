"""Normalization of the intensities of a channel."""

import numpy as np
from jaxtyping import Bool, Float32

from scanseg.specs import CTNormalization, NoNormalization, Normalization, ZScoreNormalization

SMALLEST_DEVIATION = 1e-8
"""Largest standard deviation, or range, of a channel that counts as constant."""


def normalize(
    channel: Float32[np.ndarray, "z y x"],
    normalization: Normalization,
    *,
    nonzero_part: Bool[np.ndarray, "z y x"] | None,
) -> Float32[np.ndarray, "z y x"]:
    """Normalize one channel.

    `zscore` maps a constant channel to 0, and `rescale` with the image's own bounds maps it to `low`.

    Args:
        channel: Intensities (z, y, x) of the cropped image.
        normalization: Normalization of the channel.
        nonzero_part: Mask of the non-zero part, needed by `zscore` with `nonzero_only`.
    """
    if isinstance(normalization, NoNormalization):
        return channel
    if isinstance(normalization, CTNormalization):
        clipped = np.clip(channel, normalization.lower, normalization.upper)
        return (clipped - np.float32(normalization.mean)) / np.float32(normalization.standard_deviation)
    if isinstance(normalization, ZScoreNormalization):
        if not normalization.nonzero_only:
            return _standardize(channel)
        if nonzero_part is None:
            raise ValueError("zscore with nonzero_only needs the non-zero part")
        result = np.zeros_like(channel)
        if nonzero_part.any():
            result[nonzero_part] = _standardize(channel[nonzero_part])
        return result
    lower = np.float32(channel.min() if normalization.lower is None else normalization.lower)
    upper = np.float32(channel.max() if normalization.upper is None else normalization.upper)
    if upper - lower <= SMALLEST_DEVIATION:
        return np.full_like(channel, normalization.low)
    fraction = (np.clip(channel, lower, upper) - lower) / (upper - lower)
    return fraction * np.float32(normalization.high - normalization.low) + np.float32(normalization.low)


def _standardize(values: np.ndarray) -> np.ndarray:
    """Subtract the mean and divide by the standard deviation.

    Sums are computed in double precision.
    """
    mean, deviation = values.mean(dtype=np.float64), values.std(dtype=np.float64)
    if deviation <= SMALLEST_DEVIATION:
        return np.zeros_like(values)
    return (values - np.float32(mean)) / np.float32(deviation)
