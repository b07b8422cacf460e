"""Summary of a report as rows of text."""

from scanseg.specs import LabelSummary, Means, Report, Statistics

_ABSENT = "-"


def summary_rows(report: Report) -> list[tuple[str, ...]]:
    """Return the summary of a report as a table.

    Scores are `mean ± standard deviation` over the counted cases. `cases` is their number for Dice.

    Args:
        report: Report of `evaluate`.

    Returns:
        The heading row, a row for each label, and the two rows of means.
    """
    summary = report.summary
    unit = report.distance_unit
    volumes = ("volume (ml)", "reference (ml)")
    head = ("label", "Dice", f"HD95 ({unit})", "infinite HD95", f"ASD ({unit})", "NSD", *volumes, "cases")
    rows = [_label_row(name, label) for name, label in summary.labels.items()]
    means = (("mean over labels", summary.mean_over_labels), ("mean over cases", summary.mean_over_cases))
    return [head, *rows, *(_mean_row(name, mean, num_cases=summary.num_cases) for name, mean in means)]


def _label_row(name: str, label: LabelSummary) -> tuple[str, ...]:
    return (
        name,
        _with_spread(label.dice, digits=4),
        _with_spread(label.hd95, digits=2),
        str(label.hd95_infinite),
        _with_spread(label.asd, digits=2),
        _with_spread(label.nsd, digits=4),
        _with_spread(label.volume_ml, digits=2),
        _with_spread(label.reference_volume_ml, digits=2),
        str(label.dice.count),
    )


def _mean_row(name: str, means: Means, *, num_cases: int) -> tuple[str, ...]:
    scores = (
        _number(means.dice, digits=4),
        _number(means.hd95, digits=2),
        "",
        _number(means.asd, digits=2),
        _number(means.nsd, digits=4),
    )
    return (name, *scores, "", "", str(num_cases))


def _with_spread(statistics: Statistics, *, digits: int) -> str:
    mean = _number(statistics.mean, digits=digits)
    return mean if statistics.std is None else f"{mean} ± {_number(statistics.std, digits=digits)}"


def _number(value: float | None, *, digits: int) -> str:
    return _ABSENT if value is None else f"{value:.{digits}f}"
