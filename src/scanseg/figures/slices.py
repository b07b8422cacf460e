"""Slices of images with their label maps."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Integer

from scanseg.imaging import LABEL_COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_slice(
    axes: "Axes",
    image: Float[np.ndarray, "row column"],
    label_map: Integer[np.ndarray, "row column"] | None,
    *,
    title: str,
    spacing: tuple[float, float],
) -> None:
    """Draw a slice with its label map on top.

    Args:
        axes: Axes to draw on.
        image: Intensities of shape (row, column).
        label_map: Label values of shape (row, column). `None`: only the image.
        title: Title of the axes.
        spacing: Millimetres per voxel along rows and columns.
    """
    from matplotlib.colors import ListedColormap

    extent = (0.0, image.shape[1] * spacing[1], 0.0, image.shape[0] * spacing[0])
    axes.imshow(image, cmap="gray", origin="lower", extent=extent)
    if label_map is not None:
        colours = ListedColormap(LABEL_COLOURS[: max(int(label_map.max()), 1)])
        shown = np.ma.masked_equal(label_map, 0)
        axes.imshow(
            shown, cmap=colours, vmin=1, origin="lower", extent=extent, alpha=0.75, interpolation="nearest"
        )
    axes.set_title(title)
    axes.set_xlabel("x (mm)")
    axes.set_ylabel("z (mm)")
