"""Figures of scores: distributions, volumes, Bland-Altman, confusion."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_NAMED_LABELS = 12
"""Labels that a legend names."""
_MOST_CELLS_WITH_NUMBERS = 16
"""Rows of a matrix whose cells have numbers."""


def draw_distribution(
    axes: "Axes",
    values: Mapping[str, Sequence[float]],
    *,
    colours: Mapping[str, str],
    quantity: str,
    limits: tuple[float, float] | None,
) -> None:
    """Draw the scores of each label as points over a box.

    Boxes show the quartiles. Whiskers reach to the last point within 1.5 interquartile ranges.

    Args:
        axes: Axes to draw on.
        values: Scores of the cases by label.
        colours: Colour of each label.
        quantity: Name of the score with its unit.
        limits: Range of the horizontal axis. `None`: from the values.
    """
    names = list(values)
    rng = np.random.default_rng(0)
    for row, name in enumerate(names):
        scores = np.asarray(values[name], float)
        if not len(scores):
            continue
        axes.boxplot(
            [scores],
            positions=[row],
            orientation="horizontal",
            widths=0.6,
            showfliers=False,
            manage_ticks=False,
            medianprops={"color": "#202124", "linewidth": 1.4},
            boxprops={"color": "#5f6368"},
            whiskerprops={"color": "#5f6368"},
            capprops={"color": "#5f6368"},
        )
        offsets = row + rng.uniform(-0.18, 0.18, len(scores))
        axes.plot(
            scores,
            offsets,
            "o",
            color=colours[name],
            markersize=4,
            alpha=0.65,
            markeredgewidth=0,
            clip_on=False,
        )
    axes.set_yticks(range(len(names)), [_plain(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    if limits is not None:
        axes.set_xlim(*limits)
    axes.set_xlabel(quantity)
    axes.grid(axis="x", alpha=0.3)


def draw_volumes(
    axes: "Axes", volumes: Mapping[str, Float[np.ndarray, "case 2"]], *, colours: Mapping[str, str], unit: str
) -> None:
    """Draw predicted against reference volumes, one point per case and label.

    Args:
        axes: Axes to draw on.
        volumes: Reference and predicted volumes of the cases, by label.
        colours: Colour of each label.
        unit: Unit of the volumes.
    """
    everything = np.concatenate([np.zeros((0, 2)), *volumes.values()])
    positive = everything[everything > 0]
    low, high = (positive.min(), positive.max()) if positive.size else (0.1, 1.0)
    is_wide = high / low > 50
    for number, (name, pairs) in enumerate(volumes.items()):
        label = _plain(name) if number < _MOST_NAMED_LABELS else None
        axes.plot(*pairs.T, "o", color=colours[name], markersize=5, alpha=0.7, markeredgewidth=0, label=label)
    ends = (low / 1.3, high * 1.3) if is_wide else (0.0, high * 1.08)
    axes.plot(ends, ends, color="#5f6368", linewidth=0.8, linestyle="--", zorder=0)
    if is_wide:
        axes.set_xscale("log")
        axes.set_yscale("log")
    axes.set_xlim(*ends)
    axes.set_ylim(*ends)
    axes.set_aspect("equal")
    axes.set_xlabel(f"reference volume ({unit})")
    axes.set_ylabel(f"predicted volume ({unit})")
    axes.grid(alpha=0.3)
    if volumes:
        axes.legend(frameon=False, fontsize="small", loc="upper left")


def draw_bland_altman(
    axes: "Axes",
    pairs: Float[np.ndarray, "case 2"],
    *,
    bias: float,
    limits: tuple[float, float] | None,
    title: str,
    unit: str,
    colour: str,
) -> None:
    """Draw differences of volumes over their means (Bland-Altman plot).

    Args:
        axes: Axes to draw on.
        pairs: Reference and predicted volume of each case.
        bias: Mean difference.
        limits: Lower and upper limit of agreement. `None`: too few cases.
        title: Name of the label.
        unit: Unit of the volumes.
        colour: Colour of the points.
    """
    differences = pairs[:, 1] - pairs[:, 0]
    axes.plot(pairs.mean(axis=1), differences, "o", color=colour, markersize=5, alpha=0.75, markeredgewidth=0)
    axes.axhline(0, color="#bdc1c6", linewidth=0.8, zorder=0)
    axes.axhline(bias, color="#202124", linewidth=1.1)
    for value in limits or ():
        axes.axhline(value, color="#202124", linewidth=0.9, linestyle="--")
    largest = max(np.abs([*differences, *(limits or ()), bias]).max() * 1.25, 0.05 * pairs.max(), 1e-9)
    axes.set_ylim(-largest, largest)
    axes.margins(x=0.12)
    axes.set_title(_plain(title), fontsize="medium")
    axes.set_xlabel(f"mean of both ({unit})")
    axes.set_ylabel(f"predicted - reference ({unit})")
    axes.grid(alpha=0.25)


def draw_confusion(
    axes: "Axes", shares: Float[np.ndarray, "reference predicted"], names: Sequence[str]
) -> None:
    """Draw the confusion between labels as shares of reference labels.

    Args:
        axes: Axes to draw on.
        shares: Shares from 0 to 1. Rows are reference labels and sum to 1, or to NaN without voxels.
        names: Names of the labels, with the background.
    """
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    ticks, texts = range(len(names)), [_plain(name) for name in names]
    axes.set_xticks(ticks, texts, rotation=45, ha="right", rotation_mode="anchor", fontsize="small")
    axes.set_yticks(ticks, texts, fontsize="small")
    axes.set_xlabel("predicted")
    axes.set_ylabel("reference")
    if len(names) <= _MOST_CELLS_WITH_NUMBERS:
        size = "small" if len(names) <= 8 else "xx-small"
        for (row, column), share in np.ndenumerate(shares):
            if share >= 0.0005:
                colour = "#ffffff" if share > 0.55 else "#202124"
                axes.text(
                    column, row, f"{100 * share:.1f}", ha="center", va="center", fontsize=size, color=colour
                )
    axes.figure.colorbar(image, ax=axes, shrink=0.8, label="share of the reference label")


def _plain(text: str) -> str:
    """Return a text without the signs of formulas."""
    return text.replace("$", r"\$")
