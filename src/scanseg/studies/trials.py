"""Single trainings of a study: run one after the other, taken up where they were left, and scored."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from scanseg.data.compressed import read_array
from scanseg.data.store import Store
from scanseg.errors import UsageError
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
from scanseg.files import write_text
from scanseg.inference import load
from scanseg.models import ModelFolder
from scanseg.models.device import choose_device
from scanseg.progress import Progress, ProgressListener
from scanseg.settings import compare_settings
from scanseg.specs import DatasetSpec, InstanceReport, Plan
from scanseg.studies.cascade import keep_first_stage
from scanseg.studies.curves import write_curves
from scanseg.studies.experiments import Scoring
from scanseg.training import FoldChoice, watch_signals
from scanseg.training import train as run_training
from scanseg.training.signals import raise_if_stopped
from scanseg.training.validation import REPORT

Checkpoint = Literal["last", "best"]
Stopped = Callable[[], int | None]
OUT_OF_TIME = -1
"""Stands for a signal where the time is over."""


@dataclass(frozen=True)
class Trial:
    """One training of a study."""

    name: str
    plan: Plan
    folder: Path
    """Its model folder."""
    fold: FoldChoice = 0
    initial_weights: Path | None = None

    @property
    def is_done(self) -> bool:
        """Whether it has been trained to its end, and its validation cases, if it has any, scored."""
        record = ModelFolder.open(self.folder).read_run() if (self.folder / "plan.json").is_file() else None
        if record is None or record.status != "finished":
            return False
        return not record.validation_cases or (self.folder / REPORT).is_file()


@contextmanager
def watch_time(minutes: float | None) -> Iterator[Stopped]:
    """Give a function that says whether trainings shall stop: by a signal, or since the time is over.

    Args:
        minutes: Time from now on; None: no bound.
    """
    begin = time.monotonic()
    with watch_signals() as signalled:

        def stopped() -> int | None:
            late = minutes is not None and time.monotonic() - begin > 60 * minutes
            return signalled() or (OUT_OF_TIME if late else None)

        yield stopped


def named(listen: ProgressListener, name: str) -> ProgressListener:
    """Return a listener that says of which training it hears.

    Args:
        listen: Who is told.
        name: Name of the training.
    """

    def hear(progress: Progress) -> None:
        listen(replace(progress, detail=f"{name}; {progress.detail}" if progress.detail else name))

    return hear


def run_trial(
    trial: Trial, store: Store, *, device: str, num_workers: int, stopped: Stopped, listen: ProgressListener
) -> None:
    """Train, from where it was left; what is done is kept.

    Args:
        trial: The training.
        store: Its cases.
        device: Where to train.
        num_workers: Processes that read cases which are held on disk.
        stopped: Gives the number of a signal once the training shall stop.
        listen: Told of progress.

    Raises:
        InterruptionError: It was stopped; its state has been saved.
        UsageError: The folder holds another training.
    """
    if (trial.folder / "plan.json").is_file():
        folder = ModelFolder.open(trial.folder)
        faults = compare_settings(folder.plan, trial.plan)
        if faults:
            raise UsageError(
                f"{trial.folder} holds a training where {'; '.join(faults)}. Remove it, or choose another output."
            )
    else:
        trial.folder.parent.mkdir(parents=True, exist_ok=True)
        folder = ModelFolder.create(trial.folder, trial.plan)
        if trial.plan.cascade is not None:
            keep_first_stage(trial.plan, trial.folder)
    if trial.is_done:
        return
    raise_if_stopped(stopped, f"{trial.name} is still to be trained; go on with --resume")
    run_training(
        folder,
        store,
        fold=trial.fold,
        device=choose_device(device),
        initial_weights=trial.initial_weights,
        num_workers=num_workers,
        stopped=stopped,
        listen=listen,
    )
    write_curves(folder)


def score_trial(
    trial: Trial,
    store: Store,
    cases: Sequence[str],
    scoring: Scoring,
    *,
    checkpoint: Checkpoint,
    instances: Path | None,
    device: str,
    stopped: Stopped,
    listen: ProgressListener,
) -> tuple[Report, InstanceReport | None]:
    """Predict and score cases with a trial's weights, or read what an earlier call wrote to the model folder.

    Args:
        trial: A training that is done.
        store: Holds the cases and their references.
        cases: Names of the cases.
        scoring: How they are scored.
        checkpoint: Which weights.
        instances: Folder of the cases' instance maps, where objects are scored.
        device: Where to predict.
        stopped: Gives the number of a signal once the work shall stop.
        listen: Told of progress.

    Raises:
        InterruptionError: It was stopped before all cases were scored.
    """
    path = trial.folder / f"test-{checkpoint}.json"
    objects_path = trial.folder / f"test-{checkpoint}-objects.json"
    if path.is_file() and (instances is None or objects_path.is_file()):
        return Report.read(path), InstanceReport.read(objects_path) if instances is not None else None
    predictor = load(trial.folder, device=device, weights=checkpoint)
    tolerances = _tolerances(scoring, tuple(predictor.plan.dataset.foreground))
    scores, objects = [], {}
    for number, name in enumerate(cases):
        raise_if_stopped(stopped, f"{trial.name} is trained, but not scored; go on with --resume")
        listen(Progress("scoring", number, len(cases), name))
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
            objects[name] = score_instances(find_instances(label_map, grow=0), numbers)
        listen(Progress("scoring", number + 1, len(cases), name))
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
            objects, predictions=model, references=str(instances), instances="components"
        )
        write_text(objects_path, found.to_json())
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
