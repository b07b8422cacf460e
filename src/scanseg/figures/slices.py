"""Slices of images with their label maps."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Integer

from scanseg.imaging import LABEL_COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FILL = 0.25
"""Opacity of the areas inside the contours."""


def draw_slice(
    axes: "Axes",
    image: Float[np.ndarray, "row column"],
    label_map: Integer[np.ndarray, "row column"] | None,
    *,
    title: str,
    spacing: tuple[float, float],
) -> None:
    """Draw a slice with the contours of its labels.

    Args:
        axes: Axes to draw on.
        image: Intensities of shape (row, column).
        label_map: Label values of shape (row, column). `None`: only the image.
        title: Title of the axes.
        spacing: Millimetres per voxel along rows and columns.
    """
    from matplotlib.colors import to_rgba

    extent = (0.0, image.shape[1] * spacing[1], 0.0, image.shape[0] * spacing[0])
    low, high = np.quantile(image, (0.005, 0.995))
    axes.imshow(image, cmap="gray", origin="lower", extent=extent, vmin=low, vmax=high)
    centres = [(np.arange(size) + 0.5) * step for size, step in zip(image.shape, spacing, strict=True)]
    for value in () if label_map is None else np.unique(label_map[label_map > 0]):
        assert label_map is not None
        mask = label_map == value
        colour = LABEL_COLOURS[(int(value) - 1) % len(LABEL_COLOURS)]
        area = np.zeros((*mask.shape, 4))
        area[mask] = to_rgba(colour, _FILL)
        axes.imshow(area, origin="lower", extent=extent, interpolation="nearest")
        if not mask.all() and min(mask.shape) > 1:
            axes.contour(centres[1], centres[0], mask, levels=[0.5], colors=[colour], linewidths=0.8)
    axes.set_title(title)
    axes.set_xlabel("x (mm)")
    axes.set_ylabel("z (mm)")
