"""Figure of growth: time and memory over tokens, on logarithmic axes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scanseg.imaging import LABEL_COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLES = {"mlstm": "mlstm: 4 heads of 64 features", "ss2d": "ss2d_scan: 96 channels"}
MARKERS = "osd^v<>"


def draw_growth(
    axes: "Axes",
    series: Mapping[str, Sequence[tuple[int, float]]],
    *,
    title: str,
    quantity: str,
    slope_from: float,
) -> None:
    """Draw values over tokens, and linear growth as a dotted line.

    Args:
        axes: Axes for the plot.
        series: Points (tokens, value) of each backend, by its name.
        title: Title of the axes.
        quantity: Quantity and unit of the values.
        slope_from: First value of the dotted line, at the fewest tokens.
    """
    for number, (name, points) in enumerate(series.items()):
        tokens, values = zip(*points, strict=True)
        colour, marker = LABEL_COLOURS[number % len(LABEL_COLOURS)], MARKERS[number % len(MARKERS)]
        axes.plot(tokens, values, color=colour, marker=marker, markersize=4, label=name)
    ends = [count for points in series.values() for count, _ in points]
    first, last = min(ends), max(ends)
    dotted = (slope_from, slope_from * last / first)
    axes.plot((first, last), dotted, color="0.5", linestyle=":", label="linear")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    ticks = sorted(set(ends))
    axes.set_xticks(ticks, [f"{count // 1024}k" for count in ticks])
    axes.set_xlabel("tokens")
    axes.set_ylabel(quantity)
    axes.set_title(title)
    axes.legend(fontsize="small", frameon=False)


def save_figure(record: Mapping[str, Any], path: Path) -> None:
    """Draw a record of `benchmarks.growth`.

    One row of axes shows time, and another one memory if the record has it.
    """
    from matplotlib.figure import Figure

    rows = [row for row in record["rows"] if row["status"] == "measured"]
    quantities = {"median_ms": "time, forward and backward (ms)"}
    if any(row["peak_gib"] is not None for row in rows):
        quantities["peak_gib"] = "peak memory (GiB)"
    operators = list(dict.fromkeys(row["operator"] for row in rows))
    size = (5 * len(operators), 3.6 * len(quantities))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(quantities), len(operators), squeeze=False)
    for line, (key, quantity) in zip(grid, quantities.items(), strict=True):
        for axes, operator in zip(line, operators, strict=True):
            series = _series(rows, operator, key)
            begin = min(points[0][1] for points in series.values())
            draw_growth(axes, series, title=TITLES[operator], quantity=quantity, slope_from=begin)
    figure.suptitle(f"{record['device']}, torch {record['versions']['torch']}", fontsize="small")
    figure.savefig(path, dpi=150)


def _series(rows: Sequence[Mapping[str, Any]], operator: str, key: str) -> dict[str, list[tuple[int, float]]]:
    series: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        if row["operator"] == operator:
            series.setdefault(row["backend"], []).append((row["tokens"], row[key]))
    return series
