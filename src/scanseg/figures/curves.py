"""Learning curves: loss and validation Dice over the epochs."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from scanseg.figures.slices import LABEL_COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Metrics = Sequence[Mapping[str, Any]]
"""Lines of `metrics.jsonl`, one per epoch."""


def line_style(number: int) -> tuple[str, str]:
    """Return colour and dash style of one of several lines.

    The first seven lines are solid and differ in colour. Further lines repeat the colours with other dash styles.

    Args:
        number: Index of the line, from 0.
    """
    style = ("-", "--", ":", "-.")[number // len(LABEL_COLOURS) % 4]
    return LABEL_COLOURS[number % len(LABEL_COLOURS)], style


def draw_loss(axes: "Axes", metrics: Metrics) -> None:
    """Draw the mean loss of every epoch.

    Args:
        axes: Axes to draw on.
        metrics: The lines of `metrics.jsonl`. Lines without a loss are skipped.
    """
    metrics = [line for line in metrics if "loss" in line]
    epochs, losses = [line["epoch"] for line in metrics], [line["loss"] for line in metrics]
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
            (line["epoch"], line["validation_dice"][name])
            for line in measured
            if line["validation_dice"].get(name) is not None
        ]
        colour, style = line_style(number)
        epochs, dice = [epoch for epoch, _ in points], [value for _, value in points]
        axes.plot(epochs, dice, color=colour, linestyle=style, marker=".", label=name, clip_on=False)
    axes.set_ylim(0, 1)
    _name_epochs(axes)
    axes.set_ylabel("Dice on validation patches")
    if names:
        axes.legend(frameon=False, fontsize="small")


def _name_epochs(axes: "Axes") -> None:
    """Label the horizontal axis with whole epochs."""
    axes.set_xlabel("epoch")
    axes.locator_params(axis="x", integer=True, min_n_ticks=1)
