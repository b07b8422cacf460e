"""Which normalisation a channel gets, by its name."""

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
"""Where cropping keeps less than this part of a typical case, z-scores are taken within the non-zero part."""
_CT_WINDOW = (-125.0, 275.0)
"""Hounsfield units of soft tissue of the abdomen, as TransUNet's form of Synapse has them."""


def nnunet_normalizations(dataset: DatasetSpec, fingerprint: Fingerprint) -> tuple[Normalization, ...]:
    """Return nnU-Net's normalisation of each channel: CT by data set, else the z-score by image."""
    nonzero_only = fingerprint.median_relative_size_after_crop < _NONZERO_BELOW
    return tuple(
        _nnunet_normalization(name, statistics, nonzero_only=nonzero_only)
        for name, statistics in zip(dataset.channel_names, fingerprint.intensities, strict=True)
    )


def _nnunet_normalization(
    channel_name: str, statistics: IntensityStatistics, *, nonzero_only: bool
) -> Normalization:
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
    """Return the normalisation of each channel to [-1, 1]: a window for CT, 0 to 255 for colours, else min to max."""
    return tuple(_slice_normalization(name) for name in dataset.channel_names)


def _slice_normalization(channel_name: str) -> Normalization:
    name = channel_name.casefold()
    if name == "ct":
        return RescaleNormalization(lower=_CT_WINDOW[0], upper=_CT_WINDOW[1], low=-1, high=1)
    if is_colour(name):
        return RescaleNormalization(lower=0, upper=255, low=-1, high=1)
    return RescaleNormalization(low=-1, high=1)


def is_colour(channel_name: str) -> bool:
    """Whether a channel is one of an 8-bit colour image."""
    return channel_name.casefold() in ("r", "g", "b", "red", "green", "blue", "rgb_to_0_1")
