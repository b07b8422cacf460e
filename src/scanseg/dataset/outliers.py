"""Cases with unusual spacing, size or intensities in a data set.

A value is far from the median of the others if three conditions hold. The ratio exceeds a factor. The difference
exceeds the usual spread, which is estimated by the median absolute deviation. And few cases have a similar value, as
two protocols in one data set are no fault. A ratio that no protocol explains, such as a wrong unit, is always reported.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from scanseg.messages import counted, listed

SPACING_FACTOR = 2.5
"""Ratio to the median spacing from which a spacing is far."""
_SPACING_ALWAYS = 20.0
"""Ratio of spacings that is always reported."""
_SIZE_FACTOR = 10.0
"""Ratio to the median number of voxels along an axis from which a size is far."""
_INTENSITY_FACTOR = 20.0
"""Ratio to the median range of intensities from which a range is far."""
_DEVIATIONS = 4.0
"""Number of standard deviations, estimated robustly, from which a value is far."""
_MAD_TO_DEVIATION = 1.4826
"""Ratio of the standard deviation to the median absolute deviation of a normal distribution."""
_SIMILAR_FACTOR = 1.5
"""Ratio of similar values."""
_RARE = 0.2
"""Largest fraction of cases with similar values that are still exceptions."""
_AIR = -200.0
"""Hounsfield units that every scan with air or lungs is below."""
_NO_OFFSET = -50.0
"""Minimum in Hounsfield units that no scan with air, lungs or fat exceeds."""
_UNITS = {1e6: "nanometres", 1e3: "micrometres", 1e-1: "centimetres", 1e-3: "metres"}
"""Unit of a spacing by its ratio to millimetres."""


@dataclass(frozen=True)
class ChannelRange:
    """Intensities of one channel of a case."""

    minimum: float
    maximum: float


@dataclass(frozen=True)
class CaseMeasurements:
    """Measurements of one case, for comparison with the other cases."""

    case: str
    spacing: tuple[float, ...]
    """Millimetres per voxel along each axis, in the orientation of the data set."""
    shape: tuple[int, ...]
    """Voxels along each axis, in the orientation of the data set."""
    channels: tuple[ChannelRange, ...]


def find_outliers(cases: Sequence[CaseMeasurements], channel_names: Sequence[str]) -> list[str]:
    """Return a warning for each property with outliers.

    Args:
        cases: Measurements of all cases with the same number of axes.
        channel_names: Names of the channels.
    """
    if len(cases) < 2:
        return []
    warnings = [*_spacing_warnings(cases), *_size_warnings(cases)]
    for number, name in enumerate(channel_names):
        ranges = [case.channels[number] for case in cases if number < len(case.channels)]
        if len(ranges) == len(cases):
            warnings += _intensity_warnings([case.case for case in cases], ranges, name)
    return warnings


def _spacing_warnings(cases: Sequence[CaseMeasurements]) -> list[str]:
    """Return a warning if spacings are outliers."""
    spacings = np.array([case.spacing for case in cases])
    far = _far(spacings, factor=SPACING_FACTOR, always=_SPACING_ALWAYS).any(axis=1)
    if not far.any():
        return []
    usual = np.median(spacings if far.all() else spacings[~far], axis=0)
    named = [
        f"{cases[number].case} {join_sizes(spacings[number])}{unit_hint(spacings[number] / usual)}"
        for number in np.flatnonzero(far).tolist()
    ]
    return [
        f"{_cases(named)}: spacing ({_axes(usual)}) far from most cases, expected about {join_sizes(usual)} "
        f"mm, got {listed(named)}. Check the header"
    ]


def _size_warnings(cases: Sequence[CaseMeasurements]) -> list[str]:
    """Return a warning if sizes in voxels are outliers."""
    shapes = np.array([case.shape for case in cases], dtype=float)
    far = _far(shapes, factor=_SIZE_FACTOR).any(axis=1)
    if not far.any():
        return []
    usual = np.median(shapes[~far] if not far.all() else shapes, axis=0)
    named = [f"{cases[number].case} {join_sizes(shapes[number])}" for number in np.flatnonzero(far).tolist()]
    return [
        f"{_cases(named)}: size ({_axes(usual)}) far from most cases, expected about {join_sizes(usual)} "
        f"voxels, got {listed(named)}. Check the files"
    ]


def _intensity_warnings(names: Sequence[str], ranges: Sequence[ChannelRange], channel: str) -> list[str]:
    """Return a warning if intensities of a channel are outliers.

    Only channels are compared whose values have a unit (CT, 8-bit colours, no normalization). The scale of others, such
    as MRI, differs from scanner to scanner, and each image is normalized by itself.
    """
    kind = channel.casefold()
    if kind not in _KINDS_WITH_UNIT:
        return []
    minima = np.array([each.minimum for each in ranges])
    widths = np.array([each.maximum - each.minimum for each in ranges])
    far = _far(np.maximum(widths, 1e-12)[:, None], factor=_INTENSITY_FACTOR)[:, 0]
    advice = "Check the scale"
    if kind == "ct" and np.median(minima) < _AIR and (minima > _NO_OFFSET).any():
        far |= minima > _NO_OFFSET
        advice = "Save CT in Hounsfield units, with the rescale slope and intercept applied"
    if not far.any():
        return []
    usual = [each for each, is_far in zip(ranges, far, strict=True) if not is_far] or list(ranges)
    low, high = (float(np.median([getattr(each, end) for each in usual])) for end in ("minimum", "maximum"))
    named = [
        f"{names[number]} {ranges[number].minimum:g} to {ranges[number].maximum:g}"
        for number in np.flatnonzero(far).tolist()
    ]
    return [
        f"{_cases(named)}: intensities of channel {channel} far from most cases, expected about {low:g} to "
        f"{high:g}, got {listed(named)}. {advice}"
    ]


_KINDS_WITH_UNIT = frozenset({"ct", "nonorm", "r", "g", "b", "red", "green", "blue", "rgb_to_0_1"})
"""Names of channels, in lower case, whose normalization depends on the unit of their intensities."""


def _far(
    values: Float[np.ndarray, "case property"], *, factor: float, always: float = np.inf
) -> Bool[np.ndarray, "case property"]:
    """Return a mask of the positive values that are outliers.

    Args:
        values: One row for each case.
        factor: Ratio to the median from which a value may be far.
        always: Ratio to most others from which a value is far in any case.
    """
    logs = np.log(values)
    far = np.zeros(values.shape, dtype=bool)
    for column in range(values.shape[1]):
        own = logs[:, column]
        spread = _MAD_TO_DEVIATION * np.median(np.abs(own - np.median(own)))
        for row, value in enumerate(own):
            others = np.delete(own, row)
            distance = abs(value - np.median(others))
            is_extreme = np.median(np.abs(others - value) > np.log(always)) == 1
            similar = np.count_nonzero(np.abs(own - value) <= np.log(_SIMILAR_FACTOR))
            is_rare = similar <= max(1, _RARE * len(own))
            far[row, column] = is_extreme or (
                distance > np.log(factor) and distance > _DEVIATIONS * spread and is_rare
            )
    return far


def join_sizes(sizes: Sequence[float] | np.ndarray) -> str:
    """Return sizes along the axes as text, with three significant digits.

    Args:
        sizes: Sizes along z, y, x or y, x.
    """
    return " x ".join(f"{float(size):.3g}" if size < 1000 else f"{float(size):g}" for size in sizes)


def unit_hint(ratios: Sequence[float] | np.ndarray) -> str:
    """Return the probable unit of a spacing, in brackets.

    The text is empty if no unit explains the spacing.

    Args:
        ratios: Ratio of the spacing to the usual one along each axis.
    """
    for factor, unit in _UNITS.items():
        if all(factor / SPACING_FACTOR < ratio < factor * SPACING_FACTOR for ratio in ratios):
            return f" (perhaps in {unit})"
    return ""


def _axes(sizes: Sequence[float] | np.ndarray) -> str:
    """Return the names of the axes."""
    return ", ".join(("z", "y", "x")[-len(sizes) :])


def _cases(names: Sequence[str]) -> str:
    """Return a number of cases as text."""
    return counted(len(names), "case")
