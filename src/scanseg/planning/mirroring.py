"""Mirror axes chosen by the data, for the fast recipes."""

from collections.abc import Sequence

from scanseg.planning.augmentations import is_flat
from scanseg.specs import Plan

SMALLEST_LIKENESS = 0.1
"""Soft Dice of the mean label map and its mirror image below which flips of an axis are left out.

On hippocampus, flips at 0.00 and 0.06 lower the Dice and flips at 0.37 raise it. See
docs/decisions/0034-mirror-axes-from-the-data.md.
"""


def choose_mirror_axes(
    valid: tuple[int, ...],
    likeness: Sequence[float] | None,
    *,
    patch_size: Sequence[int],
    axis_order: Sequence[int],
    any_rotation: bool = True,
) -> tuple[int, ...]:
    """Return the valid patch axes along which labels resemble their mirror image.

    All valid axes are returned if the likeness is unknown or too small along all of them. They are also returned for 2D
    and flat 3D patches, which the augmentation rotates by up to 180 degrees. Such a rotation flips two axes at once.

    Args:
        valid: Patch axes along which flips keep all labels valid.
        likeness: Likeness of labels and mirror images along z, y, x of the oriented image. `None`: not measured.
        patch_size: Voxels of a patch along its 2 or 3 axes.
        axis_order: Axis of the oriented image that becomes each permuted axis.
        any_rotation: The augmentation rotates patches by any angle in-plane. False: by small angles.
    """
    if likeness is None or (any_rotation and (len(patch_size) == 2 or is_flat(patch_size))):
        return valid
    order = axis_order[len(axis_order) - len(patch_size) :]
    alike = tuple(axis for axis in valid if likeness[order[axis]] >= SMALLEST_LIKENESS)
    return alike or valid


def pays_in_prediction(chosen: tuple[int, ...], *, valid: tuple[int, ...]) -> bool:
    """Return whether predictions are averaged over flips by default.

    They are if the data left out axes and one axis remains, so that the time of a prediction doubles at most.

    Args:
        chosen: Result of `choose_mirror_axes`.
        valid: Patch axes along which flips keep all labels valid.
    """
    return len(chosen) == 1 < len(valid)


def mirror_by_likeness(
    plan: Plan, likeness: tuple[float, float, float] | None, *, any_rotation: bool = True
) -> Plan:
    """Return a plan with mirror axes chosen by the data.

    They are used in augmentation, validation and prediction.

    Args:
        plan: Plan that mirrors along all valid axes.
        likeness: Likeness of labels and mirror images along z, y, x. `None`: not measured.
        any_rotation: The augmentation rotates patches by any angle in-plane.
    """
    valid = plan.inference.mirror_axes
    chosen = choose_mirror_axes(
        valid,
        likeness,
        patch_size=plan.sampling.patch_size,
        axis_order=plan.preprocessing.axis_order,
        any_rotation=any_rotation,
    )
    average = pays_in_prediction(chosen, valid=valid)
    augmentation = tuple(
        each.model_copy(update={"axes": chosen}) if each.kind == "mirror" else each
        for each in plan.augmentation
    )
    return plan.model_copy(
        update={
            "mirror_likeness": likeness,
            "augmentation": augmentation,
            "training": plan.training.model_copy(update={"mirror_validation": average}),
            "inference": plan.inference.model_copy(update={"mirror_axes": chosen, "mirror": average}),
        }
    )
