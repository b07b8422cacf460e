"""Faults of label maps: images, smoothed masks, masks of 255."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from scanseg.errors import InputError
from scanseg.imaging import read_image
from scanseg.messages import counted, listed
from scanseg.specs import DatasetSpec

_MANY_VALUES = 20
"""Number of values from which a map is compared with an image."""
_PIECEWISE = 0.5
"""Fraction of voxels with the value of their neighbour that every label map exceeds."""
_MOST_VOXELS = 1_000_000
"""Maximum number of voxels of a sample."""


def describe_unknown_values(
    name: str, array: Shaped[np.ndarray, "..."] | None, counts: Mapping[int, int], spec: DatasetSpec
) -> str | None:
    """Return the fault of values that no label has.

    Args:
        name: File name of the label map.
        array: The label map. `None`: only the counts are known.
        counts: Number of voxels of each value.
        spec: Labels of the data set.

    Returns:
        The fault with its advice, or `None` if every value has a label.
    """
    unknown = sorted(counts.keys() - spec.known_values)
    if not unknown:
        return None
    known = ", ".join(str(value) for value in sorted(spec.known_values))
    head = f"label map {name}: expected the labels {known}, got"
    if set(counts) <= {0, 255} and spec.known_values == {0, 1}:
        return f"{head} a mask of 0 and 255. Replace 255 by 1: (array == 255).astype('uint8')"
    if len(unknown) < _MANY_VALUES:
        found = listed([f"{value} ({counted(counts[value], 'voxel')})" for value in unknown])
        return f"{head} unknown values {found}. Correct dataset.json or the file."
    voxels = sum(counts[value] for value in unknown)
    found = f"{len(unknown)} unknown values from {unknown[0]} to {unknown[-1]} ({counted(voxels, 'voxel')})"
    if array is not None and not _is_piecewise_constant(array):
        return f"{head} {found}: the intensities of an image, not a label map. Replace the file by the label map."
    ends = counts.get(0, 0) + counts.get(max(counts), 0)
    if 2 * ends > sum(counts.values()):
        return (
            f"{head} {found}, but most voxels are 0 or {max(counts)}: a mask with smoothed edges. Threshold it: "
            f"(array > {max(counts) // 2}).astype('uint8')"
        )
    return f"{head} {found}. Correct dataset.json or the file."


def describe_intensities(path: Path) -> str | None:
    """Return the fault of an image in place of a label map.

    Args:
        path: File that cannot be read as a label map.

    Returns:
        The fault with its advice, or `None` if the file cannot be read as an image either, or holds few values.
    """
    try:
        array = read_image(path).array
    except InputError:
        return None
    num_values = len(np.unique(_sample(array)))
    if num_values < _MANY_VALUES or _is_piecewise_constant(array):
        return None
    return (
        f"{path}: expected a label map, got an image: {num_values} or more different intensities from "
        f"{array.min():g} to {array.max():g}. Replace the file by the label map."
    )


def _is_piecewise_constant(array: Shaped[np.ndarray, "... x"]) -> bool:
    """Return whether most nonzero voxels equal their neighbour.

    The neighbour is the next voxel along the last axis.

    Label maps and instance maps do. Intensities differ from voxel to voxel.
    """
    left, right = array[..., :-1], array[..., 1:]
    rows = max(1, left.size // _MOST_VOXELS)
    flat_left, flat_right = (part.reshape(-1, part.shape[-1])[::rows] for part in (left, right))
    nonzero = flat_left != 0
    if not nonzero.any():
        return True
    return float((flat_left == flat_right)[nonzero].mean()) > _PIECEWISE


def _sample(array: Shaped[np.ndarray, "..."]) -> np.ndarray:
    """Return evenly spaced voxels of an array."""
    flat = array.reshape(-1)
    return flat[:: max(1, flat.size // _MOST_VOXELS)]
