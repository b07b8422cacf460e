"""Reading of boxes of stored cases, without PyTorch.

Worker processes that read start sooner, and need less memory, if they do not load PyTorch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scanseg.preprocessing import open_array, read_part
from scanseg.specs import DatasetSpec

_MAX_LOCATIONS = 10_000
"""Maximum number of voxels kept per label and case, as in nnU-Net."""


@dataclass(frozen=True)
class ArrayFiles:
    """Array files of a case."""

    name: str
    """Name of the case."""
    number: int
    """Number of the case, from 0."""
    image: Path
    """Array of the image."""
    label_map: Path
    """Array of the label map."""
    shape: tuple[int, ...]
    """Voxels along z, y, x."""


@dataclass(frozen=True)
class BoxTask:
    """A box to read."""

    files: ArrayFiles
    """Array files of the case."""
    box: tuple[slice, ...]
    """Voxels to read along z, y, x."""


@dataclass(frozen=True, eq=False)
class Box:
    """Arrays of a box."""

    image: np.ndarray
    """Intensities (channel, z, y, x)."""
    label_map: np.ndarray
    """Labels (z, y, x)."""


def locate_case(
    files: ArrayFiles, *, dataset: DatasetSpec, num_channels: int, seed: int
) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """Locate the labels of a case as `load_into_memory` does."""
    open_array(files.image, shape=(num_channels, *files.shape))
    opened = open_array(files.label_map, shape=files.shape)
    label_map = read_part(opened, ..., path=files.label_map).astype(np.uint8)
    return locate_voxels(label_map, dataset, rng=np.random.default_rng([seed, files.number]))


def read_boxes(tasks: Sequence[BoxTask]) -> list[Box]:
    """Read the boxes of a batch."""
    return [
        Box(_read(task.files.image, (slice(None), *task.box)), _read(task.files.label_map, task.box))
        for task in tasks
    ]


def _read(path: Path, box: object) -> np.ndarray:
    """Read a box of an array."""
    return read_part(open_array(path), box, path=path)


def locate_voxels(
    label_map: np.ndarray, dataset: DatasetSpec, *, rng: np.random.Generator
) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """Find voxels of a case as centres of patches.

    Args:
        label_map: Label map of the case (z, y, x).
        dataset: Data set with the labels.
        rng: Source of randomness for the choice among too many voxels.

    Returns:
        Flat indices of some voxels per label name, and flat indices of some annotated voxels (`None`: no ignore label
        exists).
    """
    locations = _locate_labels(label_map, dataset.foreground, rng=rng)
    if dataset.ignore_label is None:
        return locations, None
    return locations, _some(np.flatnonzero(label_map != dataset.ignore_label), rng=rng)


def _locate_labels(
    label_map: np.ndarray, labels: Mapping[str, tuple[int, ...]], *, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Return flat indices of at most `_MAX_LOCATIONS` voxels per label.

    Absent labels have no entry.
    """
    found = {}
    for name, values in labels.items():
        where = _some(np.flatnonzero(np.isin(label_map, values)), rng=rng)
        if len(where):
            found[name] = where
    return found


def _some(indices: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    """Return at most `_MAX_LOCATIONS` of the indices."""
    if len(indices) <= _MAX_LOCATIONS:
        return indices
    return rng.choice(indices, _MAX_LOCATIONS, replace=False)
