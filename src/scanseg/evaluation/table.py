"""Reports as rows of text."""

from scanseg.specs import InstanceReport, LabelSummary, Means, Report, Statistics

_ABSENT = "-"


def summary_rows(report: Report) -> list[tuple[str, ...]]:
    """Return the summary of a report as a table.

    Scores are `mean ± standard deviation` over the counted cases. `cases` is their number for Dice. Volumes are left
    out if the images have no spacing.

    Args:
        report: Report of `evaluate`.

    Returns:
        The heading row, a row for each label, and the two rows of means.
    """
    summary = report.summary
    unit = report.distance_unit
    volumes = () if unit == "pixels" else ("volume (ml)", "reference (ml)")
    head = ("label", "Dice", f"HD95 ({unit})", "infinite HD95", f"ASD ({unit})", "NSD", *volumes, "cases")
    num_volumes = len(volumes)
    rows = [_label_row(name, label, num_volumes=num_volumes) for name, label in summary.labels.items()]
    means = (("mean over labels", summary.mean_over_labels), ("mean over cases", summary.mean_over_cases))
    rows += [
        _mean_row(name, mean, num_cases=summary.num_cases, num_volumes=num_volumes) for name, mean in means
    ]
    return [head, *rows]


def case_rows(report: Report) -> list[tuple[str, ...]]:
    """Return the scores of every case and label as a table.

    Numbers have full precision. Scores that are not counted are empty, and infinite distances are `inf`.

    Args:
        report: Report of `evaluate`.

    Returns:
        The heading row, and a row for each case and label.
    """
    unit = report.distance_unit
    head = ("case", "label", "dice", f"hd95_{unit}", f"asd_{unit}", "nsd", "volume_ml", "reference_volume_ml")
    rows = [
        (
            case.case,
            name,
            _full(label.dice),
            "inf" if label.hd95_infinite else _full(label.hd95),
            "inf" if label.hd95_infinite else _full(label.asd),
            *map(_full, (label.nsd, label.volume_ml, label.reference_volume_ml)),
        )
        for case in report.cases
        for name, label in case.labels.items()
    ]
    return [head, *rows]


def instance_case_rows(report: InstanceReport) -> list[tuple[str, ...]]:
    """Return the instances of every image as a table.

    Args:
        report: Report of `evaluate_instances`.

    Returns:
        The heading row, and a row for each image.
    """
    head = ("case", "found", "false", "missed", "f1", "precision", "recall", "mean_iou", "panoptic_quality")
    rows = [
        (
            case.case,
            *map(str, (case.true_positives, case.false_positives, case.false_negatives)),
            *map(_full, (case.f1, case.precision, case.recall, case.mean_iou, case.panoptic_quality)),
        )
        for case in report.cases
    ]
    return [head, *rows]


def _full(value: float | None) -> str:
    return "" if value is None else repr(value)


def _label_row(name: str, label: LabelSummary, *, num_volumes: int) -> tuple[str, ...]:
    volumes = (label.volume_ml, label.reference_volume_ml)[:num_volumes]
    return (
        name,
        _with_spread(label.dice, digits=4),
        _with_spread(label.hd95, digits=2),
        str(label.hd95_infinite),
        _with_spread(label.asd, digits=2),
        _with_spread(label.nsd, digits=4),
        *(_with_spread(volume, digits=2) for volume in volumes),
        str(label.dice.count),
    )


def _mean_row(name: str, means: Means, *, num_cases: int, num_volumes: int) -> tuple[str, ...]:
    scores = (
        _number(means.dice, digits=4),
        _number(means.hd95, digits=2),
        "",
        _number(means.asd, digits=2),
        _number(means.nsd, digits=4),
    )
    return (name, *scores, *("",) * num_volumes, str(num_cases))


def _with_spread(statistics: Statistics, *, digits: int) -> str:
    mean = _number(statistics.mean, digits=digits)
    return mean if statistics.std is None else f"{mean} ± {_number(statistics.std, digits=digits)}"


def _number(value: float | None, *, digits: int) -> str:
    return _ABSENT if value is None else f"{value:.{digits}f}"
