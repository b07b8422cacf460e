"""Default augmentation of the recipes."""

import re
from collections.abc import Sequence

from scanseg.specs import (
    AffineTransform,
    BrightnessTransform,
    ContrastTransform,
    DatasetSpec,
    GammaTransform,
    GaussianBlurTransform,
    GaussianNoiseTransform,
    LowResolutionTransform,
    MirrorTransform,
    Transform,
)

_FLAT_RATIO = 3.0
"""From this ratio of the longest axis to the first on, a 3D patch is rotated in its plane only."""
_SIDES = frozenset({"left", "right", "lh", "rh", "l", "r"})
"""Words in the names of labels that are told apart by their side."""
_LONG_RATIO = 1.5
"""From this ratio on a 2D patch is too long to be turned around."""


def nnunet_augmentation(patch_size: Sequence[int], *, mirror_axes: tuple[int, ...]) -> tuple[Transform, ...]:
    """Return nnU-Net's transforms with its probabilities and ranges, without elastic deformation."""
    flat = len(patch_size) == 3 and max(patch_size) / patch_size[0] > _FLAT_RATIO
    if len(patch_size) == 2:
        degrees = 15.0 if max(patch_size) / min(patch_size) > _LONG_RATIO else 180.0
    else:
        degrees = 180.0 if flat else 30.0
    return (
        AffineTransform(rotation_degrees_range=(-degrees, degrees), in_plane=flat),
        GaussianNoiseTransform(),
        GaussianBlurTransform(),
        BrightnessTransform(),
        ContrastTransform(),
        LowResolutionTransform(in_plane=flat),
        GammaTransform(probability=0.1, inverted=True),
        GammaTransform(),
        MirrorTransform(axes=mirror_axes),
    )


def fast_augmentation(patch_size: Sequence[int], *, mirror_axes: tuple[int, ...]) -> tuple[Transform, ...]:
    """Return nnU-Net's transforms with warps in most patches: what a fast training would else learn by heart."""
    affine, *others = nnunet_augmentation(patch_size, mirror_axes=mirror_axes)
    warps = {"rotation_probability": 0.5, "scale_probability": 0.5, "elastic_probability": 0.3}
    return (affine.model_copy(update=warps), *others)


def slice_augmentation(*, mirror_axes: tuple[int, ...]) -> tuple[Transform, ...]:
    """Return the transforms of MSVM-UNet's recipe, each as often as its random choice of 0 to 4 of 9 takes it.

    Piecewise affine warps are left out; noise has the corrected deviation, 0.05 of the range.
    """
    often = 2 / 9
    return (
        AffineTransform(
            rotation_probability=often,
            rotation_degrees_range=(-40.0, 40.0),
            scale_probability=often,
            scale_range=(0.5, 2.0),
            shear_probability=often,
            shear_degrees_range=(-16.0, 16.0),
            translation_probability=often,
            translation_range=(-0.2, 0.2),
        ),
        GaussianNoiseTransform(probability=often, deviation_range=(0.1, 0.1)),
        GaussianBlurTransform(probability=often, channel_probability=1.0, sigma_range=(1.0, 1.0)),
        ContrastTransform(probability=often, factor_range=(0.5, 1.5)),
        MirrorTransform(probability=2 * often, axes=mirror_axes),
    )


def mirror_axes(dataset: DatasetSpec, *, axis_order: Sequence[int], num_patch_axes: int) -> tuple[int, ...]:
    """Return the patch axes along which flipping keeps every label what it is.

    These are all of them, unless labels are told apart by their side: then not the source's x axis.

    Args:
        dataset: Names of the labels.
        axis_order: Source axis that became each axis.
        num_patch_axes: 2 or 3.
    """
    sided = bool(_words(dataset) & _SIDES)
    source_axes = axis_order[3 - num_patch_axes :]
    return tuple(axis for axis, source in enumerate(source_axes) if not (sided and source == 2))


def _words(dataset: DatasetSpec) -> set[str]:
    """Return the words of all label names: "LeftVentricle", "left-ventricle" and "ventricle_left" have the same."""
    names = " ".join(dataset.foreground)
    return {word.casefold() for word in re.findall("[A-Z]+(?![a-z])|[A-Z]?[a-z]+", names)}
