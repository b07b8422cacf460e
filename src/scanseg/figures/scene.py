"""Images with label maps, oriented for display."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Num, UInt8

from scanseg.errors import InputError, UsageError
from scanseg.imaging import (
    Image,
    axis_codes,
    find_reorientation,
    palette_colours,
)
from scanseg.specs import DatasetSpec

_DISPLAY_CODES = "LPS"
"""Orientation of volumes on display: rows of an axial slice run from A to P, columns from R to L."""
_MOST_SAMPLES = 4_000_000
"""Voxels from which window and slices are chosen."""
_WINDOW_PERCENT = (0.5, 99.5)
"""Percentiles of the intensities that are shown black and white."""

Labels = Mapping[str, tuple[int, ...]]
"""Values of each label or region, by name."""


@dataclass(frozen=True, eq=False)
class Scene:
    """An image with its label maps, oriented for display.

    Volumes have axes z, y, x that run to S, P and L. Pictures have axes y, x.
    """

    image: Num[np.ndarray, "*spatial"]
    """Intensities. Colour pictures have the type uint8 and a last axis of red, green and blue."""
    label_map: UInt8[np.ndarray, "*spatial"] | None
    """Label values to fill with colours. `None`: no label map."""
    reference: UInt8[np.ndarray, "*spatial"] | None
    """Label values to outline in white. `None`: no reference."""
    spacing: tuple[float, ...]
    """Millimetres per voxel along each axis."""
    labels: Labels
    """Values of each label, by name."""
    window: tuple[float, float]
    """Intensities that are shown black and white."""
    colours: Mapping[int, tuple[int, int, int]] = field(default_factory=dict)
    """Red, green and blue of label values. Other values have the colours of a fixed palette."""

    @property
    def is_volume(self) -> bool:
        """Whether the scene has three axes."""
        return len(self.spacing) == 3

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along each axis."""
        return tuple(int(size) for size in self.image.shape[: len(self.spacing)])

    def palette(self) -> UInt8[np.ndarray, "256 3"]:
        """Return red, green and blue of all label values."""
        return palette_colours(self.colours)

    def found_values(self) -> frozenset[int]:
        """Return the label values of label map and reference, without 0."""
        maps = [each for each in (self.label_map, self.reference) if each is not None]
        counts = sum((count_values(each) for each in maps), np.zeros(256, np.int64))
        return frozenset(np.flatnonzero(counts).tolist()) - {0}


def make_scene(
    image: Image,
    label_map: UInt8[np.ndarray, "*spatial"] | None = None,
    reference: UInt8[np.ndarray, "*spatial"] | None = None,
    *,
    labels: Labels | None = None,
    colours: Mapping[int, tuple[int, int, int]] | None = None,
    channel: int | None = None,
    window: tuple[float, float] | None = None,
) -> Scene:
    """Orient an image and its label maps for display.

    Args:
        image: The image.
        label_map: Label values on its grid. `None`: only the image.
        reference: Label values on its grid to outline. `None`: no reference.
        labels: Values of each label, by name. `None`: each value found is a label named by its number.
        colours: Red, green and blue of label values. Other values have the colours of a fixed palette.
        channel: Channel to show. `None`: colours of an RGB picture, else the first channel.
        window: Intensities that are shown black and white. `None`: the percentiles 0.5 and 99.5.

    Raises:
        InputError: A label map has another shape than the image.
        UsageError: The image has no such channel, or the window is empty.
    """
    for name, values in (("label map", label_map), ("reference", reference)):
        if values is not None and values.shape != image.shape:
            raise InputError(
                f"{name}: expected the shape {image.shape} of the image, got {values.shape}. Give the label map of "
                f"this image."
            )
    intensities = _choose_channel(image, channel)
    maps = [intensities, label_map, reference]
    spacing = tuple(float(value) for value in image.spacing)
    codes = axis_codes(image)
    if codes is not None:
        order, flips = find_reorientation(codes, _DISPLAY_CODES)
        axes = tuple(axis for axis, is_reversed in enumerate(flips) if is_reversed)
        maps = [None if each is None else np.flip(each.transpose(order), axes) for each in maps]
        spacing = tuple(spacing[axis] for axis in order)
    shown, label_map, reference = maps
    assert shown is not None
    scene = Scene(
        shown,
        label_map,
        reference,
        spacing,
        labels={} if labels is None else labels,
        window=_choose_window(shown) if window is None else _checked_window(window),
        colours=colours or {},
    )
    if labels is not None:
        return scene
    found = {str(value): (value,) for value in sorted(scene.found_values())}
    return replace(scene, labels=found)


def displayed_labels(dataset: DatasetSpec) -> dict[str, tuple[int, ...]]:
    """Return the label values to name in a picture.

    Regions overlap, so each is named by the value that it writes into label maps.

    Args:
        dataset: The labels.
    """
    if dataset.regions_class_order is None:
        return dataset.foreground
    return {
        name: (value,) for name, value in zip(dataset.foreground, dataset.regions_class_order, strict=True)
    }


def count_values(label_map: UInt8[np.ndarray, "*spatial"]) -> np.ndarray:
    """Return the number of voxels of each value from 0 to 255.

    Args:
        label_map: Label values.
    """
    if label_map.ndim < 3:
        return np.bincount(label_map.reshape(-1), minlength=256)
    total = np.zeros(256, np.int64)
    for plane in label_map:  # bounds the memory
        total += np.bincount(plane.reshape(-1), minlength=256)
    return total


def choose_slice(scene: Scene, axis: int, *, focus: np.ndarray | None = None) -> int:
    """Return the slice with the largest part of all labels.

    Each label weighs the same, so a small one is not hidden by a large one. Without labels it is the middle slice.

    Args:
        scene: A volume.
        axis: Axis of the slices: 0, 1 or 2.
        focus: Mask of voxels to show, such as errors. `None`: the labels.
    """
    values = scene.label_map if scene.label_map is not None and scene.label_map.any() else scene.reference
    if focus is not None and focus.any():
        values = focus.view(np.uint8)
    middle = scene.shape[axis] // 2
    if values is None:
        return middle
    share = _share_of_slices(values, axis)
    return int(share.argmax()) if share.any() else middle


def find_range(scene: Scene, axis: int) -> tuple[int, int]:
    """Return the first and the last slice with labels.

    Args:
        scene: A volume.
        axis: Axis of the slices.

    Returns:
        Numbers of slices. The whole axis if no voxel has a label.
    """
    others = tuple(each for each in range(3) if each != axis)
    maps = [each for each in (scene.label_map, scene.reference) if each is not None]
    found = [np.flatnonzero(each.any(axis=others)) for each in maps]
    rows = np.concatenate([*found, np.zeros(0, int)])
    return (int(rows.min()), int(rows.max())) if len(rows) else (0, scene.shape[axis] - 1)


def _share_of_slices(values: UInt8[np.ndarray, "z y x"], axis: int) -> np.ndarray:
    """Sum the shares of all labels in each slice."""
    step = max(1, round((values.size / _MOST_SAMPLES) ** 0.5))
    moved = np.moveaxis(values, axis, 0)[:, ::step, ::step]
    counts = np.stack([np.bincount(plane.reshape(-1), minlength=256)[1:] for plane in moved])
    return (counts / np.maximum(counts.max(axis=0), 1)).sum(axis=1)


def _choose_channel(image: Image, channel: int | None) -> np.ndarray:
    """Return the intensities of a channel, or the colours of a picture."""
    is_colour = image.num_axes == 2 and image.num_channels == 3 and image.array.dtype == np.uint8
    if channel is None and is_colour:
        return np.moveaxis(image.array, 0, -1)
    number = channel or 0
    if not 0 <= number < image.num_channels:
        raise UsageError(
            f"channel {number}: expected a number below {image.num_channels}, the number of channels. Choose another."
        )
    return image.array[number]


def _checked_window(window: tuple[float, float]) -> tuple[float, float]:
    low, high = window
    if not low < high:
        raise UsageError(f"window {low:g},{high:g}: expected LOW below HIGH. Exchange the values.")
    return low, high


def _choose_window(intensities: np.ndarray) -> tuple[float, float]:
    """Return two percentiles of the intensities, without the padding of CT scanners."""
    step = max(1, round((intensities.size / _MOST_SAMPLES) ** (1 / intensities.ndim)))
    samples = intensities[(slice(None, None, step),) * intensities.ndim].astype(np.float32)
    inside = samples[samples > samples.min()]
    low, high = np.percentile(inside if inside.size else samples, _WINDOW_PERCENT)
    return float(low), float(high) if high > low else float(low) + 1.0
