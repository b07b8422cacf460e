"""Checks of images before they are segmented: spacing, size, intensities."""

import math
from collections.abc import Sequence
from pathlib import Path

from scanseg.dataset import measure_ranges
from scanseg.errors import InputError
from scanseg.imaging import DECODERS, Image, axis_codes, decoder_of, find_reorientation, read_geometry
from scanseg.preprocessing import find_hidden_channels, find_range_faults
from scanseg.specs import CaseGeometry, CTNormalization, Plan

_SPACING_FACTOR = 2.0
"""Factor beyond the spacings of the training's data set from which a spacing gets a warning."""
_MOST_GROWTH = 100.0
"""Largest growth by resampling, as a multiple of the largest growth in the training's data set."""
_LEAST_ABSURD = 1 << 27
"""Number of voxels on the network's grid below which no size is refused (512 x 512 x 512)."""
_LARGE_GROWTH = 8.0
"""Growth by resampling that a message about memory names."""
_NO_OFFSET = -50.0
"""Minimum in Hounsfield units that no scan with air, lungs or fat exceeds."""
_MOST_HOUNSFIELD = 700.0
"""Largest mean of the foreground of a data set in Hounsfield units."""


def spacing_warning(image: Image, plan: Plan) -> str | None:
    """Return a warning if a spacing is far from the training's spacings.

    A missing header defaults to 1 mm per voxel, and the network then sees everything at a wrong size.

    Args:
        image: Image to segment.
        plan: Plan with the range of spacings of its data set.

    Returns:
        Warning if the spacing of an axis is below half of the smallest or above twice the largest, else `None`. A
        picture for a plan of volumes is a slice, and is compared along y and x.
    """
    if plan.spacing_range is None:
        return None
    num_axes = min(image.num_axes, len(plan.spacing_range[0]))
    lowest_mm, highest_mm = (sizes[-num_axes:] for sizes in plan.spacing_range)
    spacing = _oriented(image.spacing, image, plan)[-num_axes:]
    limits = zip(spacing, lowest_mm, highest_mm, strict=True)
    if all(lowest / _SPACING_FACTOR <= size <= highest * _SPACING_FACTOR for size, lowest, highest in limits):
        return None
    own, lowest, highest = (
        " x ".join(f"{size:.3g}" if size < 1000 else f"{size:g}" for size in each)
        for each in (spacing, lowest_mm, highest_mm)
    )
    usual = lowest if lowest == highest else f"{lowest} to {highest}"
    axes = ", ".join("zyx"[-num_axes:])
    return f"spacing ({axes}): expected about {usual} mm as in the training, got {own} mm. Check the header."


def unknown_orientation_warning(image: Image, paths: Sequence[Path], plan: Plan) -> str | None:
    """Return a warning about a volume without the plan's orientation.

    Args:
        image: Image to segment.
        paths: Its files.
        plan: Plan of the model. If its own data set is of TIFF files, all volumes are in the same unknown orientation.
    """
    if image.num_axes == 2 or plan.preprocessing.orientation is None or not paths:
        return None
    if decoder_of(paths[0]) != "tiff" or DECODERS.get(plan.dataset.file_ending) == "tiff":
        return None
    return (
        f"orientation: expected a file with an orientation as in the training, got a TIFF, which is read as "
        f"{axis_codes(image)}. Check left and right, or convert the image to {plan.dataset.file_ending}."
    )


def intensity_warnings(image: Image, plan: Plan) -> list[str]:
    """Return warnings about constant channels and shifted CT.

    Args:
        image: Image to segment.
        plan: Plan with the normalization of each channel.
    """
    warnings = []
    for name, channel, normalization in zip(
        plan.dataset.channel_names, image.array, plan.preprocessing.normalizations, strict=False
    ):
        low, high = float(channel.min()), float(channel.max())
        if low == high:
            warnings.append(f"channel {name}: expected different intensities, got {low:g} everywhere.")
        elif (
            isinstance(normalization, CTNormalization)
            and normalization.mean < _MOST_HOUNSFIELD
            and low > _NO_OFFSET
        ):
            warnings.append(
                f"channel {name}: expected Hounsfield units with air near -1000, got {low:g} to {high:g}. Check that "
                "the rescale intercept is applied."
            )
    return warnings


def range_warnings(image: Image, plan: Plan) -> list[str]:
    """Return warnings about intensities outside the ranges of a plan.

    Args:
        image: Image to segment.
        plan: Plan with the normalization of each channel.
    """
    ranges, names = measure_ranges(image.array), plan.dataset.channel_names
    normalizations = plan.preprocessing.normalizations
    faults = [
        *find_range_faults(ranges, normalizations, names),
        *find_hidden_channels(ranges, normalizations, names),
    ]
    return [f"{fault}." for fault in faults]


def image_warnings(image: Image, plan: Plan) -> tuple[str, ...]:
    """Return all warnings about an image.

    Args:
        image: Image to segment.
        plan: Plan of the model.
    """
    intensities = intensity_warnings(image, plan) or range_warnings(image, plan)
    return (*image.warnings, *_present(spacing_warning(image, plan)), *intensities)


def header_warnings(paths: Sequence[Path], plan: Plan) -> tuple[str, ...]:
    """Return the warnings about the header of an image.

    The voxels are not read.

    Args:
        paths: Files of the image.
        plan: Plan of the model.

    Returns:
        The warnings. Empty if the header cannot be read, which is reported with the image.
    """
    try:
        image = read_geometry(paths)
    except InputError:
        return ()
    return () if image is None else (*image.warnings, *_present(spacing_warning(image, plan)))


def check_size(image: Image, plan: Plan) -> None:
    """Refuse images that resampling makes absurdly large.

    No memory is allocated for them.

    Args:
        image: Image to segment.
        plan: Plan with the target spacing, and the range of spacings of its data set.

    Raises:
        InputError: The image grows by more than 100 times the largest growth in the training, to more than 2^27
            voxels.
    """
    target = plan.preprocessing.spacing
    if target is None or image.num_axes != 3:
        return
    order = plan.preprocessing.axis_order
    spacing, shape = (_oriented(values, image, plan) for values in (image.spacing, image.shape))
    wanted = [spacing[axis] if size is None else size for axis, size in zip(order, target, strict=True)]
    highest = None if plan.spacing_range is None else plan.spacing_range[1]
    growth = math.prod(spacing[axis] / size for axis, size in zip(order, wanted, strict=True))
    usual = (
        1.0
        if highest is None
        else math.prod(highest[axis] / size for axis, size in zip(order, wanted, strict=True))
    )
    sizes = [
        max(1, round(shape[axis] * spacing[axis] / size)) for axis, size in zip(order, wanted, strict=True)
    ]
    if growth <= _MOST_GROWTH * max(1.0, usual) or math.prod(sizes) <= _LEAST_ABSURD:
        return
    got, expected, resampled = (
        " x ".join(f"{size:.6g}" for size in each) for each in (spacing, highest or wanted, sizes)
    )
    raise InputError(
        f"spacing (z, y, x): expected at most about {expected} mm as in the training, got {got} mm, which makes "
        f"{resampled} voxels of {' x '.join(map(str, shape))}. Correct the spacing in the header."
    )


def _oriented(values: Sequence[float], image: Image, plan: Plan) -> tuple[float, ...]:
    """Return values of axes in the plan's orientation."""
    codes, wanted = axis_codes(image), plan.preprocessing.orientation
    if codes is None or wanted is None:
        return tuple(values)
    order, _ = find_reorientation(codes, wanted)
    return tuple(values[axis] for axis in order)


def _present(warning: str | None) -> tuple[str, ...]:
    """Return a warning as a tuple of one or none."""
    return () if warning is None else (warning,)


def growth_hint(geometry: CaseGeometry) -> str:
    """Return a hint if resampling makes an image much larger.

    Args:
        geometry: Geometry of the network's grid in the source.

    Returns:
        The sentence with a leading space, or an empty text.
    """
    growth = math.prod(geometry.shape) / math.prod(geometry.source_shape)
    if growth <= _LARGE_GROWTH:
        return ""
    spacing = " x ".join(f"{size:.3g}" for size in geometry.source_spacing)
    return f" Its spacing of {spacing} mm makes it {growth:.0f} times larger. Check the header."
