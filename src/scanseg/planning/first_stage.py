"""The first stage of a cascade, for the training of the second: its predictions, and its models to be kept."""

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

from scanseg.batches import build_cascade_store
from scanseg.errors import InputError, UsageError
from scanseg.models import FILE, FIRST_STAGE, ModelFolder, member_folders, pair_prediction_path
from scanseg.preprocessing import Store
from scanseg.runtime import RunContext, choose_workers
from scanseg.specs import EnsembleSpec, Plan

_KEPT = ("plan.json", "run.json", "model.safetensors")


def cascade_store_of(plan: Plan, store: Store, *, context: RunContext) -> Store:
    """Return the store of a plan with what the first stage predicted, which its folds have not seen.

    Args:
        plan: The plan of the second stage.
        store: The store of its cases.
        context: Worker processes and progress.

    Raises:
        InputError: The first stage is no finished cross-validation of the same cases.
        UsageError: The plan does not say where it is.
    """
    study = _study_of(plan)
    digest = hashlib.sha256(str(study.resolve()).encode()).hexdigest()[:8]
    return build_cascade_store(
        store,
        {case: path for case, path in _predictions(study).items() if path.is_file()},
        first_stage=str(study),
        folder=store.folder.with_name(f"{store.folder.name}-after-{digest}"),
        context=replace(context, num_workers=choose_workers(context.num_workers)),
    )


def keep_first_stage(plan: Plan, model: Path) -> None:
    """Copy the models of the first stage into the folder of the second, which can then predict by itself.

    Args:
        plan: The plan of the second stage.
        model: Its folder.
    """
    study, kept = _study_of(plan), model / FIRST_STAGE
    for folder in _members(study):
        place = kept / folder.path.relative_to(study)
        place.mkdir(parents=True, exist_ok=True)
        for name in _KEPT:
            shutil.copyfile(folder.path / name, place / name)
        if folder.plan.cascade is not None:
            shutil.copytree(folder.path / FIRST_STAGE, place / FIRST_STAGE, dirs_exist_ok=True)
    for path in (study, *(study / member for member in EnsembleSpec.read(study / FILE).members)):
        if (path / FILE).is_file():
            shutil.copyfile(path / FILE, kept / path.relative_to(study) / FILE)


def _study_of(plan: Plan) -> Path:
    """Return the folder of the first stage."""
    assert plan.cascade is not None
    if plan.cascade.first_stage is None:
        raise UsageError(
            "the plan is that of a second stage; say where the scanseg crossval of the first one is: --set "
            "cascade.first_stage=STUDY"
        )
    return Path(plan.cascade.first_stage)


def _members(study: Path) -> list[ModelFolder]:
    """Return the models of the folds."""
    if not (study / FILE).is_file():
        raise InputError(f"{study} is no finished scanseg crossval: it holds no {FILE}.")
    return [ModelFolder.open(path) for path in member_folders(study)]


def _predictions(study: Path) -> dict[str, Path]:
    """Return, for each case, where its label map lies, predicted by models that have not learnt from it."""
    folders = _members(study)
    spec = EnsembleSpec.read(study / FILE)
    if spec.average == "probabilities":
        cases = {case for folder in folders for case in _validation_cases(folder)}
        return {case: pair_prediction_path(study, spec.members, case) for case in cases}
    return {case: folder.prediction_path(case) for folder in folders for case in _validation_cases(folder)}


def _validation_cases(folder: ModelFolder) -> tuple[str, ...]:
    """Return the cases that a fold has not learnt from."""
    record = folder.read_run()
    return () if record is None else record.validation_cases
