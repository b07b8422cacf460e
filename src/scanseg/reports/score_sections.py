"""Sections of scores: tables, distributions, volumes."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from scanseg.evaluation import METRIC_RULES
from scanseg.figures import draw_bland_altman, draw_distribution, draw_volumes
from scanseg.messages import counted
from scanseg.reports.agreement import measure_agreement, volumes_of
from scanseg.reports.charts import make_chart
from scanseg.reports.page import Cell, Chart, Section, Table
from scanseg.specs import CaseReport, LabelReport, Report, Statistics

_MOST_BLAND_ALTMAN = 12
"""Labels with a figure of their own."""


def mean_dice(case: CaseReport) -> float | None:
    """Return the mean Dice over the labels of a case.

    `None`: no label is counted.

    Args:
        case: Scores of the case.
    """
    dice = [label.dice for label in case.labels.values() if label.dice is not None]
    return float(np.mean(dice)) if dice else None


def score_sections(report: Report, colours: Mapping[str, str]) -> list[Section]:
    """Return the sections of a report of scores.

    Args:
        report: The scores.
        colours: Colour of each label.
    """
    return [_tables(report), _distributions(report, colours), _volumes(report, colours)]


def score_headline(report: Report) -> tuple[tuple[str, str], ...]:
    """Return the main numbers of a report of scores.

    Args:
        report: The scores.
    """
    means = report.summary.mean_over_labels
    numbers = [
        (format_number(means.dice), "mean Dice over labels"),
        (format_number(means.nsd), "mean surface Dice"),
        (format_number(means.hd95, digits=2), f"mean HD95 ({report.distance_unit})"),
        (str(report.summary.num_cases), "scored cases"),
    ]
    return tuple((value, name) for value, name in numbers if value != "-")


def format_number(value: float | None, *, digits: int = 4) -> str:
    """Format a number, and `None` as a dash.

    Args:
        value: The number.
        digits: Digits after the point.
    """
    return "-" if value is None or not np.isfinite(value) else f"{value:.{digits}f}"


def _tables(report: Report) -> Section:
    """Return the section with the tables of scores."""
    unit = report.distance_unit
    head = ("label", "Dice", f"HD95 ({unit})", f"ASD ({unit})", "surface Dice", "cases")
    rows = [
        (
            Cell(name),
            Cell(_with_deviation(label.dice, 4), label.dice.mean),
            Cell(
                _with_deviation(label.hd95, 2)
                + (f", {label.hd95_infinite} infinite" if label.hd95_infinite else "")
            ),
            Cell(_with_deviation(label.asd, 2)),
            Cell(_with_deviation(label.nsd, 4)),
            Cell(str(label.dice.count)),
        )
        for name, label in report.summary.labels.items()
    ]
    rule = METRIC_RULES[report.rule].description
    return Section(
        "Scores",
        texts=(f"Mean and standard deviation over cases. Rule for empty labels: {rule}",),
        tables=(Table(head, rows), *_case_tables(report)),
    )


def _case_tables(report: Report) -> list[Table]:
    """Return the tables of Dice and HD95 of all cases."""
    ordered = sorted(report.cases, key=lambda case: (mean := mean_dice(case)) is None or mean)
    names = tuple(report.labels)
    dice = [
        (
            Cell(case.case),
            *(Cell(format_number(case.labels[name].dice), case.labels[name].dice) for name in names),
            Cell(format_number(mean_dice(case))),
        )
        for case in ordered
    ]
    distances = [
        (Cell(case.case), *(Cell(_distance(case.labels[name])) for name in names)) for case in ordered
    ]
    tables = [
        Table(("case", *names, "mean"), dice, "Dice of each case, worst first", is_folded=len(dice) > 30)
    ]
    if any(row.text != "-" for cells in distances for row in cells[1:]):
        caption = f"HD95 of each case in {report.distance_unit}"
        tables.append(Table(("case", *names), distances, caption, is_folded=True))
    return tables


def _distance(label: LabelReport) -> str:
    return "infinite" if label.hd95_infinite else format_number(label.hd95, digits=2)


def _with_deviation(statistics: Statistics, digits: int) -> str:
    if statistics.mean is None:
        return "-"
    deviation = "" if statistics.std is None else f" ± {statistics.std:.{digits}f}"
    return f"{statistics.mean:.{digits}f}{deviation}"


def _distributions(report: Report, colours: Mapping[str, str]) -> Section:
    """Return the section with the scores of all cases as figures."""
    charts = []
    choices: tuple[
        tuple[str, str, Callable[[LabelReport], float | None], tuple[float, float] | None], ...
    ] = (
        ("Dice", "Dice", lambda label: label.dice, (0.0, 1.0)),
        ("HD95", f"HD95 ({report.distance_unit})", lambda label: label.hd95, None),
    )
    for name, quantity, value_of, limits in choices:
        values = {
            label: [value for case in report.cases if (value := value_of(case.labels[label])) is not None]
            for label in report.labels
        }
        total = sum(map(len, values.values()))
        if not total:
            continue
        charts.append(
            make_chart(
                partial(draw_distribution, values=values, colours=colours, quantity=quantity, limits=limits),
                alternative=f"{name} of each case by label",
                size=(5.6, 1.3 + 0.36 * len(values)),
                num_elements=total,
            )
        )
    text = "One point per case. Boxes show the quartiles, whiskers the last point within 1.5 interquartile ranges."
    return Section("Distributions", texts=(text,) if charts else (), charts=tuple(charts))


def _volumes(report: Report, colours: Mapping[str, str]) -> Section:
    """Return the section about predicted and reference volumes."""
    volumes = volumes_of(report)
    if not volumes:
        return Section("Volumes")
    total = sum(map(len, volumes.values()))
    charts: list[Chart] = [
        make_chart(
            partial(draw_volumes, volumes=volumes, colours=colours, unit="ml"),
            alternative="Predicted over reference volumes",
            caption="Predicted against reference volume. The dashed line is equality.",
            size=(4.8, 4.4),
            num_elements=total,
        )
    ]
    rows = []
    for name, pairs in volumes.items():
        agreement = measure_agreement(pairs)
        limits = "-" if agreement.limits is None else " to ".join(f"{each:.4g}" for each in agreement.limits)
        mean = float(pairs[:, 0].mean())
        relative = f"{100 * agreement.bias / mean:+.1f} %" if mean else "-"
        cells = (name, f"{mean:.4g}", f"{agreement.bias:+.4g}", relative, limits, str(agreement.num_cases))
        rows.append(tuple(map(Cell, cells)))
        if len(charts) <= _MOST_BLAND_ALTMAN and len(pairs) > 1:
            draw = partial(
                draw_bland_altman,
                pairs=pairs,
                bias=agreement.bias,
                limits=agreement.limits,
                title=name,
                unit="ml",
                colour=colours[name],
            )
            charts.append(make_chart(draw, alternative=f"Bland-Altman plot of {name}", size=(4.4, 3.2)))
    head = ("label", "mean reference (ml)", "bias (ml)", "bias", "limits of agreement (ml)", "cases")
    left_out = len(volumes) - _MOST_BLAND_ALTMAN
    texts = [
        "Bias is the mean of predicted minus reference volume. The limits of agreement are the bias minus and plus "
        "1.96 standard deviations (Bland and Altman 1986).",
        *([f"Figures of {counted(left_out, 'label')} are left out."] if left_out > 0 else []),
    ]
    return Section("Volumes", tuple(texts), tables=(Table(head, rows),), charts=tuple(charts))


def pick_cases(report: Report) -> list[tuple[str, CaseReport]]:
    """Return best, median and worst case with their ranks.

    Cases are ordered by mean Dice.

    Args:
        report: The scores.
    """
    scored = [(value, case) for case in report.cases if (value := mean_dice(case)) is not None]
    scored.sort(key=lambda pair: pair[0])
    ordered: Sequence[CaseReport] = [case for _, case in scored] or list(report.cases)
    if not ordered:
        return []
    if len(ordered) == 1:
        return [("Case", ordered[0])]
    picks = [("Best", ordered[-1]), ("Median", ordered[len(ordered) // 2]), ("Worst", ordered[0])]
    return picks if len(ordered) > 2 else [picks[0], picks[2]]
