"""Evaluation of folders of predicted label maps against folders of references."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

from scanseg.dataset import DESCRIPTION_FILE
from scanseg.errors import UsageError, refuse_faults
from scanseg.evaluation.instance_folders import refuse_instance_maps
from scanseg.evaluation.label_source import LabelSource, find_labels
from scanseg.evaluation.pairs import Pair, find_pairs, inspect_pair, read_pair
from scanseg.evaluation.report import CaseScores, make_report
from scanseg.evaluation.rules import METRIC_RULES
from scanseg.evaluation.scores import score_case
from scanseg.evaluation.tolerances import TOLERANCE_MM, preset_tolerances, tolerances_of
from scanseg.runtime import RunContext, map_cases
from scanseg.specs import DatasetSpec, DistanceUnit, Report, RuleName


def evaluate(
    predictions: Path,
    references: Path,
    *,
    labels: DatasetSpec | None = None,
    cases: Sequence[str] | None = None,
    only_predicted: bool = False,
    tolerance_mm: float = TOLERANCE_MM,
    label_tolerances_mm: Mapping[str, float] | None = None,
    tolerance_preset: str | None = None,
    rule: RuleName = "skip",
    distance_unit: DistanceUnit = "mm",
    context: RunContext,
) -> Report:
    """Score predicted label maps against their references.

    All files are read and checked before the first is scored. Surface distances use the spacing of the references.
    Raster images without spacing are scored in pixels.

    Args:
        predictions: Folder of predicted label maps, or one file. DICOM Segmentations are read by the names of their
            segments, or by their numbers if no segment has the name of a label.
        references: Folder of reference label maps of the same names, or one file.
        labels: Description of the labels. `None`: the first `dataset.json` found in the folder of the predictions,
            the folder of the references, or its parent. The others must give the labels the same values. If none
            exists, each value found is a label named by its number.
        cases: Names of the cases to score. `None`: all cases, and each must be in both folders.
        only_predicted: Leave out references without a prediction. The report lists them.
        tolerance_mm: Distance in mm up to which surfaces agree (NSD).
        label_tolerances_mm: Tolerances in mm of single labels, by name.
        tolerance_preset: Name of a protocol in `TOLERANCE_PRESETS`. Its tolerances apply to the labels that it
            lists, unless `label_tolerances_mm` has them.
        rule: Name of the metric rule, see `METRIC_RULES`.
        distance_unit: Unit of HD95 and ASD. `voxels` ignores the spacing. NSD is always in mm.
        context: Worker processes and progress.

    Raises:
        InputError: Files are missing, surplus, unreadable, no label maps, on another grid than their counterpart,
            or hold unknown values, or descriptions give a label different values. One message lists all faults.
        UsageError: One path is a folder and the other a file, the references are the instance maps of a converted data
            set, or the arguments contradict each other.
    """
    if rule not in METRIC_RULES:
        raise UsageError(f"rule {rule!r} is unknown. Choose {', '.join(METRIC_RULES)}.")
    if distance_unit not in get_args(DistanceUnit):
        raise UsageError(
            f"distance_unit {distance_unit!r} is unknown. Choose {', '.join(get_args(DistanceUnit))}."
        )
    refuse_instance_maps(references)
    found = find_pairs(
        predictions, references, cases=cases, only_predicted=only_predicted, with_segmentations=True
    )
    source = (
        find_labels(predictions, references)
        if labels is None
        else LabelSource(labels, f"data set {labels.name}")
    )
    described, warnings = source.spec, (*found.warnings, *source.warnings)
    context.report_warnings(warnings)
    found_values, has_spacing = _inspect(
        found.pairs,
        known_values=None if described is None else described.known_values,
        segments=None if described is None else described.foreground,
        where=f"{predictions} and {references}",
        context=context,
    )
    names = {str(value): (value,) for value in found_values} if described is None else described.foreground
    ignore_label = None if described is None else described.ignore_label
    preset = {} if tolerance_preset is None else preset_tolerances(tolerance_preset, tuple(names))
    tolerances = tolerances_of(
        names, tolerance_mm=tolerance_mm, label_tolerances_mm=preset | dict(label_tolerances_mm or {})
    )
    score = partial(
        _score_pair,
        labels=names,
        segments=None if described is None else described.foreground,
        ignore_label=ignore_label,
        tolerances_mm=tolerances,
        rule=rule,
        distance_unit=distance_unit,
        has_spacing=has_spacing,
    )
    return make_report(
        map_cases(score, found.pairs, context=context, task="scoring"),
        labels=names,
        ignore_label=ignore_label,
        predictions=str(predictions),
        references=str(references),
        labels_from=source.name,
        tolerances_mm=tolerances,
        rule=rule,
        distance_unit=distance_unit if has_spacing else "pixels",
        unpredicted=found.unpredicted,
        warnings=warnings,
    )


def _inspect(
    pairs: Sequence[Pair],
    *,
    known_values: frozenset[int] | None,
    segments: Mapping[str, tuple[int, ...]] | None,
    where: str,
    context: RunContext,
) -> tuple[tuple[int, ...], bool]:
    """Check every pair.

    Returns:
        The values other than 0, and whether any reference has a spacing.

    Raises:
        FaultsError: Files are faulty. One message lists all faults.
    """
    inspect = partial(inspect_pair, known_values=known_values, segments=segments)
    inspections = map_cases(inspect, pairs, context=context, task="checking")
    faults = [fault for inspection in inspections for fault in inspection.faults]
    values = sorted(frozenset[int]().union(*(inspection.values for inspection in inspections)))
    if known_values is None and not values and not faults:
        faults.append(
            f"every voxel is background and no {DESCRIPTION_FILE} names labels, so no label can be scored. Put the "
            f"data set's {DESCRIPTION_FILE} into the folder of the predictions."
        )
    refuse_faults(where, faults)
    return tuple(values), any(inspection.has_spacing for inspection in inspections)


def _score_pair(
    pair: Pair,
    *,
    labels: Mapping[str, tuple[int, ...]],
    segments: Mapping[str, tuple[int, ...]] | None,
    ignore_label: int | None,
    tolerances_mm: Mapping[str, float],
    rule: RuleName,
    distance_unit: DistanceUnit,
    has_spacing: bool,
) -> CaseScores:
    """Read and score one case. Without spacing, it has no volumes."""
    prediction, reference = read_pair(pair, segments=segments)
    scores = score_case(
        prediction.array[0],
        reference.array[0],
        spacing=reference.spacing,
        labels=labels,
        ignore_label=ignore_label,
        label_tolerances_mm=tolerances_mm,
        rule=rule,
        distance_unit=distance_unit,
    )
    if not has_spacing:
        scores = {
            name: replace(label, volume_ml=None, reference_volume_ml=None) for name, label in scores.items()
        }
    return CaseScores(pair.name, scores)
