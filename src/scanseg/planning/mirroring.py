"""Mirror axes and rotations chosen by the data."""

from collections.abc import Sequence

from scanseg.specs import AffineTransform, MirrorTransform, Plan, Transform

SMALLEST_LIKENESS = 0.1
"""Soft Dice of the mean label map and its mirror image below which flips of an axis are left out.

On hippocampus, flips at 0.00 and 0.06 lower the Dice and flips at 0.37 raise it. See
docs/decisions/0034-mirror-axes-from-the-data.md.
"""

LARGEST_ROTATION = 45.0
"""Angle in degrees up to which patches rotate if an axis of the plane must not be flipped."""


def choose_mirror_axes(valid: tuple[int, ...], likeness: Sequence[float] | None) -> tuple[int, ...]:
    """Return the valid patch axes along which labels resemble their mirror image.

    All valid axes are returned if the likeness is unknown or too small along all of them.

    Args:
        valid: Patch axes along which flips keep all labels valid.
        likeness: Likeness of labels and mirror images along each patch axis. `None`: not measured.
    """
    if likeness is None:
        return valid
    return tuple(axis for axis in valid if likeness[axis] >= SMALLEST_LIKENESS) or valid


def pays_in_prediction(chosen: tuple[int, ...], *, valid: tuple[int, ...]) -> bool:
    """Return whether predictions are averaged over flips by default.

    They are if the data left out axes and one axis remains, so that the time of a prediction doubles at most.

    Args:
        chosen: Result of `choose_mirror_axes`.
        valid: Patch axes along which flips keep all labels valid.
    """
    return len(chosen) == 1 < len(valid)


def mirror_by_likeness(plan: Plan, likeness: tuple[float, float, float] | None) -> Plan:
    """Return a plan with flips and rotations chosen by the data.

    The axes are used in augmentation, validation and prediction. A rotation by 180 degrees flips both axes of the
    plane, so rotations are limited if one of them is not flipped.

    Args:
        plan: Plan that mirrors along all valid axes.
        likeness: Likeness of labels and mirror images along z, y, x. `None`: not measured.
    """
    valid, num_axes = plan.inference.mirror_axes, len(plan.sampling.patch_size)
    order = plan.preprocessing.axis_order[-num_axes:]
    of_patch = None if likeness is None else [likeness[axis] for axis in order]
    chosen = choose_mirror_axes(valid, of_patch)
    average = pays_in_prediction(chosen, valid=valid)
    turns_freely = {num_axes - 2, num_axes - 1} <= set(chosen)
    augmentation = tuple(_with_axes(each, chosen, turns_freely=turns_freely) for each in plan.augmentation)
    return plan.model_copy(
        update={
            "mirror_likeness": likeness,
            "augmentation": augmentation,
            "training": plan.training.model_copy(update={"mirror_validation": average}),
            "inference": plan.inference.model_copy(update={"mirror_axes": chosen, "mirror": average}),
        }
    )


def _with_axes(transform: Transform, axes: tuple[int, ...], *, turns_freely: bool) -> Transform:
    """Return a transform with the chosen flips and rotations."""
    if isinstance(transform, MirrorTransform):
        return transform.model_copy(update={"axes": axes})
    if isinstance(transform, AffineTransform) and not turns_freely:
        low, high = transform.rotation_degrees_range
        limited = max(low, -LARGEST_ROTATION), min(high, LARGEST_ROTATION)
        return transform.model_copy(update={"rotation_degrees_range": limited})
    return transform
