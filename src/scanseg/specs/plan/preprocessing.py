"""Preprocessing of cases: cropping, normalization, resampling."""

from itertools import product
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from scanseg.specs.base import Document, LeftOutDefaults, Size, SpacingMM

_ORIENTATIONS = tuple({*letters} for letters in product("RL", "AP", "SI"))


class CTNormalization(Document):
    """Normalization of CT intensities by values of the whole data set.

    Intensities are clipped to [lower, upper]. Then the mean is subtracted, and the result is divided by the standard
    deviation.
    """

    kind: Literal["ct"] = "ct"
    """Kind of the normalization."""
    lower: float
    """Lower bound in Hounsfield units."""
    upper: float
    """Upper bound in Hounsfield units."""
    mean: float
    """Mean in Hounsfield units."""
    standard_deviation: PositiveFloat
    """Standard deviation in Hounsfield units."""


class ZScoreNormalization(Document):
    """Normalization by the image's own mean and standard deviation."""

    kind: Literal["zscore"] = "zscore"
    """Kind of the normalization."""
    nonzero_only: bool = False
    """Measure and normalize only the voxels of the nonzero mask. The other voxels stay 0."""


class RescaleNormalization(Document):
    """Linear map of [lower, upper] to [low, high], with clipping."""

    kind: Literal["rescale"] = "rescale"
    """Kind of the normalization."""
    lower: float | None = None
    """Intensity that is mapped to `low`. `None`: the image's minimum."""
    upper: float | None = None
    """Intensity that is mapped to `high`. `None`: the image's maximum."""
    low: float = 0.0
    """Lowest normalized value."""
    high: float = 1.0
    """Highest normalized value."""

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.lower is not None and self.upper is not None and self.lower >= self.upper:
            raise ValueError(f"lower: expected a value below upper {self.upper}, got {self.lower}")
        if self.low >= self.high:
            raise ValueError(f"low: expected a value below high {self.high}, got {self.low}")
        return self


class NoNormalization(Document):
    """No normalization: intensities stay unchanged."""

    kind: Literal["none"] = "none"
    """Kind of the normalization."""


Normalization = Annotated[
    CTNormalization | ZScoreNormalization | RescaleNormalization | NoNormalization,
    Field(discriminator="kind"),
]


class PreprocessingSpec(LeftOutDefaults):
    """Preprocessing of cases.

    The axes are permuted, then the case is cropped, normalized and resampled. Neighbouring slices may be added as
    channels. Arrays have shape (channel, z, y, x). A 2D image is a volume of one slice.
    """

    left_out_defaults = ("neighbour_slices",)

    orientation: str | None = None
    """Orientation to which volumes are brought, as axis codes of x, y, z, such as `RAS`. `None`: used as stored."""
    axis_order: tuple[int, int, int] = (0, 1, 2)
    """Axes that become z, y and x, in the plan's orientation. The axis of the thickest slices comes first."""
    crop_to_nonzero: bool = True
    """Crop the planes at the border in which every channel is 0."""
    normalizations: tuple[Normalization, ...] = Field(min_length=1)
    """Normalization of each channel."""
    spacing: tuple[SpacingMM | None, SpacingMM, SpacingMM] | None = None
    """Target spacing in mm along the permuted axes. `None`, for all or for z: the source's spacing."""
    slice_size: tuple[Size, Size] | None = None
    """Size (y, x) in pixels to which every slice is resized. `None`: resample to `spacing` instead."""
    image_order: Literal[0, 1, 3] = 3
    """Spline order of the interpolation of images."""
    label_order: Literal[0, 1] = 1
    """Interpolation of label maps. 0: nearest. 1: linear for each label, then the label with the largest weight."""
    anisotropy_threshold: PositiveFloat = 3.0
    """Ratio of the largest to the smallest spacing from which z is interpolated separately, by order 0."""
    neighbour_slices: int = Field(0, ge=0, le=4)
    """Slices on either side that a 2D network sees beside each slice of a volume, as further channels."""

    @property
    def num_channels(self) -> int:
        """Channels after preprocessing: the image's for each slice."""
        return len(self.normalizations) * (2 * self.neighbour_slices + 1)

    @property
    def background_value(self) -> tuple[float, ...]:
        """Intensity of empty space in each channel after preprocessing.

        It is the lowest value of a rescaled channel, else 0 (the mean).
        """
        of_image = tuple(
            normalization.low if isinstance(normalization, RescaleNormalization) else 0.0
            for normalization in self.normalizations
        )
        return of_image * (2 * self.neighbour_slices + 1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.orientation is not None and (
            len(self.orientation) != 3 or {*self.orientation} not in _ORIENTATIONS
        ):
            raise ValueError(
                f"orientation: expected one letter of each of R/L, A/P and S/I, such as RAS, got {self.orientation!r}"
            )
        if sorted(self.axis_order) != [0, 1, 2]:
            raise ValueError(f"axis_order: expected a permutation of (0, 1, 2), got {self.axis_order}")
        if self.spacing is not None and self.slice_size is not None:
            raise ValueError("spacing and slice_size: expected one of them, got both")
        return self
