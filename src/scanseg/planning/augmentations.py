"""Default augmentation of the recipes."""

import re
from collections.abc import Sequence

from scanseg.imaging import left_right_axis
from scanseg.specs import (
    AffineTransform,
    BrightnessTransform,
    ColourTransform,
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
"""Ratio of the longest axis to the first from which a 3D patch is rotated only in-plane."""
_SIDES = frozenset({"left", "right", "lh", "rh", "l", "r"})
"""Words in names of labels that differ only by the side of the body."""
_LONG_RATIO = 1.5
"""Ratio of the axes of a 2D patch from which it is rotated by small angles only."""


def nnunet_augmentation(patch_size: Sequence[int], *, mirror_axes: tuple[int, ...]) -> tuple[Transform, ...]:
    """Return nnU-Net's transforms without elastic deformation.

    Probabilities and ranges are those of nnU-Net.

    Args:
        patch_size: Voxels of a patch along its 2 or 3 axes.
        mirror_axes: Patch axes of mirroring.
    """
    flat = is_flat(patch_size)
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


def is_flat(patch_size: Sequence[int]) -> bool:
    """Return whether a 3D patch is rotated in-plane only, by any angle.

    Args:
        patch_size: Voxels of a patch along its 2 or 3 axes.
    """
    return len(patch_size) == 3 and max(patch_size) / patch_size[0] > _FLAT_RATIO


def fast_augmentation(patch_size: Sequence[int], *, mirror_axes: tuple[int, ...]) -> tuple[Transform, ...]:
    """Return nnU-Net's transforms with warps in most patches.

    They reduce overfitting in fast trainings.

    Args:
        patch_size: Voxels of a patch along its 2 or 3 axes.
        mirror_axes: Patch axes of mirroring.
    """
    affine, *others = nnunet_augmentation(patch_size, mirror_axes=mirror_axes)
    warps = {"rotation_probability": 0.5, "scale_probability": 0.5, "elastic_probability": 0.3}
    return (affine.model_copy(update=warps), *others)


def picture_augmentation(patch_size: Sequence[int], *, mirror_axes: tuple[int, ...]) -> tuple[Transform, ...]:
    """Return the transforms of colour pictures.

    The fast recipes' transforms get wider warps, and changes of colours. A whole picture may be one patch, so
    patches are shifted too.

    Args:
        patch_size: Voxels of a patch along its 2 axes.
        mirror_axes: Patch axes of mirroring.
    """
    affine, *others, flips = fast_augmentation(patch_size, mirror_axes=mirror_axes)
    warps = {
        "rotation_probability": 0.7,
        "scale_probability": 0.7,
        "scale_range": (0.6, 1.6),
        "shear_probability": 0.2,
        "shear_degrees_range": (-10.0, 10.0),
        "translation_probability": 0.3,
        "translation_range": (-0.15, 0.15),
        "elastic_magnitude_range": (0.0, 8.0),
    }
    return (affine.model_copy(update=warps), *others, ColourTransform(), flips)


def slice_augmentation(*, mirror_axes: tuple[int, ...]) -> tuple[Transform, ...]:
    """Return the transforms of MSVM-UNet's recipe.

    The published code applies 0 to 4 of 9 transforms at random, so each has a probability of 2/9. Piecewise affine
    warps are left out. The standard deviation of the noise is corrected to 0.05 of the range.

    Args:
        mirror_axes: Patch axes of mirroring.
    """
    probability = 2 / 9
    return (
        AffineTransform(
            rotation_probability=probability,
            rotation_degrees_range=(-40.0, 40.0),
            scale_probability=probability,
            scale_range=(0.5, 2.0),
            shear_probability=probability,
            shear_degrees_range=(-16.0, 16.0),
            translation_probability=probability,
            translation_range=(-0.2, 0.2),
        ),
        GaussianNoiseTransform(probability=probability, deviation_range=(0.1, 0.1)),
        GaussianBlurTransform(probability=probability, channel_probability=1.0, sigma_range=(1.0, 1.0)),
        ContrastTransform(probability=probability, factor_range=(0.5, 1.5)),
        MirrorTransform(probability=2 * probability, axes=mirror_axes),
    )


def tuned_slice_augmentation(
    slice_size: Sequence[int], *, mirror_axes: tuple[int, ...]
) -> tuple[Transform, ...]:
    """Return the transforms of the recipe `msvm-unet-tuned`.

    The fast recipes' transforms get rotations of at most 45 degrees and shifts, because whole slices show the
    anatomy upright and have no random position.

    Args:
        slice_size: Size of slices.
        mirror_axes: Slice axes of mirroring.
    """
    affine, *others = fast_augmentation(slice_size, mirror_axes=mirror_axes)
    warps = {
        "rotation_degrees_range": (-45.0, 45.0),
        "scale_range": (0.65, 1.5),
        "shear_probability": 0.2,
        "shear_degrees_range": (-10.0, 10.0),
        "translation_probability": 0.3,
        "translation_range": (-0.1, 0.1),
    }
    return (affine.model_copy(update=warps), *others)


def mirror_axes(
    dataset: DatasetSpec, *, axis_order: Sequence[int], num_patch_axes: int, orientation: str | None = None
) -> tuple[int, ...]:
    """Return the patch axes along which flips keep all labels valid.

    These are all axes. If labels differ by the side of the body, the axis from left to right is excluded.

    Args:
        dataset: Data set with the names of labels.
        axis_order: Axis of the oriented image that becomes each permuted axis.
        num_patch_axes: 2 or 3.
        orientation: Axis codes of x, y, z to which volumes are brought. `None`: unknown, and x is assumed to run from
            left to right.
    """
    sided, sideways = names_sides(dataset), left_right_axis(orientation)
    source_axes = axis_order[3 - num_patch_axes :]
    return tuple(axis for axis, source in enumerate(source_axes) if not (sided and source == sideways))


def names_sides(dataset: DatasetSpec) -> bool:
    """Return whether labels differ by side, such as `kidney_left`.

    Args:
        dataset: Data set with the names of labels.
    """
    return bool(sided_labels(dataset))


def sided_labels(dataset: DatasetSpec) -> list[str]:
    """Return the labels that name a side of the body.

    An example is `kidney_left`.

    Args:
        dataset: Data set with the names of labels.
    """
    return [name for name in dataset.foreground if _words(name) & _SIDES]


def _words(name: str) -> set[str]:
    """Return the words of a label name in lower case.

    "LeftVentricle", "left-ventricle" and "ventricle_left" have the same words.
    """
    return {word.casefold() for word in re.findall("[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}
