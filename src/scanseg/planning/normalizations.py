"""Normalization of each channel by its name."""

from collections.abc import Sequence

from scanseg.specs import (
    CTNormalization,
    DatasetSpec,
    Fingerprint,
    IntensityRange,
    IntensityStatistics,
    NoNormalization,
    Normalization,
    RescaleNormalization,
    ZScoreNormalization,
    is_colour,
)

_NONZERO_BELOW = 0.75
"""Fraction of a typical case kept by cropping, below which z-scores use only nonzero voxels."""
_CT_WINDOW = (-125.0, 275.0)
"""Window of abdominal soft tissue in Hounsfield units, as in TransUNet's form of Synapse."""
_UNKNOWN = IntensityStatistics(
    mean=0, median=0, standard_deviation=0, minimum=0, maximum=0, percentile_00_5=0, percentile_99_5=0
)
_LEAST_CONTRAST = 0.05
"""Fraction of that window that the foreground of CT in Hounsfield units covers at least."""
_COLOURS_OF_8_BITS = (0.0, 255.0)
"""Black and white of 8 bits."""


def nnunet_normalizations(dataset: DatasetSpec, fingerprint: Fingerprint) -> tuple[Normalization, ...]:
    """Return nnU-Net's normalization of each channel.

    CT is normalized by the data set, colours by the range of their type, and other channels by the z-score of each
    image.

    Args:
        dataset: Data set with the names of channels.
        fingerprint: Intensity statistics of the channels.
    """
    return channel_normalizations(
        dataset,
        kept=fingerprint.median_relative_size_after_crop,
        statistics=fingerprint.intensities,
        ranges=fingerprint.intensity_ranges,
    )


def channel_normalizations(
    dataset: DatasetSpec,
    *,
    kept: float,
    statistics: Sequence[IntensityStatistics] | None = None,
    ranges: Sequence[IntensityRange] = (),
) -> tuple[Normalization, ...]:
    """Return nnU-Net's normalization of each channel.

    Args:
        dataset: Data set with the names of channels.
        kept: Median fraction of the voxels of a case that cropping keeps.
        statistics: Intensities of each channel. `None`: unknown, so values of CT are placeholders.
        ranges: Range of each channel over all cases. Empty: unknown, so colours have 8 bits.
    """
    known = statistics or [_UNKNOWN] * dataset.num_channels
    colours = _colour_bounds(dataset, ranges)
    return tuple(
        _nnunet_normalization(name, intensities, colours, nonzero_only=kept < _NONZERO_BELOW)
        for name, intensities in zip(dataset.channel_names, known, strict=True)
    )


def _nnunet_normalization(
    channel_name: str, statistics: IntensityStatistics, colours: tuple[float, float], *, nonzero_only: bool
) -> Normalization:
    """Return nnU-Net's normalization of one channel."""
    match channel_name.casefold():
        case "ct":
            return CTNormalization(
                lower=statistics.percentile_00_5,
                upper=statistics.percentile_99_5,
                mean=statistics.mean,
                standard_deviation=max(statistics.standard_deviation, 1e-8),
            )
        case "nonorm":
            return NoNormalization()
        case "rescale_to_0_1":
            return RescaleNormalization()
        case name if is_colour(name):
            return RescaleNormalization(lower=colours[0], upper=colours[1])
        case _:
            return ZScoreNormalization(nonzero_only=nonzero_only)


def slice_normalizations(dataset: DatasetSpec, fingerprint: Fingerprint) -> tuple[Normalization, ...]:
    """Return the normalization of each channel to [-1, 1].

    CT is scaled from a window, colours from the range of their type, and other channels from minimum to maximum.

    Args:
        dataset: Data set with the names of channels.
        fingerprint: Intensity statistics of the channels.
    """
    colours = _colour_bounds(dataset, fingerprint.intensity_ranges)
    return tuple(
        _slice_normalization(name, statistics, colours)
        for name, statistics in zip(dataset.channel_names, fingerprint.intensities, strict=True)
    )


def _slice_normalization(
    channel_name: str, statistics: IntensityStatistics, colours: tuple[float, float]
) -> Normalization:
    """Return the normalization of one channel to [-1, 1]."""
    name = channel_name.casefold()
    if name == "ct":
        lower, upper = _ct_window(statistics)
        return RescaleNormalization(lower=lower, upper=upper, low=-1, high=1)
    if is_colour(name):
        return RescaleNormalization(lower=colours[0], upper=colours[1], low=-1, high=1)
    return RescaleNormalization(low=-1, high=1)


def _ct_window(statistics: IntensityStatistics) -> tuple[float, float]:
    """Return the window of a CT channel.

    It is the window of abdominal soft tissue if the foreground lies in it. Otherwise (lungs, bones, or values that are
    no Hounsfield units) it reaches from the 0.5th to the 99.5th percentile of the foreground.

    Args:
        statistics: Foreground intensities of the channel.
    """
    low, high = statistics.percentile_00_5, statistics.percentile_99_5
    has_contrast = high - low >= _LEAST_CONTRAST * (_CT_WINDOW[1] - _CT_WINDOW[0])
    if (has_contrast and _CT_WINDOW[0] < statistics.median < _CT_WINDOW[1]) or low >= high:
        return _CT_WINDOW
    return low, high


def _colour_bounds(dataset: DatasetSpec, ranges: Sequence[IntensityRange]) -> tuple[float, float]:
    """Return the intensities of black and white for all colour channels.

    Args:
        dataset: Data set with the names of channels.
        ranges: Range of each channel. Empty: colours have 8 bits.
    """
    colours = [found for name, found in zip(dataset.channel_names, ranges, strict=False) if is_colour(name)]
    return IntensityRange.join(colours).full if colours else _COLOURS_OF_8_BITS
