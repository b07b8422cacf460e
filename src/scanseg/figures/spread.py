"""Figures of a comparison: spread of scores, and Dice over time."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from scanseg.figures.curves import Metrics, line_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_SECONDS = 180
"""Longest training whose time axis is in seconds instead of minutes."""


def draw_spread(axes: "Axes", values: Mapping[str, Sequence[float]], *, baseline: str) -> None:
    """Draw each arm's scores as points with mean and standard deviation.

    Args:
        axes: Axes to draw on.
        values: Dice of the trainings of each arm, by its name.
        baseline: Arm that the others are compared with. A vertical line marks its mean.
    """
    styles = _line_styles(values, baseline=baseline)
    for row, (name, dice) in enumerate(values.items()):
        if not dice:
            continue
        colour, _ = styles[name]
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


def draw_dice_over_time(axes: "Axes", trainings: Mapping[str, Sequence[Metrics]], *, baseline: str) -> None:
    """Draw the Dice on validation patches over time, one line per training.

    Time is in seconds, or in minutes if a training takes more than 180 s.

    Args:
        axes: Axes to draw on.
        trainings: The lines of `metrics.jsonl` of the trainings of each arm, by its name.
        baseline: Arm that the others are compared with. Its lines are black.
    """
    styles = _line_styles(trainings, baseline=baseline)
    timed = {
        name: [[line for line in metrics if "seconds" in line] for metrics in runs]
        for name, runs in trainings.items()
    }
    times = [line["seconds"] for runs in timed.values() for metrics in runs for line in metrics]
    unit, seconds = ("min", 60) if max(times, default=0) > _MOST_SECONDS else ("s", 1)
    for name, runs in timed.items():
        colour, style = styles[name]
        for number, metrics in enumerate(runs):
            points = [
                (line["seconds"] / seconds, _mean_dice(line)) for line in metrics if "validation_dice" in line
            ]
            label = name if number == 0 else None
            times_and_dice = np.array(points).reshape(-1, 2).T
            axes.plot(*times_and_dice, color=colour, linestyle=style, marker=".", alpha=0.7, label=label)
    axes.set_xlabel(f"time of training ({unit})")
    axes.set_ylabel("Dice on validation patches")
    if any(trainings.values()):
        axes.legend(frameon=False, fontsize="small")


def _mean_dice(line: Mapping[str, Any]) -> float:
    """Return the mean Dice over the measured labels. NaN: none."""
    dice = [value for value in line["validation_dice"].values() if value is not None]
    return float(np.mean(dice)) if dice else float("nan")


def _line_styles(names: Iterable[str], *, baseline: str) -> dict[str, tuple[str, str]]:
    """Return colour and dash style of each arm. The baseline is black."""
    others = [name for name in names if name != baseline]
    styles = {name: line_style(number) for number, name in enumerate(others)}
    return styles | {baseline: ("#000000", "-")}
