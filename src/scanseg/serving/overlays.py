"""Overlays of the viewer: label maps, differences and uncertainty maps."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Shaped, UInt8

from scanseg.dataset import DESCRIPTION_FILE, read_description
from scanseg.errors import InputError
from scanseg.imaging import Image, compare_geometry, make_palette, read_label_map
from scanseg.serving.canonical import Canonical
from scanseg.serving.models import label_names
from scanseg.specs import DatasetSpec

DIFFERENCE_LABELS = {1: "only in the first", 2: "only in the second", 3: "different labels"}
"""Names of the values of a difference map."""
DIFFERENCE_COLOURS = {1: (213, 94, 0), 2: (86, 180, 233), 3: (240, 228, 66)}
"""Red, green and blue of the values of a difference map, for colour-blind readers."""


@dataclass(eq=False)
class Overlay:
    """A map on the grid of the image."""

    id: str
    """Name in addresses."""
    title: str
    """Name for people."""
    kind: Literal["labels", "difference", "map"]
    """`map`: values from 0 to 1."""
    array: Shaped[np.ndarray, "x y z"]
    """Values on the axes of the viewer."""
    labels: dict[int, str]
    """Names of the label values. Empty for maps."""
    colours: dict[int, tuple[int, int, int]]
    """Red, green and blue of values with their own colour."""

    def describe(self, *, voxel_mm3: float | None) -> dict[str, Any]:
        """Return the description for the page as JSON values.

        Args:
            voxel_mm3: Volume of a voxel. `None`: unknown.
        """
        described: dict[str, Any] = {"id": self.id, "title": self.title, "kind": self.kind, "labels": []}
        if self.kind == "map":
            return described
        palette = make_palette(self.colours)
        # slice by slice, because numpy counts in a copy of eight bytes a voxel
        slices = np.moveaxis(self.array, -1, 0)
        counts = sum(
            (np.bincount(each.ravel(order="K"), minlength=256) for each in slices), np.zeros(256, np.int64)
        )
        values = sorted({*self.labels, *(int(value) for value in np.flatnonzero(counts) if value)})
        for value in values:
            voxels = int(counts[value])
            described["labels"].append(
                {
                    "value": value,
                    "name": self.labels.get(value, f"label {value}"),
                    "colour": list(palette[3 * value : 3 * value + 3]),
                    "voxels": voxels,
                    "ml": None if voxel_mm3 is None else voxels * voxel_mm3 / 1000,
                }
            )
        return described


def read_overlay(
    path: Path, *, id: str, image: Image, canonical: Canonical, dataset: DatasetSpec | None
) -> Overlay:
    """Read a label map as an overlay.

    Args:
        path: The label map. The names of its labels are in `dataset.json` in its folder or the folder above, if it
            exists.
        id: Name in addresses.
        image: The image, with the same grid.
        canonical: Axes of the viewer.
        dataset: Labels of a model, for label maps without `dataset.json`. `None`: no model.

    Raises:
        InputError: The label map cannot be read, or has another grid.
    """
    found = read_label_map(path)
    differences = compare_geometry(image, found)
    if differences and not (image.shape == found.shape and image.num_axes == 2):
        raise InputError(
            f"{path}: expected the grid of the image, got another one ({'; '.join(differences)}). Give the label map "
            "of this image."
        )
    folders = [
        folder
        for folder in (path.parent, path.absolute().parent.parent)
        if (folder / DESCRIPTION_FILE).is_file()
    ]
    if folders:
        dataset = read_description(folders[0]).spec
    names = {} if dataset is None else label_names(dataset)
    colours = {} if dataset is None else dataset.colours
    return Overlay(id, path.name, "labels", canonical.turn(found.array[0]), names, colours)


def compare_overlays(
    first: Overlay, second: Overlay
) -> tuple[UInt8[np.ndarray, "x y z"], list[dict[str, Any]]]:
    """Compare two label maps.

    Args:
        first: The first label map.
        second: The second label map.

    Returns:
        Difference map (values of `DIFFERENCE_LABELS`), and for each label that occurs its name, value, Dice and voxels.
    """
    a, b = first.array, second.array
    difference = np.zeros(a.shape, np.uint8)
    differs = a != b
    difference[differs & (b == 0)] = 1
    difference[differs & (a == 0)] = 2
    difference[differs & (a != 0) & (b != 0)] = 3
    counts_a, counts_b, counts_both = (
        np.bincount(values.ravel(), minlength=256) for values in (a, b, a[~differs])
    )
    names: Mapping[int, str] = first.labels | second.labels
    rows = [
        {
            "value": int(value),
            "name": names.get(int(value), f"label {value}"),
            "dice": float(2 * counts_both[value] / (counts_a[value] + counts_b[value])),
            "first": int(counts_a[value]),
            "second": int(counts_b[value]),
        }
        for value in np.flatnonzero(counts_a + counts_b)
        if value
    ]
    return difference, rows
