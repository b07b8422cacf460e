"""Decisions of a plan in words, with their reasons."""

from collections.abc import Sequence

from scanseg.messages import listed
from scanseg.planning.augmentations import mirror_axes, sided_labels
from scanseg.planning.mirroring import LARGEST_ROTATION
from scanseg.planning.normalizations import channel_normalizations
from scanseg.specs import (
    AffineTransform,
    DatasetSpec,
    IntensityRange,
    MirrorTransform,
    Normalization,
    Plan,
    ZScoreNormalization,
)

_AXES = ("z", "y", "x")


def describe_decisions(plan: Plan) -> list[str]:
    """Describe the decisions of a plan and their reasons.

    They are about orientation, mirroring, rotations, sides and normalization.

    Args:
        plan: The plan.

    Returns:
        One line for each decision, which begins with its name.
    """
    preprocessing, num_axes = plan.preprocessing, len(plan.sampling.patch_size)
    axes = [_AXES[axis] for axis in preprocessing.axis_order[3 - num_axes :]]
    flips = {axis for each in plan.augmentation if isinstance(each, MirrorTransform) for axis in each.axes}
    orientation = [] if plan.num_axes == 2 else [_describe_orientation(preprocessing.orientation)]
    flipped = [axes[axis] for axis in sorted(flips)]
    return [
        _describe_measured_mirroring(plan, axes=axes, flipped=flipped)
        or _describe_mirroring(plan.dataset, axes=axes, flipped=flipped),
        *_describe_rotations(plan, axes=axes, flipped=flipped),
        _describe_sides(plan.dataset),
        _describe_normalizations(plan.dataset, preprocessing.normalizations),
        *orientation,
    ]


def describe_dataset(
    dataset: DatasetSpec,
    *,
    num_axes: int,
    orientation: str | None,
    kept: float,
    ranges: Sequence[IntensityRange] = (),
) -> list[str]:
    """Describe the decisions that follow from a data set alone.

    All recipes with planned patches take them, except for mirroring in the fast recipes: they may leave out axes by the
    mean label map. For colour pictures, the normalization is that of their default recipe.

    Args:
        dataset: Names of channels and labels.
        num_axes: Spatial axes of the images: 2 or 3.
        orientation: Most frequent orientation, as axis codes of x, y, z. `None`: 2D images.
        kept: Median fraction of the voxels of a case that cropping keeps.
        ranges: Range of each channel over all cases. Empty: colours have 8 bits.

    Returns:
        One line for each decision, which begins with its name.
    """
    axes = list(_AXES[-num_axes:])
    flips = mirror_axes(dataset, axis_order=(0, 1, 2), num_patch_axes=num_axes, orientation=orientation)
    normalizations: Sequence[Normalization] = channel_normalizations(dataset, kept=kept, ranges=ranges)
    if num_axes == 2 and dataset.has_colour_pictures:
        normalizations = (ZScoreNormalization(),) * dataset.num_channels
    return [
        _describe_mirroring(dataset, axes=axes, flipped=[axes[axis] for axis in flips]),
        _describe_sides(dataset),
        _describe_normalizations(dataset, normalizations),
    ]


def _describe_orientation(orientation: str | None) -> str:
    """Return the line on the orientation of volumes."""
    if orientation is None:
        return "orientation: volumes are used as stored, as set in the plan"
    return f"orientation: volumes are brought to {orientation}, the orientation of most cases"


def _describe_mirroring(dataset: DatasetSpec, *, axes: Sequence[str], flipped: Sequence[str]) -> str:
    """Return the line on the axes of mirroring."""
    left_out = [axis for axis in axes if axis not in flipped]
    if not left_out:
        reason = "every flip keeps the labels valid" if not sided_labels(dataset) else "set in the plan"
        return f"mirroring: along {', '.join(flipped)}, as {reason}"
    along = f"along {', '.join(flipped)}, " if flipped else ""
    reason = "as labels differ by the side of the body" if sided_labels(dataset) else "as set in the plan"
    return f"mirroring: {along}not along {', '.join(left_out)}, {reason}"


def _describe_measured_mirroring(plan: Plan, *, axes: Sequence[str], flipped: Sequence[str]) -> str:
    """Return the line on measured axes of mirroring. Empty: none."""
    unlike = [axis for axis in axes if axis not in flipped]
    if plan.mirror_likeness is None or not plan.inference.mirror or not unlike:
        return ""
    measured = ", ".join(f"{axis} {plan.mirror_likeness[_AXES.index(axis)]:.2f}" for axis in axes)
    return (
        f"mirroring: along {', '.join(flipped)}, also in prediction, as labels and their mirror image overlap there "
        f"(soft Dice of the mean label map: {measured})"
    )


def _describe_rotations(plan: Plan, *, axes: Sequence[str], flipped: Sequence[str]) -> list[str]:
    """Return the line on limited rotations, if they are."""
    unlike = [axis for axis in axes[-2:] if axis not in flipped]
    limited = any(
        isinstance(each, AffineTransform)
        and (each.in_plane or len(axes) == 2)
        and each.rotation_degrees_range[1] == LARGEST_ROTATION
        for each in plan.augmentation
    )
    if not limited or not unlike:
        return []
    return [
        f"rotations: by at most {LARGEST_ROTATION:.0f} degrees, as half a turn would flip along {listed(unlike)} too"
    ]


def _describe_sides(dataset: DatasetSpec) -> str:
    """Return the line on labels of the left and the right side."""
    sided = sided_labels(dataset)
    if not sided:
        return "sides: left and right are alike, as no label names a side of the body"
    return f"sides: left and right are kept apart, as labels name them: {listed(sided)}"


def _describe_normalizations(dataset: DatasetSpec, normalizations: Sequence[Normalization]) -> str:
    """Return the line on normalization, with channels grouped by it."""
    channels: dict[str, list[str]] = {}
    for name, normalization in zip(dataset.channel_names, normalizations, strict=True):
        channels.setdefault(_words_of(normalization), []).append(name)
    parts = [f"{listed(names)} {kind}" for kind, names in channels.items()]
    return f"normalization: {', '.join(parts)}, by the names of the channels"


def _words_of(normalization: Normalization) -> str:
    """Return a normalization in words."""
    match normalization.kind:
        case "ct":
            return "as CT (clipped and scaled by the foreground of all cases)"
        case "none":
            return "unchanged"
        case "zscore":
            return "by the z-score of each image" + (
                " over its nonzero part (more than a quarter of a typical case is empty)"
                if normalization.nonzero_only
                else ""
            )
        case _:
            bounds = (normalization.lower, normalization.upper)
            source = "each image's range" if None in bounds else f"{bounds[0]:g} to {bounds[1]:g}"
            return f"from {source} to {normalization.low:g} to {normalization.high:g}"
