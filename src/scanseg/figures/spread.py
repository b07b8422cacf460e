"""Scores of several ways to train, and how they spread."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from scanseg.figures.slices import LABEL_COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_spread(axes: "Axes", values: Mapping[str, Sequence[float]], *, baseline: str) -> None:
    """Draw every score as a point, and mean and standard deviation of each way as a bar.

    Args:
        axes: Where to draw.
        values: Dice of the trainings of each way, by its name.
        baseline: The way with which the others are compared; its mean is a line.
    """
    for row, (name, dice) in enumerate(values.items()):
        if not dice:
            continue
        colour = "#000000" if name == baseline else LABEL_COLOURS[0]
        offsets = row + np.linspace(-0.15, 0.15, len(dice)) if len(dice) > 1 else [row]
        axes.plot(dice, offsets, linestyle="", marker="o", markersize=4, alpha=0.6, color=colour)
        deviation = float(np.std(dice, ddof=1)) if len(dice) > 1 else 0.0
        axes.errorbar(
            float(np.mean(dice)), row, xerr=deviation, color=colour, marker="|", markersize=14, capsize=3
        )
    if values.get(baseline):
        axes.axvline(float(np.mean(values[baseline])), color="#000000", linewidth=0.7, linestyle=":")
    axes.set_yticks(range(len(values)), list(values))
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.set_xlabel("Dice, mean over labels and validation cases")
