"""Predictions and models of a cascade's first stage, for the second."""

import hashlib
from pathlib import Path

from scanseg.batches import build_cascade_store
from scanseg.errors import InputError, UsageError
from scanseg.messages import listed
from scanseg.models import (
    ModelFolder,
    is_ensemble,
    member_folders,
    pair_prediction_path,
    read_ensemble,
    write_ensemble,
)
from scanseg.preprocessing import Store
from scanseg.runtime import RunContext
from scanseg.specs import FileStamp, Plan


def build_second_stage_store(plan: Plan, store: Store, *, context: RunContext) -> Store:
    """Build the store of a second stage.

    It holds the cases with the predictions of the first stage.

    Each case is predicted by a fold that has not been trained on it.

    Args:
        plan: The plan of the second stage.
        store: The store of its cases.
        context: Worker processes and progress.

    Raises:
        InputError: The first stage is no finished cross-validation of the same cases.
        UsageError: The plan names no first stage.
    """
    crossval = _first_stage_of(plan)
    digest = hashlib.sha256(str(crossval.resolve()).encode()).hexdigest()[:8]
    return build_cascade_store(
        store,
        {case: path for case, path in _predictions(crossval).items() if path.is_file()},
        first_stage=str(crossval),
        folder=store.folder.with_name(f"{store.folder.name}-after-{digest}"),
        context=context,
    )


def copy_first_stage(folder: ModelFolder) -> None:
    """Copy the models of the first stage to the second.

    The second stage then predicts by itself.

    The file that names the members is written last and marks the copy as complete.

    Args:
        folder: Model folder of the second stage.
    """
    crossval, target = _first_stage_of(folder.plan), folder.first_stage_path
    for member in _members(crossval):
        member.copy_to(target / member.path.relative_to(crossval))
    for path in (*(crossval / member for member in read_ensemble(crossval).members), crossval):
        if is_ensemble(path):
            write_ensemble(target / path.relative_to(crossval), read_ensemble(path))


def first_stage_stamps(plan: Plan) -> dict[str, FileStamp]:
    """Return the state of the weights of a first stage.

    Args:
        plan: The plan of the second stage.

    Returns:
        Size, date and checksum of the weights, by their path in the folder of the first stage.

    Raises:
        InputError: The first stage is no finished cross-validation.
        UsageError: The plan names no first stage.
    """
    crossval = _first_stage_of(plan)
    paths = [member.weights_path() for member in _members(crossval)]
    return {path.relative_to(crossval).as_posix(): FileStamp.of(path) for path in paths}


def check_first_stage(folder: ModelFolder) -> None:
    """Check that the first stage of a started training is unchanged.

    Args:
        folder: Model folder of the second stage.

    Raises:
        InputError: The first stage was trained again, or is no finished cross-validation.
    """
    setup = folder.read_setup()
    if setup is None or setup.first_stage is None:
        return
    crossval = _first_stage_of(folder.plan)
    paths = {member.weights_path().relative_to(crossval).as_posix() for member in _members(crossval)}
    changed = sorted(paths ^ set(setup.first_stage))
    changed += [
        name
        for name, stamp in setup.first_stage.items()
        if name in paths and not stamp.matches(crossval / name)
    ]
    if changed:
        raise InputError(
            f"{folder.path}: its first stage in {crossval} has changed since the training started: "
            f"{listed(changed)}. Restore the first stage, or train the second stage again in another folder."
        )


def _first_stage_of(plan: Plan) -> Path:
    """Return the cross-validation folder of the first stage."""
    assert plan.cascade is not None
    if plan.cascade.first_stage is None:
        raise UsageError(
            "the plan is that of a second stage and names no first stage. Give the output folder of the first "
            "stage's scanseg crossval: --set cascade.first_stage=FOLDER"
        )
    return Path(plan.cascade.first_stage)


def _members(crossval: Path) -> list[ModelFolder]:
    """Return the models of the folds."""
    if not is_ensemble(crossval):
        raise InputError(f"{crossval}: expected the output folder of a finished scanseg crossval.")
    return [ModelFolder.open(path) for path in member_folders(crossval)]


def _predictions(crossval: Path) -> dict[str, Path]:
    """Return the label map of each case by other folds."""
    folders = _members(crossval)
    spec = read_ensemble(crossval)
    if spec.average == "probabilities":
        cases = {case for folder in folders for case in _validation_cases(folder)}
        return {case: pair_prediction_path(crossval, spec.members, case) for case in cases}
    return {case: folder.prediction_path(case) for folder in folders for case in _validation_cases(folder)}


def _validation_cases(folder: ModelFolder) -> tuple[str, ...]:
    """Return the validation cases of a fold."""
    record = folder.read_run()
    return () if record is None else record.validation_cases
