"""Run comparisons: train every arm with every seed on every fold."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from scanseg.errors import InterruptionError, ScansegError, UsageError
from scanseg.experiments.comparison_summary import Arm, summarize_comparison
from scanseg.experiments.job import check_same_folds
from scanseg.experiments.scheduler import OUT_OF_TIME, require_devices, run_jobs, stop_after
from scanseg.experiments.table import RECORD, TABLE, write_comparison
from scanseg.files import make_folder, write_text
from scanseg.models import PLAN_FILE, ModelFolder, check_network
from scanseg.planning import PlanRequest, TrainingSource, make_plan, prepare_store
from scanseg.runtime import RunContext, choose_device, keep_workers, warm_up
from scanseg.settings import apply_settings, compare_settings
from scanseg.specs import ComparisonArm, ComparisonRecord, ComparisonSpec, Plan
from scanseg.training import choose_fold

_STORES = "stores"
_SETUP = "setup.json"
"""The comparison as it was started. The record is written only after trainings."""


@dataclass(frozen=True)
class ComparisonOptions:
    """The user's choices for running a comparison."""

    devices: tuple[str, ...] = ("auto",)
    """Devices. Several train at the same time, each one training at a time."""
    stop_after_minutes: float | None = None
    """Stop after this time, as Ctrl-C does. `None`: no limit."""
    prepare_only: bool = False
    """Plan and preprocess only."""
    resume: bool = False
    """Resume the comparison in the output folder."""


def choose_arms(spec: ComparisonSpec, names: Sequence[str]) -> ComparisonSpec:
    """Return a comparison of some of its arms.

    Args:
        spec: The comparison.
        names: Names of the arms, with the baseline. Empty: all arms.

    Raises:
        UsageError: An arm is unknown, or fewer than two are left.
    """
    if not names:
        return spec
    available = [arm.name for arm in spec.all_arms]
    unknown = [name for name in names if name not in available]
    if unknown or spec.baseline_name not in names or len(names) < 2:
        raise UsageError(
            f"arms {', '.join(names)}: choose at least two of {'; '.join(available)}, with the baseline "
            f"{spec.baseline_name} among them."
        )
    chosen = tuple(arm for arm in spec.all_arms if arm.name in names)
    return spec.model_copy(update={"arms": chosen, "grid": {}, "baseline": spec.baseline_name})


def run_comparison(
    spec: ComparisonSpec,
    dataset: Path | None,
    output: Path,
    options: ComparisonOptions,
    *,
    context: RunContext,
) -> ComparisonRecord:
    """Run or resume a comparison, and write its record, table and figure.

    Trainings run seed by seed, so that all arms can be compared at any time.

    Args:
        spec: The comparison.
        dataset: Folder of the raw data set. Not needed to resume.
        output: Folder to write.
        options: Devices, time limit and resuming. Seeds and folds may be added to a resumed comparison.
        context: Worker processes, progress and stopping.

    Raises:
        InputError: The data set is faulty.
        UsageError: A setting is invalid, or the folder holds another comparison.
        ScansegError: Trainings failed. The others are done, and the record is written.
        InterruptionError: A signal came. The state is saved, and the record is written.
    """
    if not options.resume:
        ModelFolder.require_new(output)
    _check_same(spec, output)
    if not options.prepare_only:
        require_devices(options.devices)
    make_folder(output)
    with warm_up(_own_device(options)):
        arms = _prepare(spec, dataset, output, context=context)
    for arm in arms:
        for fold in spec.folds:
            choose_fold(arm.prepared.store, fold)
    failure: ScansegError | None = None
    if not options.prepare_only:
        jobs = [arm.job(seed, fold) for seed in spec.seeds for fold in spec.folds for arm in arms]
        check_same_folds(jobs)
        try:
            run_jobs(
                [job for job in jobs if not job.is_finished],
                devices=options.devices,
                context=stop_after(options.stop_after_minutes, context),
            )
        except ScansegError as error:
            failure = error
    record = summarize_comparison(spec, arms, output)
    write_comparison(record, output)
    if failure is not None:
        _raise_failure(failure, record, output)
    return record


def _raise_failure(failure: ScansegError, record: ComparisonRecord, output: Path) -> None:
    """Raise the reason why trainings are missing, unless the time was over."""
    if isinstance(failure, InterruptionError) and failure.signal_number == OUT_OF_TIME:
        return
    if isinstance(failure, InterruptionError | UsageError):
        raise failure
    num_done = sum(len(arm.runs) for arm in record.arms)
    raise ScansegError(
        f"{failure}. Results so far are in {output / TABLE}. --resume trains the missing "
        f"{len(record.missing)} of {len(record.missing) + num_done}"
    )


def _own_device(options: ComparisonOptions) -> torch.device | None:
    """Return the device on which this process trains, if it does.

    It is warmed up before the first training, whose clock would count that time.
    """
    if options.prepare_only or len(options.devices) > 1:
        return None
    return choose_device(options.devices[0])


def _check_same(spec: ComparisonSpec, output: Path) -> None:
    """Refuse to resume another comparison. Seeds and folds may be added."""
    if (output / _SETUP).is_file():
        existing = ComparisonSpec.read(output / _SETUP)
    elif (output / RECORD).is_file():  # of an older version
        existing = ComparisonRecord.read(output / RECORD).spec
    else:
        return
    free = {"seeds": spec.seeds, "folds": spec.folds, "title": spec.title, "question": spec.question}
    faults = compare_settings(existing.model_copy(update=free), spec)
    if faults:
        raise UsageError(f"{output} holds a comparison where {'; '.join(faults)}. Choose another output.")


@keep_workers()
def _prepare(spec: ComparisonSpec, dataset: Path | None, output: Path, *, context: RunContext) -> list[Arm]:
    """Plan every arm, or read its plan, and make the stores."""
    folders = [output / name for name in _folder_names(spec)]
    plans, planned = [], dict[str, Plan]()
    for arm, folder in zip(spec.all_arms, folders, strict=True):
        path, recipe = folder / PLAN_FILE, arm.recipe or spec.recipe
        if path.is_file():
            plans.append(Plan.read(path))
            continue
        if dataset is None:
            raise UsageError(f"{output}: the plan of {arm.name} is missing. Give the folder of the data set.")
        if recipe not in planned:
            planned[recipe] = make_plan(dataset, PlanRequest(recipe=recipe, size="full"), context=context)
        plans.append(_plan_of_arm(spec, arm, planned[recipe]))
    write_text(output / _SETUP, spec.to_json())
    arms = []
    for arm, folder, plan in zip(spec.all_arms, folders, plans, strict=True):
        path = folder / PLAN_FILE
        if not path.is_file():
            make_folder(folder)
            write_text(path, plan.to_json())
        source = TrainingSource(path=dataset or path, dataset=dataset, plan=plan)
        arms.append(Arm(arm, prepare_store(plan, source, output / _STORES, context=context), folder))
    return arms


def _plan_of_arm(spec: ComparisonSpec, arm: ComparisonArm, plan: Plan) -> Plan:
    """Return the plan of a recipe with the settings of an arm."""
    minutes = () if spec.max_minutes is None else (f"training.max_minutes={spec.max_minutes}",)
    plan = apply_settings(plan, (*spec.settings, *minutes, *arm.settings))
    check_network(plan)
    return plan


def _folder_names(spec: ComparisonSpec) -> list[str]:
    """Return a different folder name for each arm.

    Names that differ only in signs, such as `w=1` and `w=-1`, get numbers.
    """
    names: list[str] = []
    for arm in spec.all_arms:
        slug = re.sub(r"[\W_]+", "-", arm.name.casefold()).strip("-") or "arm"
        numbered = (slug if number == 1 else f"{slug}-{number}" for number in itertools.count(1))
        names.append(next(name for name in numbered if name not in {_STORES, *names}))
    return names
