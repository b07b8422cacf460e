"""How a case becomes the array that a network sees."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from scanseg.specs.base import Document


class CTNormalization(Document):
    """Clip to bounds, then subtract and divide by values of the whole data set (Hounsfield units)."""

    kind: Literal["ct"] = "ct"
    lower: float
    upper: float
    mean: float
    standard_deviation: PositiveFloat


class ZScoreNormalization(Document):
    """Subtract the image's own mean and divide by its standard deviation."""

    kind: Literal["zscore"] = "zscore"
    nonzero_only: bool = False
    """Measure, and change, only the voxels of the non-zero part; the rest stays 0."""


class RescaleNormalization(Document):
    """Map [lower, upper] linearly to [low, high], clipping what lies outside."""

    kind: Literal["rescale"] = "rescale"
    lower: float | None = None
    """Intensity that becomes `low`; None: the image's minimum."""
    upper: float | None = None
    """Intensity that becomes `high`; None: the image's maximum."""
    low: float = 0.0
    high: float = 1.0

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.lower is not None and self.upper is not None and self.lower >= self.upper:
            raise ValueError(f"lower {self.lower} must be below upper {self.upper}")
        if self.low >= self.high:
            raise ValueError(f"low {self.low} must be below high {self.high}")
        return self


class NoNormalization(Document):
    """Intensities stay as they are."""

    kind: Literal["none"] = "none"


Normalization = Annotated[
    CTNormalization | ZScoreNormalization | RescaleNormalization | NoNormalization,
    Field(discriminator="kind"),
]


class PreprocessingSpec(Document):
    """Steps in this order: axes permuted, cropped, normalised, resampled.

    Arrays are (channel, z, y, x) throughout; an image of two axes is a volume of one slice.
    """

    axis_order: tuple[int, int, int] = (0, 1, 2)
    """Source axis that becomes z, y and x: the axis of the thickest slices comes first."""
    crop_to_nonzero: bool = True
    """Cut away the planes at the border in which every channel is 0."""
    normalizations: tuple[Normalization, ...] = Field(min_length=1)
    """One for each channel."""
    spacing: tuple[PositiveFloat | None, PositiveFloat, PositiveFloat] | None = None
    """Target spacing in mm along the permuted axes; None, for all or for z, keeps what the source has."""
    slice_size: tuple[PositiveInt, PositiveInt] | None = None
    """Size (y, x) to which every slice is resized instead of a spacing."""
    image_order: Literal[0, 1, 3] = 3
    """Spline order of the image's interpolation."""
    label_order: Literal[0, 1] = 1
    """0: nearest; 1: linear for each label, then the label with most weight."""
    anisotropy_threshold: PositiveFloat = 3.0
    """From this ratio of the largest to the smallest spacing on, z is interpolated apart, by order 0."""

    @property
    def background_value(self) -> tuple[float, ...]:
        """What nothing looks like in each channel: the lowest value where there is one, else the mean, 0."""
        return tuple(
            normalization.low if isinstance(normalization, RescaleNormalization) else 0.0
            for normalization in self.normalizations
        )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if sorted(self.axis_order) != [0, 1, 2]:
            raise ValueError(f"axis_order {self.axis_order} must be a permutation of (0, 1, 2)")
        if self.spacing is not None and self.slice_size is not None:
            raise ValueError("spacing and slice_size exclude each other")
        return self
