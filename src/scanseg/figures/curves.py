"""Learning curves: loss and validation Dice over the epochs."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from scanseg.imaging import LABEL_COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Metrics = Sequence[Mapping[str, Any]]
"""Lines of `metrics.jsonl`: one per epoch, and losses within epochs."""


def line_style(number: int) -> tuple[str, str]:
    """Return colour and dash style of one of several lines.

    The first seven lines are solid and differ in colour. Further lines repeat the colours with other dash styles.

    Args:
        number: Index of the line, from 0.
    """
    style = ("-", "--", ":", "-.")[number // len(LABEL_COLOURS) % 4]
    return LABEL_COLOURS[number % len(LABEL_COLOURS)], style


def draw_loss(axes: "Axes", metrics: Metrics) -> None:
    """Draw the mean loss of every epoch, and the losses within epochs.

    Args:
        axes: Axes to draw on.
        metrics: The lines of `metrics.jsonl`. Lines without a loss are skipped.
    """
    metrics = [line for line in metrics if "loss" in line]
    epochs, losses = _epochs_of(metrics), [line["loss"] for line in metrics]
    axes.plot(epochs, losses, color="#000000", marker="." if len(epochs) == 1 else "")
    _name_epochs(axes)
    axes.set_ylabel("training loss")


def draw_validation_dice(axes: "Axes", metrics: Metrics) -> None:
    """Draw the Dice of each label on validation patches.

    Args:
        axes: Axes to draw on.
        metrics: The lines of `metrics.jsonl`. Lines without validation scores are skipped.
    """
    measured = [line for line in metrics if "validation_dice" in line]
    names = list(measured[0]["validation_dice"]) if measured else []
    for number, name in enumerate(names):
        points = [
            (epoch, line["validation_dice"][name])
            for epoch, line in zip(_epochs_of(metrics), metrics, strict=True)
            if "validation_dice" in line and line["validation_dice"].get(name) is not None
        ]
        colour, style = line_style(number)
        epochs, dice = [epoch for epoch, _ in points], [value for _, value in points]
        axes.plot(epochs, dice, color=colour, linestyle=style, marker=".", label=name, clip_on=False)
    axes.set_ylim(0, 1)
    _name_epochs(axes)
    axes.set_ylabel("Dice on validation patches")
    if names:
        axes.legend(frameon=False, fontsize="small")


def _epochs_of(metrics: Metrics) -> list[float]:
    """Return the finished epochs of each line, with fractions.

    A time limit may end the last epoch early. Losses within epochs have the number of steps per epoch.
    """
    within = [line for line in metrics if line.get("epochs_done")]
    if not within:
        return [line["epoch"] for line in metrics]
    iterations = within[-1]["iterations"] / within[-1]["epochs_done"]
    return [line["iterations"] / iterations if "iterations" in line else line["epoch"] for line in metrics]


def _name_epochs(axes: "Axes") -> None:
    """Label the horizontal axis with epochs, whole ones if it spans several."""
    axes.set_xlabel("epoch")
    first, last = axes.dataLim.intervalx
    axes.locator_params(axis="x", integer=not 0 < last - first < 3, min_n_ticks=1)
