"""Run a study: every arm of a grid with every seed on every fold, and what that says."""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from statistics import mean, stdev

import torch

from scanseg.errors import InputError, InterruptionError, ScansegError, UsageError
from scanseg.experiments.scheduler import Job, require_devices, run_on_devices
from scanseg.experiments.statistics import compare, correct
from scanseg.experiments.table import RECORD, TABLE, write_comparison
from scanseg.experiments.trials import OUT_OF_TIME, Trial, named, run_trial, watch_time
from scanseg.files import write_text
from scanseg.models import ModelFolder, check_network
from scanseg.planning import make_plan, store_of
from scanseg.preprocessing import Store
from scanseg.progress import ProgressCallback, ProgressUpdate, ignore_progress
from scanseg.runtime import RunContext, choose_device, choose_workers, keep_workers, warm_up
from scanseg.settings import apply_settings, compare_settings
from scanseg.specs import ArmOutcome, ArmRun, ComparisonArm, ComparisonRecord, ComparisonSpec, Plan, Report
from scanseg.training import REPORT, choose_fold

PLAN, STORES = "plan.json", "stores"


@dataclass(frozen=True)
class ComparisonOptions:
    """How a study is run."""

    devices: tuple[str, ...] = ("auto",)
    """Several train at the same time, each one at a time."""
    num_workers: int | None = None
    stop_after_minutes: float | None = None
    """Stop after this time, as Ctrl-C does."""
    prepare_only: bool = False
    """Plan and preprocess, and train nothing."""


@dataclass(frozen=True)
class _Arm:
    """A arm with its plan and its store."""

    arm: ComparisonArm
    plan: Plan
    store: Store
    folder: Path

    def trials(self, spec: ComparisonSpec) -> dict[tuple[int, int], Trial]:
        """Return the trainings by seed and fold."""
        return {
            (seed, fold): Trial(
                name=f"{self.arm.name}, seed {seed}, fold {fold}",
                plan=apply_settings(self.plan, (f"training.seed={seed}",)),
                folder=self.folder / f"seed_{seed}_fold_{fold}",
                fold=fold,
            )
            for seed in spec.seeds
            for fold in spec.folds
        }


def choose_arms(spec: ComparisonSpec, names: Sequence[str]) -> ComparisonSpec:
    """Return a study of some of its arms.

    Args:
        spec: The study.
        names: Names of the arms, the baseline among them; none: all of them.

    Raises:
        UsageError: There is no such arm, or the study compares nothing any more.
    """
    if not names:
        return spec
    there = {arm.name: arm for arm in spec.all_arms}
    unknown = [name for name in names if name not in there]
    if unknown or spec.baseline_name not in names or len(names) < 2:
        raise UsageError(
            f"arms {', '.join(names)}: choose at least two of {'; '.join(there)}, with the baseline "
            f"{spec.baseline_name} among them"
        )
    chosen = tuple(arm for arm in spec.all_arms if arm.name in names)
    return spec.model_copy(update={"arms": chosen, "grid": {}, "baseline": spec.baseline_name})


def run_comparison(
    spec: ComparisonSpec,
    dataset: Path | None,
    output: Path,
    options: ComparisonOptions,
    *,
    resume: bool,
    progress: ProgressCallback = ignore_progress,
) -> ComparisonRecord:
    """Run a study, or go on with it; write its record, table and figure.

    Trainings come seed by seed, so that all arms stand side by side at any time.

    Args:
        spec: The study.
        dataset: Folder of a raw data set; not needed to go on.
        output: Folder to write.
        options: Where and how long.
        resume: Go on with what is in the output folder; seeds and folds may be added.
        progress: Called with each progress update.

    Raises:
        InputError: The data set is faulty.
        UsageError: A setting is invalid, or the folder holds another study.
        ScansegError: Trainings failed; the others have been trained, and the record written.
        InterruptionError: A signal came; the state has been saved, and the record written.
    """
    if not resume:
        ModelFolder.require_new(output)
    _check_same(spec, output)
    if not options.prepare_only:
        require_devices(options.devices)
    output.mkdir(parents=True, exist_ok=True)
    with warm_up(_own_device(options)):
        arms = _prepare(
            spec, dataset, output, context=RunContext(num_workers=options.num_workers, progress=progress)
        )
    for arm in arms:
        for fold in spec.folds:
            choose_fold(arm.store, fold)
    end: ScansegError | None = None
    if not options.prepare_only:
        with watch_time(options.stop_after_minutes) as stopped:
            try:
                _train(spec, arms, options, context=RunContext(should_stop=stopped, progress=progress))
            except ScansegError as error:
                end = error
    record = summarize_comparison(spec, {arm.arm.name: arm for arm in arms}, output)
    write_comparison(record, output)
    if isinstance(end, (InterruptionError, UsageError)):
        if getattr(end, "signal_number", None) != OUT_OF_TIME:
            raise end
    elif end is not None:
        raise ScansegError(
            f"{end}. What is done is in {output / TABLE}; --resume trains what is still to be done: "
            f"{len(record.waiting)} of {len(record.waiting) + sum(len(arm.runs) for arm in record.arms)}"
        )
    return record


def _own_device(options: ComparisonOptions) -> torch.device | None:
    """Return the device on which this process trains; it is woken before the first training, whose clock would tell."""
    if options.prepare_only or len(options.devices) > 1:
        return None
    return choose_device(options.devices[0])


def _check_same(spec: ComparisonSpec, output: Path) -> None:
    """Refuse to go on as another study; seeds and folds may be added."""
    if not (output / RECORD).is_file():
        return
    there = ComparisonRecord.read(output / RECORD).spec
    free = {"seeds": spec.seeds, "folds": spec.folds, "title": spec.title, "question": spec.question}
    faults = compare_settings(there.model_copy(update=free), spec)
    if faults:
        raise UsageError(f"{output} holds a study where {'; '.join(faults)}; choose another output")


@keep_workers()
def _prepare(spec: ComparisonSpec, dataset: Path | None, output: Path, *, context: RunContext) -> list[_Arm]:
    """Plan every arm, or read its plan; make the stores."""
    arms, planned = [], dict[str, Plan]()
    minutes = () if spec.max_minutes is None else (f"training.max_minutes={spec.max_minutes}",)
    for arm in spec.all_arms:
        folder = output / _slug(arm.name)
        path, recipe = folder / PLAN, arm.recipe or spec.recipe
        if path.is_file():
            plan = Plan.read(path)
        elif dataset is None:
            raise UsageError(f"{output} holds no plan of {arm.name}; give the folder of the data set")
        else:
            if recipe not in planned:
                planned[recipe] = make_plan(dataset, recipe=recipe, like=None, settings=(), context=context)
            plan = apply_settings(planned[recipe], (*spec.settings, *minutes, *arm.settings))
            check_network(plan)
            folder.mkdir(parents=True, exist_ok=True)
            write_text(path, plan.to_json())
        store = store_of(plan, dataset or path, output / STORES, context=context)
        arms.append(_Arm(arm, plan, store, folder))
    return arms


def _train(
    spec: ComparisonSpec, arms: Sequence[_Arm], options: ComparisonOptions, *, context: RunContext
) -> None:
    """Train what is still to be trained; where one fails the others go on, and all that failed is told at the end."""
    trials = [
        (arm.trials(spec)[seed, fold], arm.store)
        for seed in spec.seeds
        for fold in spec.folds
        for arm in arms
    ]
    if len(options.devices) > 1:
        waiting = {_job(trial, store, options): trial for trial, store in trials if not trial.is_done}
        done = count(1)
        run_on_devices(
            list(waiting),
            options.devices,
            ended=lambda job: context.progress(
                ProgressUpdate("trainings", next(done), len(waiting), waiting[job].name)
            ),
            stopped=context.should_stop,
        )
        return
    failures = []
    for trial, store in trials:
        try:
            run_trial(
                trial,
                store,
                context=replace(
                    context,
                    device=options.devices[0],
                    num_workers=choose_workers(options.num_workers),
                    progress=named(context.progress, trial.name),
                ),
            )
        except (InterruptionError, UsageError):
            raise
        except ScansegError as error:
            failures.append(f"{trial.name}: {error}")
    if failures:
        raise ScansegError("; ".join(failures))


def _job(trial: Trial, store: Store, options: ComparisonOptions) -> Job:
    """Return the command of a training in a process of its own."""
    plan = trial.folder.with_name(f"{trial.folder.name}.plan.json")
    write_text(plan, trial.plan.to_json())
    words = [sys.executable, "-m", "scanseg", "train", str(plan), "-o", str(trial.folder)]
    words += ["--fold", str(trial.fold), "--store", str(store.folder.parent)]
    if options.num_workers is not None:
        words += ["--num-workers", str(options.num_workers)]
    if (trial.folder / PLAN).is_file():
        words.append("--resume")
    return Job(trial.name, tuple(words))


def summarize_comparison(spec: ComparisonSpec, arms: Mapping[str, _Arm], output: Path) -> ComparisonRecord:
    """Put together what the trainings that are done have given.

    Args:
        spec: The study.
        arms: Its arms by name.
        output: Folder of the study.
    """
    outcomes, cases, by_seed, waiting = [], {}, {}, []
    for name, arm in arms.items():
        trials = arm.trials(spec)
        done = {
            key: trial for key, trial in trials.items() if trial.is_done and _report_path(trial).is_file()
        }
        waiting += [trial.name for key, trial in trials.items() if key not in done]
        reports = {key: Report.read(_report_path(trial)) for key, trial in done.items()}
        outcome = _outcome(arm, done, reports, output=output)
        outcomes.append(outcome)
        cases[name] = _case_dice(list(reports.values()))
        by_seed[name] = _by_seed(outcome, spec)
    base = spec.baseline_name
    comparisons = correct(
        [
            compare(name, base, cases=(cases[name], cases[base]), by_seed=(by_seed[name], by_seed[base]))
            for name in arms
            if name != base
        ]
    )
    return ComparisonRecord(
        spec=spec,
        dataset=next(iter(arms.values())).plan.dataset.name,
        arms=tuple(outcomes),
        comparisons=comparisons,
        waiting=tuple(waiting),
    )


def _outcome(
    arm: _Arm,
    done: Mapping[tuple[int, int], Trial],
    reports: Mapping[tuple[int, int], Report],
    *,
    output: Path,
) -> ArmOutcome:
    """Return the trainings of a arm and their means."""
    runs, parameters = [], 0
    for (seed, fold), trial in done.items():
        record = ModelFolder.open(trial.folder).read_run()
        if record is None:
            raise InputError(f"{trial.folder}: its run.json is gone; delete the folder, and train it again")
        parameters = record.num_parameters
        runs.append(
            ArmRun(
                seed=seed,
                fold=fold,
                model=trial.folder.relative_to(output).as_posix(),
                mean_dice=reports[seed, fold].summary.mean_over_labels.dice,
                epochs_done=record.epochs_done,
                seconds=record.training_seconds,
            )
        )
    dice = [run.mean_dice for run in runs if run.mean_dice is not None]
    by_seed = _seed_means(runs)
    labels = [report.summary.label_means() for report in reports.values()]
    return ArmOutcome(
        name=arm.arm.name,
        settings=arm.arm.settings,
        num_parameters=parameters,
        runs=tuple(runs),
        mean_dice=mean(dice) if dice else None,
        std=stdev(dice) if len(dice) > 1 else None,
        seed_std=stdev(by_seed.values()) if len(by_seed) > 1 else None,
        labels={name: _mean([each[name] for each in labels]) for name in arm.plan.dataset.foreground},
    )


def _seed_means(runs: Sequence[ArmRun]) -> dict[int, float]:
    """Return the mean Dice of each seed over its folds."""
    found: dict[int, list[float]] = {}
    for run in runs:
        if run.mean_dice is not None:
            found.setdefault(run.seed, []).append(run.mean_dice)
    return {seed: mean(values) for seed, values in found.items()}


def _by_seed(outcome: ArmOutcome, spec: ComparisonSpec) -> list[float]:
    """Return the mean Dice of each seed that has been trained on all folds."""
    complete = {
        seed
        for seed in spec.seeds
        if {run.fold for run in outcome.runs if run.seed == seed} >= set(spec.folds)
    }
    return list(_seed_means([run for run in outcome.runs if run.seed in complete]).values())


def _case_dice(reports: Sequence[Report]) -> dict[str, float]:
    """Return the Dice of each case: the mean over the labels counted in it, and over the trainings that scored it."""
    found: dict[str, list[float]] = {}
    for report in reports:
        for case in report.cases:
            dice = _mean([label.dice for label in case.labels.values()])
            if dice is not None:
                found.setdefault(case.case, []).append(dice)
    return {name: mean(values) for name, values in found.items()}


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return mean(there) if there else None


def _report_path(trial: Trial) -> Path:
    return trial.folder / REPORT


def _slug(name: str) -> str:
    """Return a name as the name of a folder."""
    return re.sub(r"[^a-z0-9]+", "-", name.casefold()).strip("-") or "arm"
