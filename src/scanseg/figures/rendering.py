"""Planes of a scene as pixels: intensities, labels in colours, outlines."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Num, UInt8

from scanseg.figures.scene import Scene

Style = Literal["fill", "contour", "both"]
"""Labels as transparent areas, as outlines, or as both."""

AXIAL, CORONAL, SAGITTAL = 0, 1, 2
PLANE_NAMES = ("axial", "coronal", "sagittal")
"""Names of the planes perpendicular to the axes z, y, x."""

_SIDES = (("A", "P", "R", "L"), ("S", "I", "R", "L"), ("S", "I", "A", "P"))
"""Sides of the body at the top, bottom, left and right of each plane."""
_OPACITY = {"fill": 0.5, "contour": 0.0, "both": 0.3}
_REFERENCE_COLOUR = (255, 255, 255)


@dataclass(frozen=True)
class Look:
    """Style and size of a picture."""

    style: Style = "both"
    """Labels as areas, outlines or both."""
    num_pixels: int = 512
    """Pixels of the longer side of a plane."""
    line_pixels: int = 2
    """Width of outlines in pixels."""


def plane_size(scene: Scene, axis: int) -> tuple[float, float]:
    """Return height and width of a plane in mm.

    Args:
        scene: A picture or a volume.
        axis: Axis perpendicular to the plane. Pictures have one plane.
    """
    height, width = _plane_axes(scene, axis)
    return scene.shape[height] * scene.spacing[height], scene.shape[width] * scene.spacing[width]


def sides_of(scene: Scene, axis: int) -> tuple[str, str, str, str] | None:
    """Return the sides of the body at the borders of a plane.

    Args:
        scene: A picture or a volume.
        axis: Axis perpendicular to the plane.

    Returns:
        Letters of top, bottom, left and right, or `None` for pictures.
    """
    return _SIDES[axis] if scene.is_volume else None


def render_plane(
    scene: Scene, axis: int = AXIAL, index: int = 0, *, look: Look | None = None, overlay: bool = True
) -> UInt8[np.ndarray, "row column 3"]:
    """Draw a plane of a scene with its labels.

    Pixels are square, whatever the spacing. The image is interpolated linearly and labels by nearest neighbour.

    Args:
        scene: A picture or a volume.
        axis: Axis perpendicular to the plane. Pictures have one plane.
        index: Number of the slice along the axis.
        look: Style and size. `None`: areas and outlines, 512 pixels.
        overlay: Draw the labels.

    Returns:
        Red, green and blue.
    """
    from PIL import Image as Picture

    look = look or Look()
    height, width = plane_size(scene, axis)
    scale = look.num_pixels / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    grey = _to_bytes(_take(scene, scene.image, axis, index), scene.window)
    pixels = np.array(Picture.fromarray(grey).convert("RGB").resize(size, Picture.Resampling.BILINEAR))
    if not overlay:
        return pixels
    palette = scene.palette()
    if scene.label_map is not None:
        labels = _resize_labels(_take(scene, scene.label_map, axis, index), size)
        _fill(pixels, labels, palette, opacity=_OPACITY[look.style])
        if look.style != "fill":
            edges = find_edges(labels, look.line_pixels)
            pixels[edges] = palette[labels[edges]]
    if scene.reference is not None:
        labels = _resize_labels(_take(scene, scene.reference, axis, index), size)
        pixels[find_edges(labels, max(1, look.line_pixels - 1))] = _REFERENCE_COLOUR
    return pixels


def find_edges(labels: UInt8[np.ndarray, "row column"], width: int) -> Bool[np.ndarray, "row column"]:
    """Return the pixels of labels that touch another value.

    Args:
        labels: Label values.
        width: Width of the edges in pixels.
    """
    edges = np.zeros(labels.shape, bool)
    for distance in range(1, width + 1):
        if min(labels.shape) <= distance:
            break
        below = labels[distance:] != labels[:-distance]
        right = labels[:, distance:] != labels[:, :-distance]
        edges[distance:] |= below
        edges[:-distance] |= below
        edges[:, distance:] |= right
        edges[:, :-distance] |= right
    return edges & (labels > 0)


def _plane_axes(scene: Scene, axis: int) -> tuple[int, int]:
    """Return the axes of rows and columns of a plane."""
    if not scene.is_volume:
        return 0, 1
    return (1, 2) if axis == AXIAL else (0, 2) if axis == CORONAL else (0, 1)


def _take(scene: Scene, array: Num[np.ndarray, "..."], axis: int, index: int) -> np.ndarray:
    """Return a slice with head or front at its top."""
    if not scene.is_volume:
        return array
    plane = np.take(array, index, axis=axis)
    return plane if axis == AXIAL else plane[::-1]


def _to_bytes(plane: Num[np.ndarray, "..."], window: tuple[float, float]) -> UInt8[np.ndarray, "..."]:
    """Map the window to 0 to 255. Colours stay as they are."""
    if plane.ndim == 3:
        return np.ascontiguousarray(plane)
    low, high = window
    scaled = (plane.astype(np.float32) - low) / (high - low)
    return (255 * scaled.clip(0, 1)).astype(np.uint8)


def _resize_labels(
    plane: UInt8[np.ndarray, "row column"], size: tuple[int, int]
) -> UInt8[np.ndarray, "row column"]:
    from PIL import Image as Picture

    picture = Picture.fromarray(np.ascontiguousarray(plane))
    return np.array(picture.resize(size, Picture.Resampling.NEAREST))


def _fill(
    pixels: UInt8[np.ndarray, "row column 3"],
    labels: UInt8[np.ndarray, "row column"],
    palette: UInt8[np.ndarray, "256 3"],
    *,
    opacity: float,
) -> None:
    """Blend the colours of labels into new pixels."""
    inside = labels > 0
    colours = palette[labels[inside]].astype(np.float32)
    pixels[inside] = ((1 - opacity) * pixels[inside] + opacity * colours).astype(np.uint8)
