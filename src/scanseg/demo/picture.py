"""Picture of a result: image, reference and prediction side by side."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer

from scanseg.figures import draw_slice
from scanseg.files import written_whole
from scanseg.imaging import LABEL_COLOURS


def write_picture(
    path: Path,
    *,
    image: Float[np.ndarray, "z x"],
    reference: Integer[np.ndarray, "z x"],
    prediction: Integer[np.ndarray, "z x"],
    spacing: tuple[float, float],
    labels: Mapping[str, int],
    title: str,
) -> None:
    """Write image, reference and prediction of one slice as a PNG.

    Args:
        path: File to write.
        image: Intensities (z, x).
        reference: Reference label map (z, x).
        prediction: Predicted label map (z, x).
        spacing: Millimetres per voxel along z and x.
        labels: Values by name, for the legend.
        title: Title of the picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 3, sharex=True, sharey=True)
    for axes, label_map, name in zip(
        panels, (None, reference, prediction), ("image", "reference", "prediction"), strict=True
    ):
        draw_slice(axes, image, label_map, title=name, spacing=spacing)
        axes.label_outer()
    handles = [Patch(color=LABEL_COLOURS[value - 1], label=name) for name, value in labels.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    figure.suptitle(title)
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=120)
