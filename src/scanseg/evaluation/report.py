"""Reports with a summary, from the scores of cases."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scanseg.evaluation.scores import LabelScores
from scanseg.evaluation.tolerances import TOLERANCE_MM
from scanseg.imaging import DECODERS, MEDICAL_DECODERS
from scanseg.specs import (
    CaseReport,
    LabelReport,
    LabelSummary,
    Means,
    Report,
    ReportSummary,
    ReportUnit,
    RuleName,
    Statistics,
)


@dataclass(frozen=True)
class CaseScores:
    """Scores of every label of one case."""

    case: str
    labels: Mapping[str, LabelScores]


def find_unit(file_ending: str, spacings: Iterable[Sequence[float]]) -> ReportUnit:
    """Return the unit of distances in the images of a data set.

    Args:
        file_ending: Ending of the images, with its dot.
        spacings: Spacing of each image, 1 where its file holds none.

    Returns:
        `pixels` for raster files without a spacing, else `mm`.
    """
    is_medical = DECODERS.get(file_ending.lower()) in (*MEDICAL_DECODERS, None)
    return "mm" if is_medical or any(size != 1 for spacing in spacings for size in spacing) else "pixels"


def make_report(
    cases: Sequence[CaseScores],
    *,
    labels: Mapping[str, tuple[int, ...]],
    ignore_label: int | None,
    predictions: str,
    references: str,
    labels_from: str,
    tolerances_mm: Mapping[str, float] | None = None,
    rule: RuleName = "skip",
    distance_unit: ReportUnit = "mm",
    unpredicted: Sequence[str] = (),
    warnings: Sequence[str] = (),
) -> Report:
    """Make a report from the scores of cases.

    Args:
        cases: Scores of each case, with all labels in `labels`.
        labels: Values of each label or region, by name.
        ignore_label: Value that was not scored. `None`: no such value.
        predictions: Source of the predictions, such as a folder.
        references: Source of the references, such as a folder.
        labels_from: Source of the names of the labels.
        tolerances_mm: Tolerances in mm of the NSD, by label. `None`: 2 mm for all.
        rule: Metric rule of the scores.
        distance_unit: Unit of HD95 and ASD.
        unpredicted: Names of the references left out because they have no prediction.
        warnings: Unusual properties of the input, such as files that are left out.
    """
    return Report(
        predictions=predictions,
        references=references,
        labels=dict(labels),
        labels_from=labels_from,
        ignore_label=ignore_label,
        rule=rule,
        distance_unit=distance_unit,
        tolerances_mm=dict(tolerances_mm or dict.fromkeys(labels, TOLERANCE_MM)),
        unpredicted=tuple(unpredicted),
        cases=tuple(
            CaseReport(case=case.case, labels={name: _label_report(case.labels[name]) for name in labels})
            for case in cases
        ),
        summary=summarise(cases, labels=tuple(labels)),
        warnings=tuple(warnings),
    )


def summarise(cases: Sequence[CaseScores], *, labels: Sequence[str]) -> ReportSummary:
    """Return the means over cases and labels.

    Scores that are not counted (`None`) or infinite are left out.

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
            hd95=_mean([label.hd95.mean for label in summaries.values()]),
            asd=_mean([label.asd.mean for label in summaries.values()]),
            nsd=_mean([label.nsd.mean for label in summaries.values()]),
        ),
        mean_over_cases=Means(
            dice=_mean_of_cases(cases, labels, lambda scores: scores.dice),
            hd95=_mean_of_cases(cases, labels, lambda scores: scores.hd95),
            asd=_mean_of_cases(cases, labels, lambda scores: scores.asd),
            nsd=_mean_of_cases(cases, labels, lambda scores: scores.nsd),
        ),
    )


def _label_report(scores: LabelScores) -> LabelReport:
    infinite = scores.hd95 == math.inf
    return LabelReport(
        dice=scores.dice,
        hd95=None if infinite else scores.hd95,
        asd=None if scores.asd == math.inf else scores.asd,
        hd95_infinite=infinite,
        nsd=scores.nsd,
        volume_ml=scores.volume_ml,
        reference_volume_ml=scores.reference_volume_ml,
    )


def _summarise_label(scores: Sequence[LabelScores]) -> LabelSummary:
    return LabelSummary(
        dice=_statistics([score.dice for score in scores]),
        hd95=_statistics([score.hd95 for score in scores]),
        hd95_infinite=sum(score.hd95 == math.inf for score in scores),
        asd=_statistics([score.asd for score in scores]),
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
    """Return the mean over cases of the mean over their counted labels."""
    return _mean([_mean([score(case.labels[name]) for name in labels]) for case in cases])


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of the finite values. `None` without any."""
    counted = _counted(values)
    return float(np.mean(counted)) if counted else None


def _counted(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None and math.isfinite(value)]
