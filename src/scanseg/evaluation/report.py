"""From scores of cases to a report with its summary."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scanseg.evaluation.scores import TOLERANCE_MM, LabelScores
from scanseg.specs import (
    CaseReport,
    EmptyRuleName,
    LabelReport,
    LabelSummary,
    Means,
    Report,
    ReportSummary,
    Statistics,
)


@dataclass(frozen=True)
class CaseScores:
    """Scores of every label of one case."""

    case: str
    labels: Mapping[str, LabelScores]


def make_report(
    cases: Sequence[CaseScores],
    *,
    labels: Mapping[str, tuple[int, ...]],
    ignore_label: int | None,
    predictions: str,
    references: str,
    labels_from: str,
    tolerances_mm: Mapping[str, float] | None = None,
    rule: EmptyRuleName = "skip",
) -> Report:
    """Make the report of some cases.

    Args:
        cases: Scores of each case, all of them with the labels given.
        labels: Name of each label, or region, to the values that make it up.
        ignore_label: Value that was not scored, if there is one.
        predictions: Where the predictions come from.
        references: Where the references come from.
        labels_from: Where the names of the labels come from.
        tolerances_mm: Tolerance of each label's NSD with which the cases were scored; None: 2 mm for all.
        rule: Rule for empty masks with which the cases were scored.
    """
    return Report(
        predictions=predictions,
        references=references,
        labels=dict(labels),
        labels_from=labels_from,
        ignore_label=ignore_label,
        empty_rule=rule,
        tolerances_mm=dict(tolerances_mm or dict.fromkeys(labels, TOLERANCE_MM)),
        cases=tuple(
            CaseReport(case=case.case, labels={name: _label_report(case.labels[name]) for name in labels})
            for case in cases
        ),
        summary=summarise(cases, labels=tuple(labels)),
    )


def summarise(cases: Sequence[CaseScores], *, labels: Sequence[str]) -> ReportSummary:
    """Return the means over cases and labels; scores that are not counted or infinite are left out.

    Args:
        cases: Scores of each case.
        labels: Names of the labels.
    """
    summaries = {name: _summarise_label([case.labels[name] for case in cases]) for name in labels}
    return ReportSummary(
        num_cases=len(cases),
        labels=summaries,
        mean_over_labels=Means(
            dice=_mean([label.dice.mean for label in summaries.values()]),
            hd95_mm=_mean([label.hd95_mm.mean for label in summaries.values()]),
            nsd=_mean([label.nsd.mean for label in summaries.values()]),
        ),
        mean_over_cases=Means(
            dice=_mean_of_cases(cases, labels, lambda scores: scores.dice),
            hd95_mm=_mean_of_cases(cases, labels, lambda scores: scores.hd95_mm),
            nsd=_mean_of_cases(cases, labels, lambda scores: scores.nsd),
        ),
    )


def _label_report(scores: LabelScores) -> LabelReport:
    infinite = scores.hd95_mm == math.inf
    return LabelReport(
        dice=scores.dice,
        hd95_mm=None if infinite else scores.hd95_mm,
        hd95_infinite=infinite,
        nsd=scores.nsd,
        volume_ml=scores.volume_ml,
        reference_volume_ml=scores.reference_volume_ml,
    )


def _summarise_label(scores: Sequence[LabelScores]) -> LabelSummary:
    return LabelSummary(
        dice=_statistics([score.dice for score in scores]),
        hd95_mm=_statistics([score.hd95_mm for score in scores]),
        hd95_infinite=sum(score.hd95_mm == math.inf for score in scores),
        nsd=_statistics([score.nsd for score in scores]),
        volume_ml=_statistics([score.volume_ml for score in scores]),
        reference_volume_ml=_statistics([score.reference_volume_ml for score in scores]),
    )


def _statistics(values: Sequence[float | None]) -> Statistics:
    counted = _counted(values)
    return Statistics(
        mean=_mean(values),
        std=float(np.std(counted, ddof=1)) if len(counted) > 1 else None,
        count=len(counted),
    )


def _mean_of_cases(
    cases: Sequence[CaseScores], labels: Sequence[str], score: Callable[[LabelScores], float | None]
) -> float | None:
    """Return the mean over cases of the mean over the labels counted in each."""
    return _mean([_mean([score(case.labels[name]) for name in labels]) for case in cases])


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values that are counted; None where there is none."""
    counted = _counted(values)
    return float(np.mean(counted)) if counted else None


def _counted(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None and math.isfinite(value)]
