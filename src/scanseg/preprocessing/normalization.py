"""Normalization of the intensities of a channel."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32

from scanseg.specs import (
    CTNormalization,
    IntensityRange,
    NoNormalization,
    Normalization,
    RescaleNormalization,
    ZScoreNormalization,
    is_colour,
)

SMALLEST_DEVIATION = 1e-8
"""Largest standard deviation, or range, of a channel that counts as constant.

It is relative to the largest absolute value if that is below 1, as in maps in SI units.
"""
_FAR_ABOVE = 2.0
"""Ratio of the highest colour to the range of the plan from which an image has another scale."""
_FAR_BELOW = 4.0
"""Ratio of the range of the plan to that of the type from which an image has another scale."""
_LEAST_COVERED = 0.05
"""Fraction of a window below which a channel is almost constant after the normalization."""


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
    if upper - lower <= SMALLEST_DEVIATION * min(1.0, max(abs(float(lower)), abs(float(upper)))):
        return np.full_like(channel, normalization.low)
    fraction = (np.clip(channel, lower, upper) - lower) / (upper - lower)
    return fraction * np.float32(normalization.high - normalization.low) + np.float32(normalization.low)


def _standardize(values: np.ndarray) -> np.ndarray:
    """Subtract the mean and divide by the standard deviation.

    Sums are computed in double precision.
    """
    mean, deviation = values.mean(dtype=np.float64), values.std(dtype=np.float64)
    if deviation <= SMALLEST_DEVIATION and _is_constant(values, deviation):
        return np.zeros_like(values)
    return (values - np.float32(mean)) / np.float32(deviation)


def _is_constant(values: np.ndarray, deviation: np.floating) -> bool:
    """Return whether a deviation is negligible or beyond float32."""
    largest = float(np.abs(values).max())
    return bool(deviation <= SMALLEST_DEVIATION * min(1.0, largest)) or not np.float32(deviation)


def find_range_faults(
    ranges: Sequence[IntensityRange], normalizations: Sequence[Normalization], channel_names: Sequence[str]
) -> list[str]:
    """Compare the colours of an image with the range of the plan.

    Values above twice the range are white to the network. Colours of a type with at most a quarter of the range are
    nearly black.

    Args:
        ranges: Range of each channel of the image, or of a data set.
        normalizations: Normalization of each channel.
        channel_names: Names of the channels.

    Returns:
        One phrase with both ranges. Empty if they fit, or if no channel is a colour with a fixed range.
    """
    colours = [
        (found, (normalization.lower, normalization.upper))
        for found, normalization, name in zip(ranges, normalizations, channel_names, strict=False)
        if is_colour(name) and isinstance(normalization, RescaleNormalization)
    ]
    bounds = {limits for _, limits in colours}
    if len(bounds) != 1:
        return []
    lower, upper = bounds.pop()
    if lower is None or upper is None:
        return []
    found = IntensityRange.join([each for each, _ in colours])
    is_above = found.maximum - lower > _FAR_ABOVE * (upper - lower)
    is_below = found.scale in ("0 to 1", "8 bits") and found.full[1] - lower <= (upper - lower) / _FAR_BELOW
    if not is_above and not is_below:
        return []
    return [
        f"colours: expected about {lower:g} to {upper:g} as in the plan, got {found.describe()}. Convert the images to "
        "the type of the training"
    ]


def find_hidden_channels(
    ranges: Sequence[IntensityRange], normalizations: Sequence[Normalization], channel_names: Sequence[str]
) -> list[str]:
    """Compare the intensities of an image with the window of the plan.

    Args:
        ranges: Range of each channel of the image.
        normalizations: Normalization of each channel.
        channel_names: Names of the channels.

    Returns:
        A phrase for each channel that covers less than a twentieth of its window, so that it is almost constant after
        the normalization. Colours are left to `find_range_faults`.
    """
    faults = []
    for found, normalization, name in zip(ranges, normalizations, channel_names, strict=False):
        if is_colour(name) or not isinstance(normalization, CTNormalization | RescaleNormalization):
            continue
        lower, upper = normalization.lower, normalization.upper
        if lower is None or upper is None or upper <= lower:
            continue
        covered = min(found.maximum, upper) - max(found.minimum, lower)
        if covered < _LEAST_COVERED * (upper - lower):
            faults.append(
                f"channel {name}: expected intensities in the window from {lower:g} to {upper:g} of the plan, got "
                f"{found.describe()}. Check the units of the image"
            )
    return faults
