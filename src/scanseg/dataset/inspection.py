"""Inspection of one case of a raw data set: contents, faults, warnings."""

from dataclasses import dataclass

import numpy as np

from scanseg.dataset.intensities import ChannelRanges, measure_ranges
from scanseg.dataset.label_faults import describe_intensities, describe_unknown_values
from scanseg.dataset.outliers import ChannelRange
from scanseg.dataset.raw import RawCase
from scanseg.errors import InputError
from scanseg.imaging import (
    Image,
    as_volume,
    axis_codes,
    compare_geometry,
    find_nonzero_box,
    read_image,
    read_label_map,
)
from scanseg.messages import counted
from scanseg.specs import DatasetSpec


@dataclass(frozen=True)
class CaseFindings:
    """Contents, faults and warnings of one case."""

    case: str
    shape: tuple[int, ...] | None
    """Voxels along each axis. `None`: the image cannot be read."""
    spacing: tuple[float, ...] | None
    """Millimetres per voxel along each axis. `None`: the image cannot be read."""
    orientation: str | None
    """Axis codes of x, y, z as stored. `None`: a 2D image, or the image cannot be read."""
    value_counts: dict[int, int]
    """Number of voxels of each value in the label map."""
    faults: tuple[str, ...]
    warnings: tuple[str, ...]
    channels: tuple[ChannelRange, ...] = ()
    """Intensities of each channel. Empty: the image cannot be read."""
    kept: float | None = None
    """Fraction of the voxels inside the smallest box of all nonzero voxels. `None`: the image cannot be read."""
    intensity_ranges: ChannelRanges = ()
    """Type and range of each channel. Empty: the image cannot be read."""
    cropped_foreground: int = 0
    """Foreground voxels outside that box, which cropping removes."""


def inspect_case(case: RawCase, spec: DatasetSpec) -> CaseFindings:
    """Read a case and compare it with the data set's description.

    Args:
        case: Case to read.
        spec: Description of the data set.

    Returns:
        The findings, including faults of the files. Faults are never raised.
    """
    faults: list[str] = []
    warnings: list[str] = []
    image, label_map = _read_image(case, spec, faults), _read_label_map(case, faults)
    warnings += [warning for read in (image, label_map) if read is not None for warning in read.warnings]
    counts: dict[int, int] = {}
    if image is not None:
        _check_image(image, spec, faults, warnings)
    if label_map is not None:
        counts = count_values(label_map.array)
        faults += _check_label_map(case, label_map, counts, spec, image=image)
    if image is not None and label_map is not None:
        differences = compare_geometry(image, label_map)
        if differences:
            faults.append(
                f"image and label map differ in {', '.join(differences)}. Save the label map on the grid of the "
                "image."
            )
    ranges = () if image is None else measure_ranges(image.array)
    kept, cropped = (None, 0) if image is None else _measure_crop(image, label_map, spec)
    return CaseFindings(
        case=case.name,
        shape=image.shape if image else None,
        spacing=image.spacing if image else None,
        orientation=axis_codes(image) if image else None,
        value_counts=counts,
        faults=tuple(faults),
        warnings=tuple(warnings),
        channels=tuple(ChannelRange(each.minimum, each.maximum) for each in ranges),
        intensity_ranges=ranges,
        kept=kept,
        cropped_foreground=cropped,
    )


def _check_label_map(
    case: RawCase, label_map: Image, counts: dict[int, int], spec: DatasetSpec, *, image: Image | None
) -> list[str]:
    """Return a fault of unknown values, or an image as label map."""
    name = _label_map_name(case)
    if (
        image is not None
        and len(counts) > 2
        and image.shape == label_map.shape
        and np.array_equal(image.array[:1], label_map.array)
        and not counts.keys() <= spec.known_values
    ):
        return [
            f"label map {name}: expected labels, got the image itself, not a label map. Replace the file."
        ]
    fault = describe_unknown_values(name, label_map.array, counts, spec)
    return [] if fault is None else [fault]


def _measure_crop(image: Image, label_map: Image | None, spec: DatasetSpec) -> tuple[float, int]:
    """Return the fraction of voxels that cropping keeps.

    The second result is the number of foreground voxels that it removes.
    """
    volume = as_volume(image.array, image.num_axes)
    start, size = find_nonzero_box(volume)
    kept = float(np.prod(size) / np.prod(volume.shape[1:]))
    if label_map is None or label_map.shape != image.shape or kept == 1:
        return kept, 0
    values = [value for values in spec.foreground.values() for value in values]
    foreground = np.isin(as_volume(label_map.array[0], label_map.num_axes), values)
    box = tuple(slice(first, first + extent) for first, extent in zip(start, size, strict=True))
    return kept, int(foreground.sum() - foreground[box].sum())


def count_values(label_map: np.ndarray) -> dict[int, int]:
    """Count the voxels of each value of a label map.

    Args:
        label_map: Label map of uint8, (..., y, x).

    Returns:
        Number of voxels by value, for the values that occur.
    """
    counts = np.zeros(256, dtype=np.int64)
    for slab in label_map.reshape(-1, *label_map.shape[-2:]):
        counts += np.bincount(slab.ravel(), minlength=256)
    return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}


def _read_image(case: RawCase, spec: DatasetSpec, faults: list[str]) -> Image | None:
    """Return the image, or `None` after adding a fault."""
    try:
        return read_image(case.images, num_channels=spec.num_channels)
    except InputError as error:
        faults.append(str(error).rstrip("."))
        return None


def _read_label_map(case: RawCase, faults: list[str]) -> Image | None:
    """Return the label map, or `None` after adding a fault."""
    if case.label_map is None:
        faults.append("no label map. Add it.")
        return None
    try:
        return read_label_map(case.label_map)
    except InputError as error:
        faults.append((describe_intensities(case.label_map) or str(error)).rstrip("."))
        return None


def _check_image(image: Image, spec: DatasetSpec, faults: list[str], warnings: list[str]) -> None:
    """Add faults and warnings about channels and constant intensities."""
    if image.num_channels != spec.num_channels:
        faults.append(
            f"expected {counted(spec.num_channels, 'channel')} ({', '.join(spec.channel_names)}) as in dataset.json, "
            f"got {image.num_channels}. Correct channel_names or the files."
        )
    constant = [index for index, channel in enumerate(image.array) if channel.min() == channel.max()]
    if len(constant) == image.num_channels:
        faults.append(
            f"empty image: every voxel is {image.array.flat[0]:g}. Remove the case or correct its file."
        )
        return
    for index in constant:
        name = spec.channel_names[index] if index < spec.num_channels else str(index)
        warnings.append(f"channel {name} is {image.array[index].flat[0]:g} everywhere")


def check_values(case: RawCase, counts: dict[int, int], spec: DatasetSpec) -> list[str]:
    """Return a fault if the label map has values without a label.

    Args:
        case: Case of the label map.
        counts: Number of voxels of each value, see `count_values`.
        spec: Description of the data set.
    """
    fault = describe_unknown_values(_label_map_name(case), None, counts, spec)
    return [] if fault is None else [fault]


def _label_map_name(case: RawCase) -> str:
    """Return the file name of the label map of a case."""
    return case.label_map.name if case.label_map else case.name
