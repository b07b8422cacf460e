"""Score test cases by the rules of a protocol."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from scanseg.evaluation import (
    CaseScores,
    find_unit,
    instances_of,
    make_instance_report,
    make_report,
    preset_tolerances,
    score_case,
    score_instances,
)
from scanseg.inference import load
from scanseg.models import ModelFolder, TrainedWeights
from scanseg.preprocessing import Store, read_array
from scanseg.progress import ProgressUpdate
from scanseg.runtime import RunContext, raise_if_stopped
from scanseg.specs import DatasetSpec, DistanceUnit, InstanceSource, RuleName


@dataclass(frozen=True)
class Scoring:
    """The metric rule for test cases."""

    rule: RuleName
    distance_unit: DistanceUnit = "mm"
    tolerance_mm: float = 2.0
    """Tolerance of NSD, in the distance unit."""
    tolerance_preset: str | None = None
    """Name of published tolerances for some labels."""
    instances: InstanceSource | None = None
    """Instances in predicted label maps of interior and boundary. `None`: instances are not scored."""

    @property
    def tolerance(self) -> str:
        """Description of the tolerance of NSD."""
        unit = "mm" if self.distance_unit == "mm" else "pixels"
        if self.tolerance_preset is None:
            return f"{self.tolerance_mm:g} {unit}"
        return f"the published tolerances of {self.tolerance_preset}, {self.tolerance_mm:g} {unit} for other labels"


def score_test_cases(
    folder: ModelFolder,
    store: Store,
    cases: Sequence[str],
    scoring: Scoring,
    *,
    weights: TrainedWeights,
    instances: Path | None,
    context: RunContext,
) -> None:
    """Score test cases and write the scores to the model folder.

    Existing scores of the same weights and cases are kept.

    Args:
        folder: A trained model.
        store: Store of the cases and their references.
        cases: Names of the cases.
        scoring: The metric rule and its tolerances.
        weights: Weights to score.
        instances: Folder of the instance maps of the cases. `None`: instances are not scored.
        context: Device, progress and stopping.

    Raises:
        InterruptionError: A signal came before all cases were scored.
    """
    if folder.scores.has_current_test(store, cases, weights=weights, instances=instances is not None):
        return
    predictor = load(folder.path, device=context.device, weights=weights)
    dataset = predictor.plan.dataset
    tolerances = _tolerances(scoring, tuple(dataset.foreground))
    scores, instance_scores = [], {}
    source = scoring.instances or "components"
    for number, name in enumerate(cases):
        raise_if_stopped(
            context.should_stop, f"{folder.path} is trained but not scored; continue with --resume"
        )
        context.progress(ProgressUpdate("scoring", number, len(cases), name))
        case = store.case(name)
        label_map = predictor.predict_preprocessed(
            store.read_image(case).astype(np.float32), case.geometry, predicted=store.read_predicted(case)
        )
        scores.append(
            _score(
                name,
                label_map,
                reference=store.read_reference(case),
                spacing=case.geometry.source_spacing,
                dataset=dataset,
                scoring=scoring,
                tolerances=tolerances,
            )
        )
        if instances is not None:
            numbers = read_array(instances / f"{name}.b2nd", shape=case.geometry.source_shape)
            instance_scores[name] = score_instances(instances_of(label_map, source), numbers)
        context.progress(ProgressUpdate("scoring", number + 1, len(cases), name))
    model = f"{folder.path} ({weights} weights)"
    spacings = (store.case(name).geometry.source_spacing for name in cases)
    report = make_report(
        scores,
        labels=dataset.foreground,
        ignore_label=dataset.ignore_label,
        predictions=model,
        references=str(store.folder),
        labels_from="the plan",
        tolerances_mm=tolerances,
        rule=scoring.rule,
        distance_unit=find_unit(dataset.file_ending, spacings) if scoring.distance_unit == "mm" else "voxels",
    )
    instance_report = (
        None
        if instances is None
        else make_instance_report(
            instance_scores, predictions=model, references=str(instances), instances=source
        )
    )
    folder.scores.write_test(report, instance_report, weights=weights, store=store, cases=cases)


def _tolerances(scoring: Scoring, labels: Sequence[str]) -> dict[str, float]:
    """Return the tolerance of every label, in the distance unit."""
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
