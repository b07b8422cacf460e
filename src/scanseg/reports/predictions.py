"""Reports of folders of predictions, with or without references."""

from collections.abc import Sequence
from functools import partial, reduce
from operator import add
from pathlib import Path

import numpy as np

from scanseg.errors import InputError
from scanseg.evaluation import Report, evaluate, find_labels
from scanseg.figures import count_values, displayed_labels
from scanseg.messages import counted, format_duration
from scanseg.models import VALIDATION_FILE
from scanseg.reports.cases import (
    CaseFiles,
    Evidence,
    Predictions,
    find_predictions,
    gather_evidence,
    read_case_maps,
    read_shown,
)
from scanseg.reports.colours import colours_of_labels
from scanseg.reports.evidence import Reliability
from scanseg.reports.evidence_sections import (
    confusion_section,
    outlier_section,
    reliability_section,
    uncertainty_section,
)
from scanseg.reports.outliers import LEAST_CASES, Outlier, find_outliers
from scanseg.reports.overlays import draw_case
from scanseg.reports.page import CasePictures, Cell, Page, Section, Table
from scanseg.reports.score_sections import (
    format_number,
    mean_dice,
    pick_cases,
    score_headline,
    score_sections,
)
from scanseg.runtime import RunContext, keep_workers, map_cases
from scanseg.specs import DatasetSpec

_MOST_PICTURES = 6
"""Cases without references whose pictures are shown."""


@keep_workers()
def prediction_page(
    folder: Path,
    *,
    references: Path | None,
    images: Path | None,
    scores: Report | None,
    context: RunContext,
) -> Page:
    """Make the report of a folder of predictions.

    Args:
        folder: Folder of label maps.
        references: Folder of references. `None`: no references.
        images: Folder of the images. `None`: the files in the record of the prediction.
        scores: Scores against the references, if they exist already.
        context: Worker processes and progress.

    Raises:
        InputError: A file cannot be read, or no label maps are found.
    """
    source = find_labels(folder, folder if references is None else references)
    found = find_predictions(
        folder, references=references, images=images, dataset=source.spec, with_segmentations=True
    )
    dataset = source.spec or _dataset_of_values(found.cases)
    context = context.for_images(sum(case.num_bytes for case in found.cases))
    scored = [case.name for case in found.cases if case.reference is not None]
    if references is not None and not scored:
        raise InputError(
            f"{references}: expected references of the predictions, got no common names. Choose another."
        )
    if scores is None and references is not None:
        scores = evaluate(folder, references, labels=source.spec, cases=scored, context=context)
    evidence = map_cases(
        partial(gather_evidence, dataset=dataset), found.cases, context=context, task="reading cases"
    )
    outliers = find_outliers(
        {each.case: each.shapes for each in evidence},
        voxel_ml={each.case: each.voxel_ml for each in evidence},
        trained=_trained_volumes(found),
    )
    pictures, warnings = _draw_cases(found, scores, outliers, dataset)
    legend = tuple(colours_of_labels(dataset).items()) if pictures else ()
    cases = Section("Cases", cases=tuple(pictures), legend=legend)
    image_warnings = {case.name: case.warning for case in found.cases if case.warning is not None}
    unusual = outlier_section(outliers, len(evidence), image_warnings)
    if scores is None:
        numbers = [(str(len(evidence)), "cases")]
        sections = [unusual, cases, _sizes(evidence), uncertainty_section(evidence, None)]
    else:
        numbers = list(score_headline(scores))
        sections = [*_scored_sections(scores, evidence, dataset, cases), unusual]
    if len(evidence) >= LEAST_CASES:
        numbers.append((str(len({each.case for each in outliers})), "unusual cases"))
    return Page(
        folder.name if dataset.name == folder.name else f"{dataset.name}: {folder.name}",
        f"Predictions in {folder}" + ("" if references is None else f", references in {references}"),
        tuple(numbers),
        (*sections, _prediction(found, references)),
        (*(() if found.record is None else found.record.warnings), *warnings),
    )


def _scored_sections(
    scores: Report, evidence: Sequence[Evidence], dataset: DatasetSpec, cases: Section
) -> list[Section]:
    """Return the sections of predictions with references."""
    tables, *figures = score_sections(scores, colours_of_labels(dataset))
    reliability = [each.reliability for each in evidence if each.reliability is not None]
    confusion = [each.confusion for each in evidence if each.confusion is not None]
    return [
        tables,
        cases,
        *figures,
        reliability_section({"predictions": reduce(add, reliability, Reliability())}),
        uncertainty_section(evidence, scores),
        confusion_section(reduce(add, confusion) if confusion else None, dataset),
    ]


def _dataset_of_values(cases: Sequence[CaseFiles]) -> DatasetSpec:
    """Return a description whose labels are the values of the label maps."""
    values = sorted({value for case in cases for value in _values_of(case)}) or [1]
    labels: dict[str, int | tuple[int, ...]] = {"background": 0}
    labels |= {str(value): value for value in values}
    # Values of foreign label maps may have gaps, which a training refuses.
    return DatasetSpec.model_construct(
        name="predictions", channel_names=("image",), labels=labels, file_ending=".nii.gz"
    )


def _values_of(case: CaseFiles) -> list[int]:
    """Return the label values of a prediction and its reference."""
    label_map, reference = read_case_maps(case, like=())
    counts = count_values(label_map.array[0])
    if reference is not None:
        counts += count_values(reference)
    return [value for value in np.flatnonzero(counts).tolist() if value]


def _prediction(found: Predictions, references: Path | None) -> Section:
    """Return the section about model, settings and cases."""
    record = found.record
    facts = [("Cases", str(len(found.cases)))]
    if references is not None:
        facts.append(("With references", str(sum(case.reference is not None for case in found.cases))))
    if record is not None:
        failed = [case.case for case in record.cases if case.fault is not None]
        facts += [
            ("Model", record.model),
            ("Model digest", record.model_digest or "not recorded"),
            ("Recipe", record.recipe),
            ("Device", f"{record.device}, {record.precision}"),
            ("Mirroring", "yes" if record.mirror else "no"),
            ("Started", record.started),
            ("Time", format_duration(record.seconds)),
            ("Versions", ", ".join(f"{name} {version}" for name, version in record.versions.items())),
            *([("Failed cases", ", ".join(failed))] if failed else []),
        ]
    return Section("Prediction", facts=tuple(facts))


def _trained_volumes(found: Predictions) -> dict[str, tuple[float, float]] | None:
    """Return the range of reference volumes in the model's validation cases.

    `None`: the model is not on this machine, or has no scores.
    """
    if found.record is None or not (path := Path(found.record.model) / VALIDATION_FILE).is_file():
        return None
    report, ranges = Report.read(path), {}
    for name in report.labels:
        volumes = [case.labels[name].reference_volume_ml for case in report.cases if name in case.labels]
        positive = [volume for volume in volumes if volume]
        if positive:
            ranges[name] = (min(positive), max(positive))
    return ranges


def _draw_cases(
    found: Predictions, scores: Report | None, outliers: Sequence[Outlier], dataset: DatasetSpec
) -> tuple[list[CasePictures], list[str]]:
    """Draw best, median and worst case, or the most unusual cases."""
    files = {case.name: case for case in found.cases}
    chosen: list[tuple[str, str, str]] = []
    if scores is not None:
        for rank, case in pick_cases(scores):
            facts = (
                f"mean Dice {format_number(mean_dice(case))}. Areas: prediction. White outlines: reference."
            )
            chosen.append((case.case, rank, facts))
    else:
        reasons: dict[str, str] = {}
        for each in outliers:
            reasons.setdefault(each.case, f"{each.label}: {each.reason}")
        chosen = [(name, "Unusual", reason) for name, reason in reasons.items()]
        chosen += [(name, "Case", "") for name in files if name not in reasons]
        chosen = chosen[:_MOST_PICTURES]
    pictures, warnings = [], []
    for name, rank, facts in chosen:
        case_files = files[name]
        label_map, reference = read_case_maps(case_files, like=case_files.images or case_files.entropy_files)
        image = read_shown(case_files, label_map)
        if not case_files.images:
            facts += " The image is missing, so only labels are shown."
        pictures.append(
            draw_case(
                image,
                label_map.array[0],
                reference,
                labels=displayed_labels(dataset),
                colours=dataset.colours,
                title=f"{rank}: {name}",
                facts=facts,
            )
        )
    without = sum(not case.images for case in found.cases)
    if without:
        warnings.append(
            f"The images of {counted(without, 'case')} were not found. Name their folder by --images to show them."
        )
    return pictures, warnings


def _sizes(evidence: Sequence[Evidence]) -> Section:
    """Return the table of volumes and components of each case."""
    labels = list(evidence[0].shapes) if evidence else []
    unit = "ml" if all(each.voxel_ml is not None for each in evidence) else "pixels"
    rows = [(Cell(each.case), *(Cell(_describe_shape(each, name)) for name in labels)) for each in evidence]
    caption = f"Volume in {unit} and number of components of each label"
    return Section(
        "Volumes and components", tables=(Table(("case", *labels), rows, caption, is_folded=len(rows) > 30),)
    )


def _describe_shape(evidence: Evidence, label: str) -> str:
    shape = evidence.shapes[label]
    if shape is None:
        return "-"
    size = shape.num_voxels * (evidence.voxel_ml or 1.0)
    return f"{size:.4g} in {shape.num_components}"
