"""Random changes of training patches, in the order in which they are applied."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from scanseg.specs.base import Document

Probability = Annotated[float, Field(ge=0, le=1)]
Range = tuple[float, float]


class _Transform(Document):
    """What every transform has."""

    probability: Probability = 1.0
    """How often a patch is changed."""

    @model_validator(mode="after")
    def _check_ranges(self) -> Self:
        for name, value in self:
            if name.endswith("_range") and value[0] > value[1]:
                raise ValueError(f"{name} {value} must not fall")
        return self


class AffineTransform(_Transform):
    """Rotation, scaling, shearing, translation, elastic deformation: one interpolation (linear; labels nearest)."""

    kind: Literal["affine"] = "affine"
    rotation_probability: Probability = 0.2
    rotation_degrees_range: Range = (-30.0, 30.0)
    """Angle about each axis; about z alone where `in_plane`, and for 2D patches."""
    scale_probability: Probability = 0.2
    scale_range: Range = (0.7, 1.4)
    """Factor on the coordinates, one for all axes: at 1.4 a patch shows 1.4 times as much of the case."""
    shear_probability: Probability = 0.0
    shear_degrees_range: Range = (0.0, 0.0)
    translation_probability: Probability = 0.0
    translation_range: Range = (0.0, 0.0)
    """Shift along y and x as a fraction of the patch."""
    elastic_probability: Probability = 0.0
    """How often a patch is deformed elastically, before the linear map; never in nnU-Net's default."""
    elastic_scale_range: Range = (0.05, 0.2)
    """Deviation of the Gaussian that smooths the random steps, drawn for each axis, as a fraction of the patch."""
    elastic_magnitude_range: Range = (0.0, 4.0)
    """Largest step along an axis, drawn for each axis, in voxels."""
    in_plane: bool = False
    """3D patches are changed slice by slice alike (anisotropic data)."""


class GaussianNoiseTransform(_Transform):
    """Add normal noise."""

    kind: Literal["gaussian-noise"] = "gaussian-noise"
    probability: Probability = 0.1
    deviation_range: Range = (0.0, 0.1)
    """Standard deviation, in units of the normalised image."""


class GaussianBlurTransform(_Transform):
    """Convolve with a Gaussian."""

    kind: Literal["gaussian-blur"] = "gaussian-blur"
    probability: Probability = 0.2
    channel_probability: Probability = 0.5
    sigma_range: Range = (0.5, 1.0)
    """Standard deviation in voxels, drawn for each axis."""


class BrightnessTransform(_Transform):
    """Multiply intensities; half of the factors are below 1, as for contrast and gamma."""

    kind: Literal["brightness"] = "brightness"
    probability: Probability = 0.15
    factor_range: Range = (0.75, 1.25)


class ContrastTransform(_Transform):
    """Stretch intensities about the channel's mean; the channel's extremes are kept as bounds."""

    kind: Literal["contrast"] = "contrast"
    probability: Probability = 0.15
    factor_range: Range = (0.75, 1.25)


class LowResolutionTransform(_Transform):
    """Sample down by nearest neighbour and up again linearly."""

    kind: Literal["low-resolution"] = "low-resolution"
    probability: Probability = 0.25
    channel_probability: Probability = 0.5
    zoom_range: Range = (0.5, 1.0)
    in_plane: bool = False
    """3D patches keep their resolution along z (anisotropic data)."""


class GammaTransform(_Transform):
    """Raise intensities, scaled to [0, 1], to a power; mean and deviation are kept."""

    kind: Literal["gamma"] = "gamma"
    probability: Probability = 0.3
    gamma_range: Range = (0.7, 1.5)
    inverted: bool = False
    """Act on the negative of the image."""


class MirrorTransform(_Transform):
    """Flip, along each axis by itself with probability one half."""

    kind: Literal["mirror"] = "mirror"
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
    | MirrorTransform,
    Field(discriminator="kind"),
]
