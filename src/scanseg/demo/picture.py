"""Picture of results: image, reference and predictions side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer

from scanseg.figures import draw_slice
from scanseg.files import written_whole
from scanseg.imaging import LABEL_COLOURS


@dataclass(frozen=True, eq=False)
class SliceResults:
    """One slice with its reference and predictions."""

    image: Float[np.ndarray, "z x"]
    """Intensities."""
    label_maps: Mapping[str, Integer[np.ndarray, "z x"]]
    """Label maps by the title of their column, the same titles for all slices."""
    spacing: tuple[float, float]
    """Millimetres per voxel along z and x."""


def write_picture(
    path: Path, slices: Sequence[SliceResults], *, labels: Mapping[str, int], title: str
) -> None:
    """Write slices with their label maps as a PNG.

    Each slice is a row.

    Args:
        path: File to write.
        slices: Slices with their label maps.
        labels: Values by name, for the legend.
        title: Title of the picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    titles = ["image", *slices[0].label_maps]
    figure = Figure(figsize=(2.7 * len(titles), 0.9 + 2.9 * len(slices)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(slices), len(titles), sharex=True, sharey=True, squeeze=False)
    for number, (row, each) in enumerate(zip(grid, slices, strict=True)):
        for axes, label_map, name in zip(row, (None, *each.label_maps.values()), titles, strict=True):
            heading = name if number == 0 else ""
            draw_slice(axes, each.image, label_map, title=heading, spacing=each.spacing)
            axes.label_outer()
    handles = [
        Patch(color=LABEL_COLOURS[(value - 1) % len(LABEL_COLOURS)], label=name)
        for name, value in labels.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    figure.suptitle(title)
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=130)
