"""Inspection of one case of a raw data set: contents, faults, warnings."""

from dataclasses import dataclass

import numpy as np

from scanseg.dataset.raw import RawCase
from scanseg.errors import InputError
from scanseg.imaging import Image, axis_codes, compare_geometry, read_image, read_label_map
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
    image, label_map = _read_image(case, faults), _read_label_map(case, faults)
    counts: dict[int, int] = {}
    if image is not None:
        _check_image(image, spec, faults, warnings)
    if label_map is not None:
        counts = count_values(label_map.array)
        faults += check_values(case, counts, spec)
    if image is not None and label_map is not None:
        differences = compare_geometry(image, label_map)
        if differences:
            faults.append(
                f"image and label map differ in {', '.join(differences)}. Save the label map on the grid of the "
                "image."
            )
    return CaseFindings(
        case=case.name,
        shape=image.shape if image else None,
        spacing=image.spacing if image else None,
        orientation=axis_codes(image) if image else None,
        value_counts=counts,
        faults=tuple(faults),
        warnings=tuple(warnings),
    )


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


def _read_image(case: RawCase, faults: list[str]) -> Image | None:
    """Return the image, or `None` after adding a fault."""
    try:
        return read_image(case.images)
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
        faults.append(str(error).rstrip("."))
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
    unknown = sorted(counts.keys() - spec.known_values)
    if not unknown:
        return []
    known = ", ".join(str(value) for value in sorted(spec.known_values))
    name = case.label_map.name if case.label_map else case.name
    if set(counts) <= {0, 255} and spec.known_values == {0, 1}:
        return [
            f"label map {name}: expected the labels {known}, got a mask of 0 and 255. Replace 255 by 1: "
            "(array == 255).astype('uint8')"
        ]
    found = ", ".join(f"{value} ({counted(counts[value], 'voxel')})" for value in unknown)
    return [
        f"label map {name}: expected the labels {known}, got unknown values {found}. Correct dataset.json or the "
        "file."
    ]
