"""Figures of reports as embedded pictures."""

import base64
import io
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from scanseg.reports.page import Chart

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_VECTOR_ELEMENTS = 3000
"""Points of a figure up to which it is a vector graphic."""
_JPEG_QUALITY = 82
_REM_PER_INCH = 6.0
"""Width of figures on the page: multiples of its font size for an inch."""


def make_chart(
    draw: "Callable[[Axes], None]",
    *,
    alternative: str,
    caption: str = "",
    size: tuple[float, float] = (5.2, 3.6),
    num_elements: int = 0,
) -> Chart:
    """Draw a figure and embed it.

    Args:
        draw: Function that draws on axes.
        alternative: Text for readers that show no pictures.
        caption: Text below the figure.
        size: Width and height in inches.
        num_elements: Number of points. Figures of many are pixels instead of vectors.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": "scanseg",
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with mpl.rc_context({**style, "font.family": "sans-serif", "axes.edgecolor": "#9aa0a6"}):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure.subplots())
        buffer = io.BytesIO()
        if num_elements > _MOST_VECTOR_ELEMENTS:
            figure.savefig(buffer, format="png", dpi=130, bbox_inches="tight", pad_inches=0.06)
            kind = "png"
        else:
            figure.savefig(
                buffer, format="svg", metadata={"Date": None}, bbox_inches="tight", pad_inches=0.06
            )
            kind = "svg+xml"
    return Chart(
        _address(buffer.getvalue(), kind), alternative, caption, size[0] / size[1], _REM_PER_INCH * size[0]
    )


def embed_pixels(pixels: UInt8[np.ndarray, "row column 3"], *, alternative: str, caption: str = "") -> Chart:
    """Embed a picture as JPEG.

    Args:
        pixels: Red, green and blue.
        alternative: Text for readers that show no pictures.
        caption: Text below the picture.
    """
    from PIL import Image as Picture

    buffer = io.BytesIO()
    Picture.fromarray(pixels).save(buffer, "JPEG", quality=_JPEG_QUALITY, optimize=True, subsampling=0)
    return Chart(_address(buffer.getvalue(), "jpeg"), alternative, caption, pixels.shape[1] / pixels.shape[0])


def _address(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
