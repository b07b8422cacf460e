"""Scores of folders of instance maps, and instance maps from label maps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean, median, stdev
from typing import get_args

import numpy as np

from scanseg.errors import InputError, UsageError, refuse_faults
from scanseg.evaluation.instances import (
    BORDER,
    BOUNDARY,
    GROW,
    INTERIOR,
    IOU,
    NECK,
    find_instances,
    score_instances,
)
from scanseg.evaluation.instances import InstanceScores as Scores
from scanseg.evaluation.pairs import Pair, find_pairs, is_instance_map
from scanseg.imaging import (
    Image,
    compare_geometry,
    read_instance_map,
    read_label_map,
)
from scanseg.runtime import RunContext, map_cases
from scanseg.specs import InstanceCase, InstanceReport, InstanceSource, InstanceSummary, Statistics

INSTANCE_FOLDERS = {"labelsTr": "instancesTr", "labelsTs": "instancesTs"}
"""Folder of instance maps for each folder of label maps in a converted data set."""

_NUMBERS_HINT = "If each instance has its own number, choose --instances numbers."
_HIGHEST_LABEL = max(INTERIOR, BOUNDARY)


@dataclass(frozen=True)
class _Scored:
    """Scores of one image, or the faults of its files."""

    name: str
    scores: tuple[Scores, ...]
    """Scores at each overlap. Empty: the files have faults."""
    faults: tuple[str, ...]
    predicted: int = 0
    """Highest value in the predicted map."""
    referred: int = 0
    """Highest number in the reference."""


def evaluate_instances(
    predictions: Path,
    references: Path,
    *,
    instances: InstanceSource = "numbers",
    iou: float = IOU,
    border: int = BORDER,
    cases: Sequence[str] | None = None,
    only_predicted: bool = False,
    context: RunContext,
) -> InstanceReport:
    """Score predicted instances against instance maps.

    Args:
        predictions: Folder of predicted maps, or one file.
        references: Folder of instance maps of the same names, or one file. Each instance has its own number.
        instances: Encoding of the predicted instances. `numbers`: each instance has its own number. `components`:
            the connected components of label 1, as published. `grown`: these components with the adjacent voxels of
            label 2. `separated`: interiors are split at narrow necks, then grown by up to 2 voxels of label 2.
        iou: Smallest intersection over union of a matched pair.
        border: Width in pixels of a border at both ends of y and x. Instances that reach into it are left out of
            predictions and references.
        cases: Names of the cases to score. `None`: all cases, and each must be in both folders.
        only_predicted: Leave out references without a prediction. The report lists them.
        context: Worker processes and progress.

    Raises:
        InputError: Files are missing, surplus, unreadable or on another grid. One message lists all faults.
        UsageError: One path is a folder and the other a file, the references are label maps of interior and boundary,
            or the arguments contradict each other.
    """
    (report,) = evaluate_instances_by_iou(
        predictions,
        references,
        ious=(iou,),
        instances=instances,
        border=border,
        cases=cases,
        only_predicted=only_predicted,
        context=context,
    )
    return report


def evaluate_instances_by_iou(
    predictions: Path,
    references: Path,
    *,
    ious: Sequence[float],
    instances: InstanceSource,
    border: int = BORDER,
    cases: Sequence[str] | None = None,
    only_predicted: bool = False,
    context: RunContext,
) -> tuple[InstanceReport, ...]:
    """Score predicted instances at several overlaps.

    Args:
        predictions: As for `evaluate_instances`.
        references: See there.
        ious: Smallest intersections over unions of a matched pair.
        instances: See there, like the other arguments.
        border: See there.
        cases: See there.
        only_predicted: See there.
        context: Worker processes and progress.

    Returns:
        A report for each overlap. Each file is read once.

    Raises:
        InputError: As for `evaluate_instances`.
        UsageError: See there.
    """
    if instances not in get_args(InstanceSource):
        raise UsageError(f"instances {instances!r} is unknown. Choose {', '.join(get_args(InstanceSource))}.")
    _refuse_label_maps(references)
    found = find_pairs(predictions, references, cases=cases, only_predicted=only_predicted)
    context.report_warnings(found.warnings)
    score = partial(_score_pair, instances=instances, ious=tuple(ious), border=border)
    scored = map_cases(score, found.pairs, context=context, task="scoring")
    refuse_faults(f"{predictions} and {references}", [fault for case in scored for fault in case.faults])
    doubts = _find_doubts(predictions, references, scored, instances=instances)
    context.report_warnings(doubts)
    return tuple(
        make_instance_report(
            {case.name: case.scores[number] for case in scored},
            predictions=str(predictions),
            references=str(references),
            instances=instances,
            iou=iou,
            border=border,
            unpredicted=found.unpredicted,
            warnings=(*found.warnings, *doubts),
        )
        for number, iou in enumerate(ious)
    )


def make_instance_report(
    scores: Mapping[str, Scores],
    *,
    predictions: str,
    references: str,
    instances: InstanceSource,
    iou: float = IOU,
    border: int = BORDER,
    unpredicted: Sequence[str] = (),
    warnings: Sequence[str] = (),
) -> InstanceReport:
    """Make a report from the scores of images.

    Args:
        scores: Counts of matched, missed and false instances, by the name of the image.
        predictions: Source of the predictions, such as a folder.
        references: Source of the references, such as a folder.
        instances: Encoding of the predicted instances.
        iou: Smallest intersection over union of a matched pair.
        border: Width in pixels of the border whose instances were left out.
        unpredicted: Names of the references left out because they have no prediction.
        warnings: Unusual properties of the input, such as files that are left out.
    """
    return InstanceReport(
        predictions=predictions,
        references=references,
        instances=instances,
        iou=iou,
        border=border,
        unpredicted=tuple(unpredicted),
        cases=tuple(_case_report(name, of_case) for name, of_case in scores.items()),
        summary=_summarise(list(scores.values())),
        warnings=tuple(warnings),
    )


def _find_doubts(
    predictions: Path, references: Path, scored: Sequence[_Scored], *, instances: InstanceSource
) -> tuple[str, ...]:
    """Return warnings about maps that seem to be of another kind."""
    predicted = max((case.predicted for case in scored), default=0)
    referred = max((case.referred for case in scored), default=0)
    doubts = []
    if instances == "numbers" and 0 < predicted <= _HIGHEST_LABEL < referred:
        doubts.append(
            f"{predictions}: no number above {predicted}. For label maps of interior and boundary, choose "
            "--instances grown or components."
        )
    if instances != "numbers" and predicted > _HIGHEST_LABEL:
        doubts.append(
            f"{predictions}: values up to {predicted}, of which {INTERIOR} (interior) and {BOUNDARY} (boundary) count. "
            f"{_NUMBERS_HINT}"
        )
    if 0 < referred <= _HIGHEST_LABEL < predicted:
        doubts.append(
            f"{references}: no number above {referred}. Each instance needs its own number: label maps of interior and "
            "boundary are no references."
        )
    return tuple(doubts)


def refuse_instance_maps(references: Path) -> None:
    """Refuse instance maps as references of label maps.

    Args:
        references: Folder of references, or one file.

    Raises:
        UsageError: The folder has the name of instance maps, and label maps are beside it.
    """
    folder = references if references.is_dir() else references.parent
    names = {instances: labels for labels, instances in INSTANCE_FOLDERS.items()}
    other = folder.with_name(names.get(folder.name, folder.name))
    if other != folder and other.is_dir():
        raise UsageError(
            f"{references}: expected label maps, got instance maps. To score instances, add --instances grown for "
            "predictions of interior and boundary, or --instances numbers for instance maps. To score label maps, use "
            f"{other}."
        )


def _refuse_label_maps(references: Path) -> None:
    """Refuse label maps as references if their data set has instance maps."""
    folder = references if references.is_dir() else references.parent
    other = folder.with_name(INSTANCE_FOLDERS.get(folder.name, folder.name))
    if other != folder and other.is_dir():
        raise UsageError(
            f"{references}: expected instance maps, got label maps of interior and boundary, which do not number the "
            f"instances. Use the instance maps in {other}."
        )


def _score_pair(pair: Pair, *, instances: InstanceSource, ious: Sequence[float], border: int) -> _Scored:
    """Read and score one image."""
    faults: list[str] = []
    images: list[Image] = []
    readers = (read_instance_map if instances == "numbers" else read_label_map, read_instance_map)
    for path, read in zip((pair.prediction, pair.reference), readers, strict=True):
        try:
            images.append(read(path))
        except InputError as error:
            is_map = read is read_label_map and is_instance_map(path)
            hint = f" {_NUMBERS_HINT}" if is_map else ""
            faults.append(f"case {pair.name}: {error}{hint}")
    if len(images) < 2:
        return _Scored(pair.name, (), tuple(faults))
    differences = compare_geometry(*images)
    if differences:
        fault = f"case {pair.name}: {pair.prediction} and {pair.reference} differ in {', '.join(differences)}"
        return _Scored(pair.name, (), (f"{fault}. Resample the prediction to the reference's grid.",))
    prediction, reference = (image.array[0] for image in images)
    highest = int(prediction.max(initial=0)), int(reference.max(initial=0))
    if instances != "numbers":
        prediction = instances_of(prediction, instances)
    scores = tuple(score_instances(prediction, reference, iou=iou, border=border) for iou in ious)
    return _Scored(pair.name, scores, (), *highest)


def instances_of(label_map: np.ndarray, source: InstanceSource) -> np.ndarray:
    """Return the instances in a label map of interior and boundary.

    Args:
        label_map: Label map (z, y, x) or (y, x).
        source: `components`, `grown` or `separated`.
    """
    if source == "separated":
        return find_instances(label_map, grow=GROW, neck=NECK)
    return find_instances(label_map, grow=1 if source == "grown" else 0)


def _case_report(name: str, scores: Scores) -> InstanceCase:
    return InstanceCase(
        case=name,
        true_positives=scores.true_positives,
        false_positives=scores.false_positives,
        false_negatives=scores.false_negatives,
        f1=scores.f1,
        precision=scores.precision,
        recall=scores.recall,
        mean_iou=scores.mean_iou,
        panoptic_quality=scores.panoptic_quality,
    )


def _summarise(cases: Sequence[Scores]) -> InstanceSummary:
    """Return means over images with instances, and the F1 of all instances."""
    scores = [case.f1 for case in cases if case.f1 is not None]
    pooled = sum(cases, Scores(0, 0, 0, 0.0))
    return InstanceSummary(
        num_cases=len(cases),
        f1=_statistics(scores),
        median_f1=median(scores) if scores else None,
        pooled_f1=pooled.f1,
        panoptic_quality=_statistics(
            [case.panoptic_quality for case in cases if case.panoptic_quality is not None]
        ),
    )


def _statistics(values: Sequence[float]) -> Statistics:
    return Statistics(
        mean=mean(values) if values else None,
        std=stdev(values) if len(values) > 1 else None,
        count=len(values),
    )


def instance_rows(report: InstanceReport) -> list[tuple[str, ...]]:
    """Return the summary of a report as a table of two rows.

    Args:
        report: Report of `evaluate_instances`.

    Returns:
        The heading row and the row of scores.
    """
    summary = report.summary
    counts = (
        sum(case.true_positives for case in report.cases),
        sum(case.false_positives for case in report.cases),
        sum(case.false_negatives for case in report.cases),
    )
    scores = (
        summary.f1.mean,
        summary.f1.std,
        summary.median_f1,
        summary.pooled_f1,
        summary.panoptic_quality.mean,
    )
    head = ("images", "mean F1", "std", "median F1", "pooled F1", "mean PQ", "found", "false", "missed")
    row = (
        str(summary.num_cases),
        *("-" if score is None else f"{score:.4f}" for score in scores),
        *map(str, counts),
    )
    return [head, row]
