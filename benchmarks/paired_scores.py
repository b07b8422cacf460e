"""Compare two reports of the same cases, case by case.

Usage: python -m benchmarks.paired_scores REPORT.json BASELINE.json

Both files are reports of `scanseg evaluate` or of a training: Dice (the mean over the labels of a case), or F1 and
panoptic quality if they are about instances. The p-value is that of `scanseg compare`: Wilcoxon's signed-rank test,
two-sided. It is not corrected for the number of scores. It covers the spread over cases, not that over trainings.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from scanseg.documents import parse_document, read_document
from scanseg.errors import InputError
from scanseg.experiments.statistics import compare
from scanseg.specs import InstanceReport, Report
from scanseg.tables import as_markdown

HEADER = ("score", "first", "baseline", "difference", "better", "worse", "cases", "p")


def compare_reports(first: Path, baseline: Path) -> list[tuple[str, ...]]:
    """Return a row for each score of two reports, below the head.

    Args:
        first: The report.
        baseline: The report with which it is compared.

    Raises:
        InputError: A report is missing or faulty, or their kinds, cases or settings differ.
    """
    scores, settings = _scores_of(first)
    others, other_settings = _scores_of(baseline)
    if settings != other_settings:
        raise InputError(
            f"{first}: settings {settings}, but {other_settings} in {baseline}. Name equal reports."
        )
    return [HEADER, *(_row(name, cases, others[name], (first, baseline)) for name, cases in scores.items())]


def _row(
    name: str, cases: dict[str, float], others: dict[str, float], paths: tuple[Path, Path]
) -> tuple[str, ...]:
    """Return the row of one score."""
    if cases.keys() != others.keys() or not cases:
        differing = ", ".join(sorted(cases.keys() ^ others.keys())[:5]) or "none is scored"
        raise InputError(
            f"{paths[0]} and {paths[1]} score other cases ({differing}). Name reports of the same."
        )
    means = mean(cases.values()), mean(others.values())
    result = compare(str(paths[0]), str(paths[1]), cases=(cases, others), by_seed=([means[0]], [means[1]]))
    worse = sum(cases[case] < others[case] for case in cases)
    p_value = "-" if result.p_value is None else f"{result.p_value:.3f}"
    return (
        name,
        f"{means[0]:.4f}",
        f"{means[1]:.4f}",
        f"{means[0] - means[1]:+.4f}",
        str(result.num_better),
        str(worse),
        str(result.num_cases),
        p_value,
    )


def _scores_of(path: Path) -> tuple[dict[str, dict[str, float]], str]:
    """Return scores by name and case, and the settings under which they may be compared."""
    if "instances" not in parse_document(read_document(path), path):
        report = Report.read(path)
        dice = {
            case.case: [label.dice for label in case.labels.values() if label.dice is not None]
            for case in report.cases
        }
        return {"Dice": {case: mean(values) for case, values in dice.items() if values}}, report.rule
    found = InstanceReport.read(path)
    scores = {
        "F1": {case.case: case.f1 for case in found.cases if case.f1 is not None},
        "panoptic quality": {
            case.case: case.panoptic_quality for case in found.cases if case.panoptic_quality is not None
        },
    }
    return scores, f"{found.instances}, IoU {found.iou:g}, border {found.border}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the comparison. Return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("report", type=Path)
    parser.add_argument("baseline", type=Path)
    options = parser.parse_args(arguments)
    try:
        rows = compare_reports(options.report, options.baseline)
    except InputError as error:
        print(error, file=sys.stderr)
        return 1
    print(as_markdown(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
