"""Figures of instance scores."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from scanseg.figures.curves import line_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_score_over_iou(axes: "Axes", ious: Sequence[float], scores: Mapping[str, Sequence[float]]) -> None:
    """Draw scores of instances over the overlap that a match needs.

    Args:
        axes: Axes to draw on.
        ious: Smallest intersections over unions of a matched pair.
        scores: Scores at these overlaps by name, from 0 to 1.
    """
    for number, (name, values) in enumerate(scores.items()):
        colour, style = line_style(number)
        axes.plot(ious, values, color=colour, linestyle=style, marker=".", label=name, clip_on=False)
    axes.set_ylim(0, 1)
    axes.set_xlabel("least overlap of a match (IoU)")
    axes.set_ylabel("score")
    axes.legend(frameon=False, fontsize="small")
