"""Random transforms of training patches."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from scanseg.specs.base import Document

Probability = Annotated[float, Field(ge=0, le=1)]
Range = tuple[float, float]


class _Transform(Document):
    """Base class of all transforms."""

    probability: Probability = 1.0
    """Fraction of patches that are transformed."""

    @model_validator(mode="after")
    def _check_ranges(self) -> Self:
        for name, value in self:
            if name.endswith("_range") and value[0] > value[1]:
                raise ValueError(f"{name}: expected (low, high), got {value}")
        return self


class AffineTransform(_Transform):
    """Rotation, scaling, shearing, translation and elastic deformation.

    They are applied in one interpolation: linear for images, nearest for labels.
    """

    kind: Literal["affine"] = "affine"
    """Kind of the transform."""
    rotation_probability: Probability = 0.2
    """Fraction of patches that are rotated."""
    rotation_degrees_range: Range = (-30.0, 30.0)
    """Angle about each axis in degrees. With `in_plane` and for 2D patches, about z only."""
    scale_probability: Probability = 0.2
    """Fraction of patches that are scaled."""
    scale_range: Range = (0.7, 1.4)
    """Factor of the coordinates, the same for all axes. At 1.4 a patch shows 1.4 times as much of the case."""
    shear_probability: Probability = 0.0
    """Fraction of patches that are sheared."""
    shear_degrees_range: Range = (0.0, 0.0)
    """Angle of the shear in degrees."""
    translation_probability: Probability = 0.0
    """Fraction of patches that are shifted."""
    translation_range: Range = (0.0, 0.0)
    """Shift along y and x as a fraction of the patch."""
    elastic_probability: Probability = 0.0
    """Fraction of patches that are deformed elastically, before the linear map. 0 in nnU-Net's default."""
    elastic_scale_range: Range = (0.05, 0.2)
    """Standard deviation of the Gaussian that smooths the random displacements, as a fraction of the patch.

    It is drawn for each axis.
    """
    elastic_magnitude_range: Range = (0.0, 4.0)
    """Largest displacement in voxels, drawn for each axis."""
    in_plane: bool = False
    """Transform all slices of a 3D patch alike, within the slice plane (anisotropic data)."""


class GaussianNoiseTransform(_Transform):
    """Additive Gaussian noise."""

    kind: Literal["gaussian-noise"] = "gaussian-noise"
    """Kind of the transform."""
    probability: Probability = 0.1
    """Fraction of patches that are transformed."""
    deviation_range: Range = (0.0, 0.1)
    """Standard deviation of the noise, in units of the normalized image."""


class GaussianBlurTransform(_Transform):
    """Convolution with a Gaussian."""

    kind: Literal["gaussian-blur"] = "gaussian-blur"
    """Kind of the transform."""
    probability: Probability = 0.2
    """Fraction of patches that are transformed."""
    channel_probability: Probability = 0.5
    """Fraction of the channels that are transformed, in these patches."""
    sigma_range: Range = (0.5, 1.0)
    """Standard deviation of the Gaussian in voxels, drawn for each axis."""


class BrightnessTransform(_Transform):
    """Multiplication of intensities.

    Half of the factors are below 1, as for contrast and gamma.
    """

    kind: Literal["brightness"] = "brightness"
    """Kind of the transform."""
    probability: Probability = 0.15
    """Fraction of patches that are transformed."""
    factor_range: Range = (0.75, 1.25)
    """Factor of the intensities."""


class ContrastTransform(_Transform):
    """Scaling of intensities about the channel's mean.

    Results are clipped to the channel's minimum and maximum.
    """

    kind: Literal["contrast"] = "contrast"
    """Kind of the transform."""
    probability: Probability = 0.15
    """Fraction of patches that are transformed."""
    factor_range: Range = (0.75, 1.25)
    """Factor of the differences from the mean."""


class LowResolutionTransform(_Transform):
    """Downsampling by nearest neighbour, then linear upsampling."""

    kind: Literal["low-resolution"] = "low-resolution"
    """Kind of the transform."""
    probability: Probability = 0.25
    """Fraction of patches that are transformed."""
    channel_probability: Probability = 0.5
    """Fraction of the channels that are transformed, in these patches."""
    zoom_range: Range = (0.5, 1.0)
    """Factor of the number of voxels per axis when downsampling."""
    in_plane: bool = False
    """Keep the resolution of 3D patches along z (anisotropic data)."""


class GammaTransform(_Transform):
    """Power of intensities, scaled to [0, 1].

    Mean and standard deviation are restored.
    """

    kind: Literal["gamma"] = "gamma"
    """Kind of the transform."""
    probability: Probability = 0.3
    """Fraction of patches that are transformed."""
    gamma_range: Range = (0.7, 1.5)
    """Exponent."""
    inverted: bool = False
    """Transform the negative of the image."""


class ColourTransform(_Transform):
    """Changes of hue, saturation and brightness of colour patches.

    They are linear maps of the three channels of a patch, and apply to normalized intensities. Only for three channels.
    """

    kind: Literal["colour"] = "colour"
    """Kind of the transform."""
    probability: Probability = 0.8
    """Fraction of patches that are transformed."""
    hue_degrees_range: Range = (-18.0, 18.0)
    """Rotation of the colours about the grey axis in degrees."""
    saturation_range: Range = (0.6, 1.4)
    """Factor of the differences of the channels from their grey value. 0 gives a grey patch."""
    brightness_range: Range = (-0.3, 0.3)
    """Value added to all channels, in units of the normalized image."""


class MirrorTransform(_Transform):
    """Flips along axes, each with probability 0.5."""

    kind: Literal["mirror"] = "mirror"
    """Kind of the transform."""
    axes: tuple[int, ...]
    """Axes of the patch that may be flipped, counted from its first spatial axis."""


Transform = Annotated[
    AffineTransform
    | GaussianNoiseTransform
    | GaussianBlurTransform
    | BrightnessTransform
    | ContrastTransform
    | LowResolutionTransform
    | GammaTransform
    | ColourTransform
    | MirrorTransform,
    Field(discriminator="kind"),
]
