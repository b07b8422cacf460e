"""Sections about voxels: reliability, uncertainty, confusion, unusual predictions."""

from collections.abc import Mapping, Sequence
from functools import partial, reduce
from operator import add

import numpy as np

from scanseg.figures import (
    draw_confusion,
    draw_dice_over_entropy,
    draw_error_over_entropy,
    draw_reliability,
)
from scanseg.messages import counted
from scanseg.reports.cases import Evidence
from scanseg.reports.charts import make_chart
from scanseg.reports.evidence import MARGIN_VOXELS, NUM_ENTROPY_BINS, EntropyCounts, Reliability
from scanseg.reports.outliers import LEAST_CASES, Outlier
from scanseg.reports.page import Cell, Chart, Section, Table
from scanseg.reports.score_sections import mean_dice
from scanseg.specs import DatasetSpec, Report

_BOX = f"in the boxes around labels with a margin of {MARGIN_VOXELS} voxels"


def reliability_section(curves: Mapping[str, Reliability]) -> Section:
    """Return the section with the reliability diagram.

    Args:
        curves: Counts by the name of the curve. Curves without voxels are left out.
    """
    found = {name: counts for name, counts in curves.items() if counts.counts.sum()}
    if not found:
        return Section("Reliability")
    facts = tuple(
        (f"Expected calibration error, {name}", f"{counts.error:.4f}") for name, counts in found.items()
    )
    chart = make_chart(
        partial(draw_reliability, curves={name: counts.curve() for name, counts in found.items()}),
        alternative="Reliability diagram",
        caption="Below the dashed line, the model is more confident than correct.",
        size=(4.6, 4.4),
    )
    text = (
        f"Confidence is the probability of the decision of a voxel. Counted are voxels {_BOX}. The expected "
        f"calibration error is the mean distance of confidence and correctness in bins of the confidence (Guo et al. "
        f"2017)."
    )
    return Section("Reliability", (text,), facts, charts=(chart,))


def uncertainty_section(evidence: Sequence[Evidence], report: Report | None) -> Section:
    """Return the section about errors over uncertainty.

    Args:
        evidence: Counts of the cases.
        report: Scores of the cases. `None`: no references.
    """
    counts = reduce(add, [each.entropy for each in evidence if each.entropy is not None], EntropyCounts())
    charts: list[Chart] = []
    if counts.counts.sum():
        charts.append(entropy_chart(counts))
    dice = {} if report is None else {case.case: mean_dice(case) for case in report.cases}
    points = {
        each.case: (each.mean_entropy, value)
        for each in evidence
        if each.mean_entropy is not None and (value := dice.get(each.case)) is not None
    }
    if len(points) > 2:
        charts.append(
            make_chart(
                partial(draw_dice_over_entropy, points=points),
                alternative="Mean Dice over mean entropy of each case",
                caption="Cases of high entropy deserve a look first. The three worst cases are named.",
                num_elements=len(points),
            )
        )
    if not charts:
        return Section("Uncertainty and errors")
    text = f"The entropy of the probabilities is 0 for certain and 1 for undecided voxels. Counted are voxels {_BOX}."
    return Section("Uncertainty and errors", (text,), charts=tuple(charts))


def entropy_chart(counts: EntropyCounts) -> Chart:
    """Return the figure of errors over entropy.

    Args:
        counts: Voxels and errors in bins of the entropy.
    """
    draw = partial(
        draw_error_over_entropy,
        edges=np.linspace(0, 1, NUM_ENTROPY_BINS + 1),
        errors=counts.errors(),
        shares=(counts.counts / counts.counts.sum()).tolist(),
    )
    return make_chart(draw, alternative="Share of wrong voxels over entropy", caption="Errors over entropy")


def confusion_section(confusion: np.ndarray | None, dataset: DatasetSpec) -> Section:
    """Return the section with the confusion between labels.

    Args:
        confusion: Voxels by reference and predicted value, with the background. `None`: not counted.
        dataset: The labels.
    """
    if confusion is None or not confusion.sum():
        return Section("Confusion")
    names = ("background", *_names_of_values(dataset))
    totals = confusion.sum(axis=1, keepdims=True)
    shares = confusion / np.where(totals > 0, totals, np.nan)
    side = 2.6 + 0.38 * len(names)
    chart = make_chart(
        partial(draw_confusion, shares=shares, names=names),
        alternative="Confusion between labels",
        caption="Numbers are percent of the voxels of the reference label.",
        size=(side + 1.2, side),
    )
    mixed = [
        (float(shares[row, column]), int(confusion[row, column]), names[row], names[column])
        for row, column in np.ndindex(shares.shape)
        if row != column and row and confusion[row, column]
    ]
    rows = [
        (Cell(reference), Cell(predicted), Cell(f"{100 * share:.2f} %"), Cell(str(count)))
        for share, count, reference, predicted in sorted(mixed, reverse=True)[:10]
    ]
    table = Table(("reference", "predicted as", "share", "voxels"), rows, "Most frequent confusions")
    return Section("Confusion", tables=(table,) if rows else (), charts=(chart,))


def outlier_section(outliers: Sequence[Outlier], num_cases: int, warnings: Mapping[str, str]) -> Section:
    """Return the section about unusual predictions.

    Args:
        outliers: Unusual properties.
        num_cases: Number of compared cases.
        warnings: Warnings about images by case.
    """
    title = "Unusual predictions"
    rows = [(Cell(each.case), Cell(each.label), Cell(each.reason)) for each in outliers]
    rows += [(Cell(case), Cell("-"), Cell(text)) for case, text in warnings.items()]
    compared = (
        f"Volume, number of components and position of each label are compared over {counted(num_cases, 'case')}. "
        f"Listed are values with a modified z-score above 3.5, and volumes unlike the training data."
        if num_cases >= LEAST_CASES
        else f"Cases are compared with each other from {LEAST_CASES} cases on. This folder has {num_cases}."
    )
    if not rows:
        return Section(title, (compared, "No case is unusual.") if num_cases >= LEAST_CASES else (compared,))
    return Section(title, (compared,), tables=(Table(("case", "label", "reason"), rows),))


def _names_of_values(dataset: DatasetSpec) -> list[str]:
    """Return the name of each label value, in ascending order."""
    names = {values[0]: name for name, values in dataset.foreground.items() if len(values) == 1}
    if dataset.regions_class_order is not None:
        names |= dict(zip(dataset.regions_class_order, dataset.foreground, strict=True))
    return [names.get(value, f"label {value}") for value in dataset.label_values]
