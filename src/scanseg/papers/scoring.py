"""Score test cases by the rules of a protocol."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from scanseg.evaluation import (
    CaseScores,
    Report,
    find_instances,
    make_instance_report,
    make_report,
    preset_tolerances,
    score_case,
    score_instances,
)
from scanseg.experiments import Checkpoint, Trial
from scanseg.files import write_text
from scanseg.inference import load
from scanseg.preprocessing import Store, read_array
from scanseg.progress import ProgressUpdate
from scanseg.runtime import RunContext, raise_if_stopped
from scanseg.specs import DatasetSpec, DistanceUnit, InstanceReport, RuleName


@dataclass(frozen=True)
class Scoring:
    """How test cases are scored."""

    rule: RuleName
    distance_unit: DistanceUnit = "mm"
    tolerance_mm: float = 2.0
    tolerance_preset: str | None = None
    instances: bool = False
    """Labels are interior and boundary; objects are scored too."""

    @property
    def tolerance(self) -> str:
        """The tolerance of NSD in words."""
        unit = "mm" if self.distance_unit == "mm" else "pixels"
        if self.tolerance_preset is None:
            return f"{self.tolerance_mm:g} {unit}"
        return f"the published tolerances of {self.tolerance_preset}, {self.tolerance_mm:g} {unit} for other labels"


def score_trial(
    trial: Trial,
    store: Store,
    cases: Sequence[str],
    scoring: Scoring,
    *,
    checkpoint: Checkpoint,
    instances: Path | None,
    context: RunContext,
) -> tuple[Report, InstanceReport | None]:
    """Predict and score cases with a trial's weights, or read what an earlier call wrote to the model folder.

    Args:
        trial: A training that is done.
        store: Holds the cases and their references.
        cases: Names of the cases.
        scoring: How they are scored.
        checkpoint: Which weights.
        instances: Folder of the cases' instance maps, where objects are scored.
        context: Device, stopping and progress.

    Raises:
        InterruptionError: It was stopped before all cases were scored.
    """
    path = trial.folder / f"test-{checkpoint}.json"
    instances_path = trial.folder / f"test-{checkpoint}-instances.json"
    if path.is_file() and (instances is None or instances_path.is_file()):
        return Report.read(path), InstanceReport.read(instances_path) if instances is not None else None
    predictor = load(trial.folder, device=context.device, weights=checkpoint)
    tolerances = _tolerances(scoring, tuple(predictor.plan.dataset.foreground))
    scores, instance_scores = [], {}
    for number, name in enumerate(cases):
        raise_if_stopped(context.should_stop, f"{trial.name} is trained, but not scored; go on with --resume")
        context.progress(ProgressUpdate("scoring", number, len(cases), name))
        case = store.case(name)
        label_map = predictor.predict_preprocessed(
            store.read_image(case).astype(np.float32), case.geometry, predicted=store.read_predicted(case)
        )
        scored = _score(
            name,
            label_map,
            reference=store.read_reference(case),
            spacing=case.geometry.source_spacing,
            dataset=predictor.plan.dataset,
            scoring=scoring,
            tolerances=tolerances,
        )
        scores.append(scored)
        if instances is not None:
            numbers = read_array(instances / f"{name}.b2nd")
            instance_scores[name] = score_instances(find_instances(label_map, grow=0), numbers)
        context.progress(ProgressUpdate("scoring", number + 1, len(cases), name))
    dataset, model = predictor.plan.dataset, f"{trial.folder} ({checkpoint} weights)"
    report = make_report(
        scores,
        labels=dataset.foreground,
        ignore_label=dataset.ignore_label,
        predictions=model,
        references=str(store.folder),
        labels_from="the plan",
        tolerances_mm=tolerances,
        rule=scoring.rule,
        distance_unit=scoring.distance_unit,
    )
    found = None
    if instances is not None:
        found = make_instance_report(
            instance_scores, predictions=model, references=str(instances), instances="components"
        )
        write_text(instances_path, found.to_json())
    write_text(path, report.to_json())
    return report, found


def _tolerances(scoring: Scoring, labels: Sequence[str]) -> dict[str, float]:
    """Return the tolerance of every label."""
    preset = {} if scoring.tolerance_preset is None else preset_tolerances(scoring.tolerance_preset, labels)
    return dict.fromkeys(labels, scoring.tolerance_mm) | preset


def _score(
    name: str,
    label_map: UInt8[np.ndarray, "*source"],
    *,
    reference: UInt8[np.ndarray, "*source"],
    spacing: Sequence[float],
    dataset: DatasetSpec,
    scoring: Scoring,
    tolerances: Mapping[str, float],
) -> CaseScores:
    """Score one case."""
    return CaseScores(
        name,
        score_case(
            label_map,
            reference,
            spacing=spacing,
            labels=dataset.foreground,
            ignore_label=dataset.ignore_label,
            label_tolerances_mm=tolerances,
            rule=scoring.rule,
            distance_unit=scoring.distance_unit,
        ),
    )
