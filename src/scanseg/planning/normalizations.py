"""Normalization of each channel by its name."""

from collections.abc import Sequence

from scanseg.specs import (
    CTNormalization,
    DatasetSpec,
    Fingerprint,
    IntensityStatistics,
    NoNormalization,
    Normalization,
    RescaleNormalization,
    ZScoreNormalization,
)

_NONZERO_BELOW = 0.75
"""Fraction of a typical case kept by cropping, below which z-scores use only nonzero voxels."""
_CT_WINDOW = (-125.0, 275.0)
"""Window of abdominal soft tissue in Hounsfield units, as in TransUNet's form of Synapse."""
_UNKNOWN = IntensityStatistics(
    mean=0, median=0, standard_deviation=0, minimum=0, maximum=0, percentile_00_5=0, percentile_99_5=0
)


def nnunet_normalizations(dataset: DatasetSpec, fingerprint: Fingerprint) -> tuple[Normalization, ...]:
    """Return nnU-Net's normalization of each channel.

    CT is normalized by the data set, and other channels by the z-score of each image.

    Args:
        dataset: Data set with the names of channels.
        fingerprint: Intensity statistics of the channels.
    """
    kept, statistics = fingerprint.median_relative_size_after_crop, fingerprint.intensities
    return channel_normalizations(dataset, kept=kept, statistics=statistics)


def channel_normalizations(
    dataset: DatasetSpec, *, kept: float, statistics: Sequence[IntensityStatistics] | None = None
) -> tuple[Normalization, ...]:
    """Return nnU-Net's normalization of each channel.

    Args:
        dataset: Data set with the names of channels.
        kept: Median fraction of the voxels of a case that cropping keeps.
        statistics: Intensities of each channel. `None`: unknown, so values of CT are placeholders.
    """
    known = statistics or [_UNKNOWN] * dataset.num_channels
    return tuple(
        _nnunet_normalization(name, intensities, nonzero_only=kept < _NONZERO_BELOW)
        for name, intensities in zip(dataset.channel_names, known, strict=True)
    )


def _nnunet_normalization(
    channel_name: str, statistics: IntensityStatistics, *, nonzero_only: bool
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
            return RescaleNormalization(lower=0, upper=255)
        case _:
            return ZScoreNormalization(nonzero_only=nonzero_only)


def slice_normalizations(dataset: DatasetSpec) -> tuple[Normalization, ...]:
    """Return the normalization of each channel to [-1, 1].

    CT is scaled from a window, colours from 0 to 255, and other channels from minimum to maximum.

    Args:
        dataset: Data set with the names of channels.
    """
    return tuple(_slice_normalization(name) for name in dataset.channel_names)


def _slice_normalization(channel_name: str) -> Normalization:
    """Return the normalization of one channel to [-1, 1]."""
    name = channel_name.casefold()
    if name == "ct":
        return RescaleNormalization(lower=_CT_WINDOW[0], upper=_CT_WINDOW[1], low=-1, high=1)
    if is_colour(name):
        return RescaleNormalization(lower=0, upper=255, low=-1, high=1)
    return RescaleNormalization(low=-1, high=1)


def is_colour(channel_name: str) -> bool:
    """Return whether a channel belongs to an 8-bit colour image.

    Args:
        channel_name: Name of the channel in any case.
    """
    return channel_name.casefold() in ("r", "g", "b", "red", "green", "blue", "rgb_to_0_1")
