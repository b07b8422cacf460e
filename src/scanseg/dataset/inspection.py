"""Look at one case of a raw data set: what it holds, and what is wrong with it."""

from dataclasses import dataclass

import numpy as np

from scanseg.dataset.raw import RawCase
from scanseg.errors import InputError
from scanseg.imaging import Image, compare_geometry, read_image, read_label_map
from scanseg.messages import counted
from scanseg.specs import DatasetSpec


@dataclass(frozen=True)
class CaseFindings:
    """What was found in one case."""

    case: str
    shape: tuple[int, ...] | None
    """Voxels along each axis; None where the image cannot be read."""
    spacing: tuple[float, ...] | None
    """Millimetres per voxel along each axis; None where the image cannot be read."""
    value_counts: dict[int, int]
    """Voxels of each value in the label map."""
    faults: tuple[str, ...]
    warnings: tuple[str, ...]


def inspect_case(case: RawCase, spec: DatasetSpec) -> CaseFindings:
    """Read a case and compare it with what its data set says.

    Args:
        case: The case.
        spec: What the data set says about itself.

    Returns:
        The findings; nothing that is wrong with the files is raised.
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
                f"image and label map differ in {', '.join(differences)}; save the label map on the grid of the "
                "image"
            )
    return CaseFindings(
        case=case.name,
        shape=image.shape if image else None,
        spacing=image.spacing if image else None,
        value_counts=counts,
        faults=tuple(faults),
        warnings=tuple(warnings),
    )


def count_values(label_map: np.ndarray) -> dict[int, int]:
    """Count the voxels of each value of a label map of type uint8."""
    counts = np.zeros(256, dtype=np.int64)
    for slab in label_map.reshape(-1, *label_map.shape[-2:]):
        counts += np.bincount(slab.ravel(), minlength=256)
    return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}


def _read_image(case: RawCase, faults: list[str]) -> Image | None:
    """The image, or None and a fault."""
    try:
        return read_image(case.images)
    except InputError as error:
        faults.append(str(error).rstrip("."))
        return None


def _read_label_map(case: RawCase, faults: list[str]) -> Image | None:
    """The label map, or None and a fault."""
    if case.label_map is None:
        faults.append("no label map; add it")
        return None
    try:
        return read_label_map(case.label_map)
    except InputError as error:
        faults.append(str(error).rstrip("."))
        return None


def _check_image(image: Image, spec: DatasetSpec, faults: list[str], warnings: list[str]) -> None:
    """Compare an image with the description; one that shows nothing is a fault."""
    if image.num_channels != spec.num_channels:
        faults.append(
            f"image of {counted(image.num_channels, 'channel')}, but dataset.json names {spec.num_channels} "
            f"({', '.join(spec.channel_names)}); mend channel_names or the files"
        )
    constant = [index for index, channel in enumerate(image.array) if channel.min() == channel.max()]
    if len(constant) == image.num_channels:
        faults.append(
            f"empty image: every voxel is {image.array.flat[0]:g}; remove the case or mend its file"
        )
        return
    for index in constant:
        name = spec.channel_names[index] if index < spec.num_channels else str(index)
        warnings.append(f"channel {name} is {image.array[index].flat[0]:g} everywhere")


def check_values(case: RawCase, counts: dict[int, int], spec: DatasetSpec) -> list[str]:
    """Name values of the label map that the data set does not know.

    Args:
        case: The case.
        counts: Voxels of each value, see `count_values`.
        spec: What the data set says about itself.
    """
    unknown = sorted(counts.keys() - spec.known_values)
    if not unknown:
        return []
    known = ", ".join(str(value) for value in sorted(spec.known_values))
    name = case.label_map.name if case.label_map else case.name
    if set(counts) <= {0, 255} and spec.known_values == {0, 1}:
        return [
            f"label map {name} is a mask of 0 and 255, but labels are {known}; write 1 in place of 255: "
            "(array == 255).astype('uint8')"
        ]
    found = ", ".join(f"{value} ({counted(counts[value], 'voxel')})" for value in unknown)
    return [
        f"label map {name} holds unknown values {found}; labels are {known}: mend dataset.json or the file"
    ]
