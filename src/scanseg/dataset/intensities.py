"""Ranges of the intensities of cases, and colours of different scales."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Shaped

from scanseg.messages import counted, listed
from scanseg.specs import IntensityRange, is_colour

ChannelRanges = tuple[IntensityRange, ...]
"""Range of each channel of a case."""


def measure_ranges(array: Shaped[np.ndarray, "channel *spatial"]) -> ChannelRanges:
    """Return the range of each channel of an image.

    Args:
        array: Intensities (channel, z, y, x) or (channel, y, x), with at least one voxel.
    """
    return tuple(
        IntensityRange(dtype=str(array.dtype), minimum=float(channel.min()), maximum=float(channel.max()))
        for channel in array
    )


def join_ranges(cases: Sequence[ChannelRanges]) -> ChannelRanges:
    """Return the range of each channel over all cases.

    Args:
        cases: Ranges of each case, with the same number of channels.
    """
    return tuple(IntensityRange.join(channel) for channel in zip(*cases, strict=True))


def colour_ranges(
    cases: Mapping[str, ChannelRanges], channel_names: Sequence[str]
) -> dict[str, IntensityRange]:
    """Return the common range of the colour channels of each case.

    Args:
        cases: Ranges of the channels by name of the case.
        channel_names: Names of the channels.

    Returns:
        The ranges by name of the case. Empty if no channel is a colour.
    """
    colours = [index for index, name in enumerate(channel_names) if is_colour(name)]
    if not colours:
        return {}
    return {
        case: IntensityRange.join([ranges[index] for index in colours])
        for case, ranges in cases.items()
        if len(ranges) == len(channel_names)
    }


def find_mixed_scales(colours: Mapping[str, IntensityRange]) -> list[str]:
    """Return a fault if the colours of the cases have different scales.

    Training divides the colours of all cases by one number, so that one scale would be black or white.

    Args:
        colours: Range of the colours by name of the case.
    """
    scales: dict[str, list[str]] = defaultdict(list)
    for case, found in colours.items():
        if found.scale is not None:
            scales[found.scale].append(case)
    if len(scales) < 2:
        return []
    parts = [
        f"{scale} in {counted(len(cases), 'case')} ({listed(cases)})"
        for scale, cases in sorted(scales.items())
    ]
    return [
        f"expected colours of one scale, got {'; '.join(parts)}. Convert all images to one type, such as 8 bits."
    ]


def find_unusual_ct(ranges: ChannelRanges, channel_names: Sequence[str]) -> list[str]:
    """Return a warning for each CT channel without Hounsfield units.

    Args:
        ranges: Range of each channel over all cases.
        channel_names: Names of the channels.
    """
    return [
        f"channel {name}: expected Hounsfield units with air near -1000, got {found.describe()}. Save the images with "
        "their original intensities, or give the channel another name"
        for name, found in zip(channel_names, ranges, strict=True)
        if name.casefold() == "ct" and (found.dtype == "uint8" or (found.minimum >= 0 and found.maximum <= 1))
    ]


def describe_colours(ranges: ChannelRanges, channel_names: Sequence[str]) -> list[str]:
    """Return a line on colours of other types than 8 bits.

    Args:
        ranges: Range of each channel over all cases.
        channel_names: Names of the channels.
    """
    for found in colour_ranges({"": ranges}, channel_names).values():
        if found.dtype != "uint8":
            return [f"colours: {found.describe()}"]
    return []
