"""Figures of probabilities: reliability, and errors over uncertainty."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#0072B2", "#D55E00")


def draw_reliability(
    axes: "Axes", curves: Mapping[str, tuple[Float[np.ndarray, " bin"], Float[np.ndarray, " bin"]]]
) -> None:
    """Draw the share of correct voxels over their confidence.

    Source: Guo et al. 2017, arXiv:1706.04599, section 2.

    Args:
        axes: Axes to draw on.
        curves: Mean confidence and share of correct voxels of each bin, by the name of the curve. Empty bins are NaN.
    """
    axes.plot((0, 1), (0, 1), color="#5f6368", linewidth=0.8, linestyle="--", label="perfect")
    for (name, (confidence, accuracy)), colour in zip(curves.items(), _COLOURS, strict=False):
        found = np.isfinite(confidence)
        axes.plot(
            confidence[found],
            accuracy[found],
            marker="o",
            markersize=4,
            color=colour,
            label=name,
            clip_on=False,
        )
    lowest = min((float(np.nanmin(part)) for pair in curves.values() for part in pair), default=0.0)
    start = 0.5 if lowest >= 0.5 else 0.0
    axes.set_xlim(start, 1)
    axes.set_ylim(start, 1)
    axes.set_aspect("equal")
    axes.set_xlabel("confidence")
    axes.set_ylabel("share of correct voxels")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize="small", loc="upper left")


def draw_error_over_entropy(
    axes: "Axes",
    edges: Float[np.ndarray, " edge"],
    errors: Float[np.ndarray, " bin"],
    shares: Sequence[float],
) -> None:
    """Draw the share of wrong voxels in bins of entropy.

    Args:
        axes: Axes to draw on.
        edges: Edges of the bins.
        errors: Share of wrong voxels in each bin. NaN: no voxels.
        shares: Share of all voxels in each bin.
    """
    widths, centres = np.diff(edges), (edges[:-1] + edges[1:]) / 2
    axes.bar(centres, np.nan_to_num(errors), widths * 0.92, color="#0072B2", alpha=0.85)
    axes.set_xlim(float(edges[0]), float(edges[-1]))
    axes.set_ylim(0, max(0.05, float(np.nanmax(errors, initial=0)) * 1.18))
    top = axes.get_ylim()[1]
    for centre, error, share in zip(centres, errors, shares, strict=True):
        if np.isfinite(error):
            axes.text(
                centre,
                error + 0.01 * top,
                f"{100 * share:.2g}%",
                ha="center",
                va="bottom",
                fontsize="x-small",
            )
    axes.set_xlabel("entropy (numbers: share of voxels)")
    axes.set_ylabel("share of wrong voxels")
    axes.grid(axis="y", alpha=0.3)


def draw_dice_over_entropy(axes: "Axes", points: Mapping[str, tuple[float, float]]) -> None:
    """Draw the mean Dice of cases over their mean entropy.

    Args:
        axes: Axes to draw on.
        points: Mean entropy near the predicted labels, and mean Dice over labels, by the name of the case.
    """
    values = np.array(list(points.values())).reshape(-1, 2)
    axes.plot(*values.T, "o", color="#0072B2", markersize=5, alpha=0.75, markeredgewidth=0)
    for name in sorted(points, key=lambda each: points[each][1])[:3]:
        axes.annotate(
            name.replace("$", r"\$"),
            points[name],
            xytext=(4, 4),
            textcoords="offset points",
            fontsize="x-small",
        )
    axes.set_xlabel("mean entropy near the labels")
    axes.set_ylabel("mean Dice")
    axes.margins(0.15)
    axes.grid(alpha=0.3)
