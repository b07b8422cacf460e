"""Scores of folders of instance maps, and instance maps from label maps."""

from collections.abc import Callable, Mapping, Sequence
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
from scanseg.evaluation.pairs import Pair, case_name, find_pairs, is_instance_map, list_label_maps
from scanseg.files import find_disk_fault, is_unused, new_folder
from scanseg.imaging import (
    DECODERS,
    MEDICAL_DECODERS,
    Image,
    compare_geometry,
    file_ending,
    read_instance_map,
    read_label_map,
    write_instance_colours,
    write_instance_map,
)
from scanseg.runtime import RunContext, map_cases
from scanseg.specs import InstanceCase, InstanceReport, InstanceSource, InstanceSummary, Statistics

INSTANCE_FOLDERS = {"labelsTr": "instancesTr", "labelsTs": "instancesTs"}
"""Folder of instance maps for each folder of label maps in a converted data set."""

INSTANCE_COLOURS = "colours"
"""Folder of the pictures in colours inside a folder of instance maps."""


_NUMBERS_HINT = "If each instance has its own number, choose --instances numbers."
_HIGHEST_LABEL = max(INTERIOR, BOUNDARY)


@dataclass(frozen=True)
class _Scored:
    """Scores of one image, or the faults of its files."""

    name: str
    scores: Scores | None
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
    if instances not in get_args(InstanceSource):
        raise UsageError(f"instances {instances!r} is unknown. Choose {', '.join(get_args(InstanceSource))}.")
    _refuse_label_maps(references)
    found = find_pairs(predictions, references, cases=cases, only_predicted=only_predicted)
    context.report_warnings(found.warnings)
    score = partial(_score_pair, instances=instances, iou=iou, border=border)
    scored = map_cases(score, found.pairs, context=context, task="scoring")
    refuse_faults(f"{predictions} and {references}", [fault for case in scored for fault in case.faults])
    doubts = _find_doubts(predictions, references, scored, instances=instances)
    context.report_warnings(doubts)
    return make_instance_report(
        {case.name: case.scores for case in scored if case.scores is not None},
        predictions=str(predictions),
        references=str(references),
        instances=instances,
        iou=iou,
        border=border,
        unpredicted=found.unpredicted,
        warnings=(*found.warnings, *doubts),
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


def convert_to_instances(
    predictions: Path,
    output: Path,
    *,
    interior: int = INTERIOR,
    boundary: int | None = BOUNDARY,
    grow: int = GROW,
    neck: float = NECK,
    min_voxels: int = 0,
    context: RunContext,
) -> tuple[Path, ...]:
    """Write instance maps for a folder of interior and boundary label maps.

    Args:
        predictions: Folder of label maps, or one file.
        output: Folder for the instance maps, which have the same file names. It appears once all are written. The maps
            of pictures look black in viewers, so `colours` in it holds them in colours too.
        interior: Value of the voxels whose connected components are the instances.
        boundary: Value of the voxels that instances may grow into. `None`: no value.
        grow: Largest distance in voxels by which instances grow.
        neck: Split interiors at necks below this fraction of the narrower part's half width. 0: do not split.
        min_voxels: Smallest number of voxels of an instance. Smaller instances are left out.
        context: Worker processes and progress.

    Returns:
        Paths of the instance maps, sorted by name.

    Raises:
        InputError: Files cannot be read. The message lists all of them, and no file is written.
        UsageError: The output already exists.
        OSError: The disk is full. No file is written.
    """
    if not predictions.exists():
        raise InputError(f"{predictions}: no such file or folder.")
    if output.resolve() == (predictions if predictions.is_dir() else predictions.parent).resolve():
        raise UsageError(f"{output}: instance maps would replace the label maps. Choose another folder.")
    if output.exists() and (not output.is_dir() or not is_unused(output)):
        raise UsageError(f"{output} already exists. Choose a new folder, or remove it.")
    faults: list[str] = []
    if predictions.is_dir():
        files = list_label_maps(predictions, None, faults)
    else:
        files = {case_name(predictions): predictions}
    if not files and not faults:
        faults.append("no label maps")
    refuse_faults(predictions, faults)
    find = partial(
        find_instances, interior=interior, boundary=boundary, grow=grow, neck=neck, min_voxels=min_voxels
    )
    with new_folder(output) as folder:
        tasks = [Pair(name, path, folder / path.name) for name, path in files.items()]
        convert = partial(_convert, find=find)
        done = map_cases(convert, tasks, context=context, task="converting")
        refuse_faults(predictions, [fault for fault in done if fault is not None])
    return tuple(output / path.name for path in files.values())


def _convert(task: Pair, *, find: Callable[[np.ndarray], np.ndarray]) -> str | None:
    """Write the instances of one label map, or return its fault."""
    try:
        image = read_label_map(task.prediction)
        instances = find(image.array[0])
        write_instance_map(task.reference, instances, like=image)
        if instances.ndim == 2 and DECODERS[file_ending(task.reference)] not in MEDICAL_DECODERS:
            colours = task.reference.parent / INSTANCE_COLOURS / f"{task.name}.png"
            write_instance_colours(colours, instances, like=image)
    except InputError as error:
        if (full := find_disk_fault(error)) is not None:
            raise full from error
        return f"case {task.name}: {error}"
    return None


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


def _score_pair(pair: Pair, *, instances: InstanceSource, iou: float, border: int) -> _Scored:
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
        return _Scored(pair.name, None, tuple(faults))
    differences = compare_geometry(*images)
    if differences:
        fault = f"case {pair.name}: {pair.prediction} and {pair.reference} differ in {', '.join(differences)}"
        return _Scored(pair.name, None, (f"{fault}. Resample the prediction to the reference's grid.",))
    prediction, reference = (image.array[0] for image in images)
    highest = int(prediction.max(initial=0)), int(reference.max(initial=0))
    if instances != "numbers":
        prediction = instances_of(prediction, instances)
    return _Scored(pair.name, score_instances(prediction, reference, iou=iou, border=border), (), *highest)


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
