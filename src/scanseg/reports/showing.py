"""Pictures of one image with its label maps, from files."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from scanseg.converters import read_label_table
from scanseg.dataset import DESCRIPTION_FILE, read_description
from scanseg.errors import InputError, UsageError
from scanseg.figures import (
    FILM_ENDINGS,
    PICTURE_ENDINGS,
    PLANE_NAMES,
    Caption,
    Look,
    Scene,
    count_values,
    displayed_labels,
    draw_montage,
    draw_planes,
    make_scene,
    write_figure,
    write_film,
)
from scanseg.imaging import Image, compare_geometry, read_image, read_label_map
from scanseg.specs import DatasetSpec

Layout = Literal["planes", "montage"]
"""Three planes, or slices side by side."""
Plane = Literal["axial", "coronal", "sagittal"]
"""Plane of a montage or a film."""


def show(
    image: Path | Sequence[Path] | Image,
    label_map: Path | np.ndarray | None,
    output: Path,
    *,
    reference: Path | np.ndarray | None = None,
    layout: Layout = "planes",
    plane: Plane = "axial",
    at: Sequence[int] | None = None,
    num_slices: int = 20,
    look: Look | None = None,
    window: tuple[float, float] | None = None,
    channel: int | None = None,
    labels: str | Path | Mapping[str, object] | None = None,
) -> str:
    """Draw an image with its label map. See `scanseg.show`.

    Args:
        image: File of the image, one file per channel, or the image itself.
        label_map: File of the label map, or its values. `None`: only the image.
        output: File to write. Its ending chooses between a picture and a film.
        reference: A second label map, drawn as white outlines.
        layout: `planes` or `montage`.
        plane: Plane of a montage or a film.
        at: Slices z, y, x of the planes, in the orientation of the picture.
        num_slices: Slices of a montage.
        look: Style of the labels.
        window: Intensities that are shown black and white.
        channel: Number of the channel.
        labels: Values of labels by name, as for `scanseg.convert`. `None`: the names in `dataset.json`.

    Returns:
        Description of the picture.
    """
    ending = output.suffix.lower()
    if ending not in (*PICTURE_ENDINGS, *FILM_ENDINGS):
        raise UsageError(
            f"{output}: expected an ending of {', '.join((*PICTURE_ENDINGS, *FILM_ENDINGS))}. Choose one."
        )
    shown = image if isinstance(image, Image) else read_image(image)
    paths = [each for each in (label_map, reference) if isinstance(each, Path)]
    description = next((spec for path in paths if (spec := _find_description(path)) is not None), None)
    named = _find_names(labels, description)
    scene = make_scene(
        shown,
        _read_on_grid(label_map, shown),
        _read_on_grid(reference, shown),
        labels=named,
        colours=None if description is None else description.colours,
        channel=channel,
        window=window,
    )
    scene = _name_others(scene)
    axis = PLANE_NAMES.index(plane)
    if ending in FILM_ENDINGS:
        return f"film of {write_film(scene, output, axis=axis, look=look)} {plane} slices"
    caption = Caption(_name_of(image), _volumes_of(scene))
    if layout == "montage":
        figure = draw_montage(scene, axis=axis, num_slices=num_slices, look=look, caption=caption)
    else:
        figure = draw_planes(scene, at=at, look=look, caption=caption)
    write_figure(figure, output)
    return "montage" if layout == "montage" else "three planes" if scene.is_volume else "picture"


def _name_of(image: Path | Sequence[Path] | Image) -> str:
    """Return the title of a picture."""
    if isinstance(image, Image):
        return ""
    return image.name if isinstance(image, Path) else image[0].name


def _read_on_grid(path: Path | np.ndarray | None, image: Image) -> np.ndarray | None:
    """Read a label map on the grid of an image.

    Raises:
        InputError: The grids differ.
    """
    if not isinstance(path, Path):
        return path
    label_map = read_label_map(path)
    differences = compare_geometry(label_map, image)
    if differences:
        raise InputError(
            f"{path}: expected the grid of the image, got another: {'; '.join(differences)}. Give the label map of "
            f"this image."
        )
    return label_map.array[0]


def _find_description(path: Path) -> DatasetSpec | None:
    """Read the `dataset.json` beside a label map or above it."""
    for folder in (path.parent, path.parent.parent):
        if (folder / DESCRIPTION_FILE).is_file():
            return read_description(folder).spec
    return None


def _find_names(
    labels: str | Path | Mapping[str, object] | None, description: DatasetSpec | None
) -> dict[str, tuple[int, ...]] | None:
    """Return the value of each label by name.

    `None`: no names are known.

    Raises:
        UsageError: A label has a colour instead of a value.
    """
    if labels is None:
        return None if description is None else displayed_labels(description)
    found = read_label_table(labels)
    named: dict[str, tuple[int, ...]] = {}
    named |= {name: (value,) for name, value in found.items() if isinstance(value, int) and value}
    if len(named) < sum(value != 0 for value in found.values()):
        raise UsageError(
            f"labels {labels}: expected numbers, got colours. Write for example liver=1,spleen=2."
        )
    return named


def _name_others(scene: Scene) -> Scene:
    """Add the values without a name to the labels of a scene."""
    named = {value for values in scene.labels.values() for value in values}
    others = {f"label {value}": (value,) for value in sorted(scene.found_values() - named)}
    return replace(scene, labels={**scene.labels, **others}) if others else scene


def _volumes_of(scene: Scene) -> dict[str, float] | None:
    """Return the volume of each label in ml.

    `None`: a picture, or no label map.
    """
    if scene.label_map is None or not scene.is_volume:
        return None
    counts, voxel_ml = count_values(scene.label_map), float(np.prod(scene.spacing)) / 1000
    return {
        name: float(sum(counts[value] for value in values)) * voxel_ml
        for name, values in scene.labels.items()
    }
