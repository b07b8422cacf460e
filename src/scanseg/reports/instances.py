"""Reports of folders of predicted instances."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Integer

from scanseg.evaluation import InstanceScores, evaluate_instances_by_iou, find_labels, instances_of
from scanseg.figures import draw_score_over_iou
from scanseg.imaging import Image, read_instance_map, read_label_map
from scanseg.reports.cases import CaseFiles, find_predictions, read_shown
from scanseg.reports.charts import make_chart
from scanseg.reports.overlays import draw_case
from scanseg.reports.page import CasePictures, Cell, Chart, Page, Section, Table
from scanseg.reports.score_sections import format_number
from scanseg.runtime import RunContext, keep_workers
from scanseg.specs import InstanceCase, InstanceReport, InstanceSource

_IOUS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
"""Overlaps of the figure, as in the COCO challenge."""
_MOST_WORST = 4
"""Images with the lowest F1 whose pictures are shown."""
_MATCHED, _FALSE = 1, 2
_LABELS = {"matched": (_MATCHED,), "no match": (_FALSE,)}
_COLOURS = {_MATCHED: (0, 158, 115), _FALSE: (213, 94, 0)}
_LEGEND = tuple((name, "#{:02x}{:02x}{:02x}".format(*_COLOURS[value])) for name, (value,) in _LABELS.items())


@keep_workers()
def instance_page(
    folder: Path,
    *,
    references: Path,
    images: Path | None,
    instances: InstanceSource,
    iou: float,
    border: int,
    context: RunContext,
) -> Page:
    """Make the report of a folder of predicted instances.

    Args:
        folder: Folder of predicted maps.
        references: Folder of instance maps of the same names.
        images: Folder of the images. `None`: the files in the record of the prediction.
        instances: Definition of an instance in the predictions.
        iou: Smallest intersection over union of a matched pair.
        border: Width in pixels of the border whose instances are left out.
        context: Worker processes and progress.

    Raises:
        InputError: A file cannot be read, or no maps are found.
        UsageError: `instances` is unknown, or the references are label maps.
    """
    source = find_labels(folder, folder)
    found = find_predictions(folder, references=references, images=images, dataset=source.spec)
    context = context.for_images(sum(case.num_bytes for case in found.cases))
    ious = tuple(sorted({iou, *_IOUS}))
    reports = evaluate_instances_by_iou(
        folder,
        references,
        ious=ious,
        instances=instances,
        border=border,
        only_predicted=True,
        context=context,
    )
    report = reports[ious.index(iou)]
    files = {case.name: case for case in found.cases}
    pictures = [
        _draw(files[case.case], rank, case, instances=instances, iou=iou)
        for rank, case in _pick_cases(report.cases)
    ]
    without = sum(not case.images for case in found.cases)
    warnings = [f"The images of {without} of {len(files)} cases were not found."] if without else []
    return Page(
        f"Instances in {folder.name}",
        f"Instances in {folder}, references in {references}",
        _headline(report),
        (
            Section(
                "Scores",
                texts=(_describe(report),),
                tables=(_summary(ious, reports),),
                charts=_chart(ious, reports),
            ),
            Section("Cases", cases=tuple(pictures), legend=_LEGEND),
            Section("All images", tables=(_table(report.cases),)),
        ),
        (*report.warnings, *warnings),
    )


def _headline(report: InstanceReport) -> tuple[tuple[str, str], ...]:
    """Return the main numbers."""
    summary = report.summary
    numbers = (
        (format_number(summary.f1.mean), "mean F1 over images"),
        (format_number(summary.pooled_f1), "F1 of all instances"),
        (format_number(summary.panoptic_quality.mean), "mean panoptic quality"),
        (
            str(sum(case.true_positives + case.false_negatives for case in report.cases)),
            "reference instances",
        ),
        (str(summary.num_cases), "images"),
    )
    return tuple((value, name) for value, name in numbers if value != "-")


def _describe(report: InstanceReport) -> str:
    """Return the rule of the scores."""
    border = f" Instances that reach into {report.border} pixels at the ends of y and x are left out."
    return (
        f"Predicted and reference instances are matched one to one at an overlap (intersection over union) of at least "
        f"{report.iou:g}.{border if report.border else ''} Means are over images with instances."
    )


def _pooled(report: InstanceReport) -> InstanceScores:
    """Return the counts of all images."""
    return sum(
        (
            InstanceScores(
                case.true_positives,
                case.false_positives,
                case.false_negatives,
                case.true_positives * (case.mean_iou or 0.0),
            )
            for case in report.cases
        ),
        InstanceScores(0, 0, 0, 0.0),
    )


def _summary(ious: Sequence[float], reports: Sequence[InstanceReport]) -> Table:
    """Return the table of scores at each overlap."""
    rows = []
    for iou, report in zip(ious, reports, strict=True):
        pooled, summary = _pooled(report), report.summary
        scores = (summary.f1.mean, pooled.f1, pooled.precision, pooled.recall, summary.panoptic_quality.mean)
        counts = (pooled.true_positives, pooled.false_positives, pooled.false_negatives)
        cells = [Cell(format_number(score), score) for score in scores]
        rows.append((Cell(f"{iou:g}"), *cells, *(Cell(str(count)) for count in counts)))
    head = ("overlap", "mean F1", "pooled F1", "precision", "recall", "mean PQ", "matched", "false", "missed")
    return Table(head, rows, "Scores by the overlap that a match needs")


def _chart(ious: Sequence[float], reports: Sequence[InstanceReport]) -> tuple[Chart, ...]:
    """Return the figure of F1, if an image has instances."""
    if reports[0].summary.f1.mean is None:
        return ()
    scores = {
        "mean F1": [report.summary.f1.mean or 0.0 for report in reports],
        "pooled F1": [report.summary.pooled_f1 or 0.0 for report in reports],
    }
    draw = partial(draw_score_over_iou, ious=ious, scores=scores)
    return (make_chart(draw, alternative="F1 by the overlap that a match needs", size=(4.6, 3.2)),)


def _order(cases: Sequence[InstanceCase]) -> list[InstanceCase]:
    """Return the images with instances from the lowest F1."""
    return sorted(
        (case for case in cases if case.f1 is not None), key=lambda case: (case.f1 or 0.0, case.case)
    )


def _table(cases: Sequence[InstanceCase]) -> Table:
    """Return the table of all images, from the lowest F1."""
    ordered = [*_order(cases), *(case for case in cases if case.f1 is None)]
    rows = [
        (
            Cell(case.case),
            *(
                Cell(format_number(score), score)
                for score in (case.f1, case.precision, case.recall, case.panoptic_quality)
            ),
            Cell(format_number(case.mean_iou)),
            *(
                Cell(str(count))
                for count in (case.true_positives, case.false_positives, case.false_negatives)
            ),
        )
        for case in ordered
    ]
    head = ("image", "F1", "precision", "recall", "PQ", "mean overlap", "matched", "false", "missed")
    return Table(head, rows, "Images from the lowest F1", is_folded=len(rows) > 30)


def _pick_cases(cases: Sequence[InstanceCase]) -> list[tuple[str, InstanceCase]]:
    """Return the worst, median and best images with their ranks."""
    ordered = _order(cases)
    worst, rest = ordered[:_MOST_WORST], ordered[_MOST_WORST:]
    picks = [
        ("Worst" if number == 1 else f"Worst, number {number}", case) for number, case in enumerate(worst, 1)
    ]
    median = len(ordered) // 2
    if _MOST_WORST <= median < len(ordered) - 1:
        picks.append(("Median", ordered[median]))
    return [*picks, *(("Best", case) for case in rest[-1:])]


def _draw(
    files: CaseFiles, rank: str, case: InstanceCase, *, instances: InstanceSource, iou: float
) -> CasePictures:
    """Draw matched and false instances with the outlines of the reference."""
    assert files.reference is not None
    predicted, label_map = _read(files.label_map, instances)
    reference = read_instance_map(files.reference).array[0]
    matched = find_matched(predicted, reference, iou=iou)
    shown = np.where(predicted > 0, np.where(matched[predicted], _MATCHED, _FALSE), 0).astype(np.uint8)
    facts = (
        f"F1 {format_number(case.f1)}: {case.true_positives} matched, {case.false_positives} false, "
        f"{case.false_negatives} missed. Areas: prediction. White outlines: reference. Instances at the border are "
        "drawn, but not counted."
    )
    if not files.images:
        facts += " The image is missing, so only instances are shown."
    return draw_case(
        read_shown(files, label_map),
        shown * ~_edges(predicted),
        ((reference > 0) & ~_edges(reference)).astype(np.uint8),
        labels=_LABELS,
        colours=_COLOURS,
        title=f"{rank}: {files.name}",
        facts=facts,
    )


def _read(path: Path, instances: InstanceSource) -> tuple[Integer[np.ndarray, "*spatial"], Image]:
    """Read predicted instances.

    Returns:
        The instance map, and the file with values of uint8.
    """
    if instances == "numbers":
        image = read_instance_map(path)
        return image.array[0], image
    image = read_label_map(path)
    return instances_of(image.array[0], instances), image


def find_matched(
    predicted: Integer[np.ndarray, "*spatial"], reference: Integer[np.ndarray, "*spatial"], *, iou: float
) -> Bool[np.ndarray, " number"]:
    """Return whether each predicted instance overlaps a reference instance.

    Args:
        predicted: Predicted instance map.
        reference: Reference instance map.
        iou: Smallest intersection over union. At 0.5 and above, no instance has two partners.

    Returns:
        A value for each number from 0 to the highest.
    """
    numbers, places = np.unique(reference, return_inverse=True)
    places = places.reshape(reference.shape)
    sizes, sizes_of_reference = np.bincount(predicted.ravel()), np.bincount(places.ravel())
    both = (predicted > 0) & (reference > 0)
    pairs, common = np.unique(
        predicted[both].astype(np.int64) * len(numbers) + places[both], return_counts=True
    )
    first, second = np.divmod(pairs, len(numbers))
    matched = np.zeros(len(sizes), bool)
    matched[first[common / (sizes[first] + sizes_of_reference[second] - common) >= iou]] = True
    return matched


def _edges(instances: Integer[np.ndarray, "*spatial"]) -> Bool[np.ndarray, "*spatial"]:
    """Return the voxels at which two instances touch."""
    edges = np.zeros(instances.shape, bool)
    for axis in range(instances.ndim):
        here = [slice(None)] * instances.ndim
        following = list(here)
        here[axis], following[axis] = slice(None, -1), slice(1, None)
        first, second = instances[tuple(here)], instances[tuple(following)]
        edges[tuple(here)] |= (first != second) & (first > 0) & (second > 0)
    return edges
