"""Run a study: every cell of a grid with every seed on every fold, and what that says."""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from statistics import mean, stdev

import torch

from scanseg.errors import InputError, InterruptionError, ScansegError, UsageError
from scanseg.experiments.scheduler import Job, require_devices, run_on_devices
from scanseg.experiments.statistics import compare, correct
from scanseg.experiments.table import RECORD, TABLE, write_study
from scanseg.experiments.trials import OUT_OF_TIME, Stopped, Trial, named, run_trial, watch_time
from scanseg.files import write_text
from scanseg.models import ModelFolder, check_network
from scanseg.planning import make_plan, store_of
from scanseg.preprocessing import Store
from scanseg.progress import ProgressCallback, ProgressUpdate, ignore_progress
from scanseg.runtime import choose_device, choose_workers, keeping_workers, warm_up
from scanseg.settings import apply_settings, compare_settings
from scanseg.specs import CellOutcome, Plan, Report, StudyCell, StudyRecord, StudyRun, StudySpec
from scanseg.training import REPORT, choose_fold

PLAN, STORES = "plan.json", "stores"


@dataclass(frozen=True)
class StudyOptions:
    """How a study is run."""

    devices: tuple[str, ...] = ("auto",)
    """Several train at the same time, each one at a time."""
    num_workers: int | None = None
    stop_after_minutes: float | None = None
    """Stop after this time, as Ctrl-C does."""
    prepare_only: bool = False
    """Plan and preprocess, and train nothing."""


@dataclass(frozen=True)
class _Cell:
    """A cell with its plan and its store."""

    cell: StudyCell
    plan: Plan
    store: Store
    folder: Path

    def trials(self, spec: StudySpec) -> dict[tuple[int, int], Trial]:
        """Return the trainings by seed and fold."""
        return {
            (seed, fold): Trial(
                name=f"{self.cell.name}, seed {seed}, fold {fold}",
                plan=apply_settings(self.plan, (f"training.seed={seed}",)),
                folder=self.folder / f"seed_{seed}_fold_{fold}",
                fold=fold,
            )
            for seed in spec.seeds
            for fold in spec.folds
        }


def choose_cells(spec: StudySpec, names: Sequence[str]) -> StudySpec:
    """Return a study of some of its cells.

    Args:
        spec: The study.
        names: Names of the cells, the baseline among them; none: all of them.

    Raises:
        UsageError: There is no such cell, or the study compares nothing any more.
    """
    if not names:
        return spec
    there = {cell.name: cell for cell in spec.all_cells}
    unknown = [name for name in names if name not in there]
    if unknown or spec.baseline_name not in names or len(names) < 2:
        raise UsageError(
            f"cells {', '.join(names)}: choose at least two of {'; '.join(there)}, with the baseline "
            f"{spec.baseline_name} among them"
        )
    chosen = tuple(cell for cell in spec.all_cells if cell.name in names)
    return spec.model_copy(update={"cells": chosen, "grid": {}, "baseline": spec.baseline_name})


def run_study(
    spec: StudySpec,
    dataset: Path | None,
    output: Path,
    options: StudyOptions,
    *,
    resume: bool,
    progress: ProgressCallback = ignore_progress,
) -> StudyRecord:
    """Run a study, or go on with it; write its record, table and figure.

    Trainings come seed by seed, so that all cells stand side by side at any time.

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
        cells = _prepare(spec, dataset, output, num_workers=options.num_workers, progress=progress)
    for cell in cells:
        for fold in spec.folds:
            choose_fold(cell.store, fold)
    end: ScansegError | None = None
    if not options.prepare_only:
        with watch_time(options.stop_after_minutes) as stopped:
            try:
                _train(spec, cells, options, stopped=stopped, progress=progress)
            except ScansegError as error:
                end = error
    record = summarise_study(spec, {cell.cell.name: cell for cell in cells}, output)
    write_study(record, output)
    if isinstance(end, (InterruptionError, UsageError)):
        if getattr(end, "signal_number", None) != OUT_OF_TIME:
            raise end
    elif end is not None:
        raise ScansegError(
            f"{end}. What is done is in {output / TABLE}; --resume trains what is still to be done: "
            f"{len(record.waiting)} of {len(record.waiting) + sum(len(cell.runs) for cell in record.cells)}"
        )
    return record


def _own_device(options: StudyOptions) -> torch.device | None:
    """Return the device on which this process trains; it is woken before the first training, whose clock would tell."""
    if options.prepare_only or len(options.devices) > 1:
        return None
    return choose_device(options.devices[0])


def _check_same(spec: StudySpec, output: Path) -> None:
    """Refuse to go on as another study; seeds and folds may be added."""
    if not (output / RECORD).is_file():
        return
    there = StudyRecord.read(output / RECORD).spec
    free = {"seeds": spec.seeds, "folds": spec.folds, "title": spec.title, "question": spec.question}
    faults = compare_settings(there.model_copy(update=free), spec)
    if faults:
        raise UsageError(f"{output} holds a study where {'; '.join(faults)}; choose another output")


@keeping_workers()
def _prepare(
    spec: StudySpec,
    dataset: Path | None,
    output: Path,
    *,
    num_workers: int | None,
    progress: ProgressCallback,
) -> list[_Cell]:
    """Plan every cell, or read its plan; make the stores."""
    cells, planned = [], dict[str, Plan]()
    minutes = () if spec.max_minutes is None else (f"training.max_minutes={spec.max_minutes}",)
    for cell in spec.all_cells:
        folder = output / _slug(cell.name)
        path, recipe = folder / PLAN, cell.recipe or spec.recipe
        if path.is_file():
            plan = Plan.read(path)
        elif dataset is None:
            raise UsageError(f"{output} holds no plan of {cell.name}; give the folder of the data set")
        else:
            if recipe not in planned:
                planned[recipe] = make_plan(
                    dataset, recipe=recipe, like=None, settings=(), num_workers=num_workers, progress=progress
                )
            plan = apply_settings(planned[recipe], (*spec.settings, *minutes, *cell.settings))
            check_network(plan)
            folder.mkdir(parents=True, exist_ok=True)
            write_text(path, plan.to_json())
        store = store_of(plan, dataset or path, output / STORES, num_workers=num_workers, progress=progress)
        cells.append(_Cell(cell, plan, store, folder))
    return cells


def _train(
    spec: StudySpec,
    cells: Sequence[_Cell],
    options: StudyOptions,
    *,
    stopped: Stopped,
    progress: ProgressCallback,
) -> None:
    """Train what is still to be trained; where one fails the others go on, and all that failed is told at the end."""
    trials = [
        (cell.trials(spec)[seed, fold], cell.store)
        for seed in spec.seeds
        for fold in spec.folds
        for cell in cells
    ]
    if len(options.devices) > 1:
        waiting = {_job(trial, store, options): trial for trial, store in trials if not trial.is_done}
        done = count(1)
        run_on_devices(
            list(waiting),
            options.devices,
            ended=lambda job: progress(
                ProgressUpdate("trainings", next(done), len(waiting), waiting[job].name)
            ),
            stopped=stopped,
        )
        return
    failures = []
    for trial, store in trials:
        try:
            run_trial(
                trial,
                store,
                device=options.devices[0],
                num_workers=choose_workers(options.num_workers),
                stopped=stopped,
                progress=named(progress, trial.name),
            )
        except (InterruptionError, UsageError):
            raise
        except ScansegError as error:
            failures.append(f"{trial.name}: {error}")
    if failures:
        raise ScansegError("; ".join(failures))


def _job(trial: Trial, store: Store, options: StudyOptions) -> Job:
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


def summarise_study(spec: StudySpec, cells: Mapping[str, _Cell], output: Path) -> StudyRecord:
    """Put together what the trainings that are done have given.

    Args:
        spec: The study.
        cells: Its cells by name.
        output: Folder of the study.
    """
    outcomes, cases, by_seed, waiting = [], {}, {}, []
    for name, cell in cells.items():
        trials = cell.trials(spec)
        done = {
            key: trial for key, trial in trials.items() if trial.is_done and _report_path(trial).is_file()
        }
        waiting += [trial.name for key, trial in trials.items() if key not in done]
        reports = {key: Report.read(_report_path(trial)) for key, trial in done.items()}
        outcome = _outcome(cell, done, reports, output=output)
        outcomes.append(outcome)
        cases[name] = _case_dice(list(reports.values()))
        by_seed[name] = _by_seed(outcome, spec)
    base = spec.baseline_name
    comparisons = correct(
        [
            compare(name, base, cases=(cases[name], cases[base]), by_seed=(by_seed[name], by_seed[base]))
            for name in cells
            if name != base
        ]
    )
    return StudyRecord(
        spec=spec,
        dataset=next(iter(cells.values())).plan.dataset.name,
        cells=tuple(outcomes),
        comparisons=comparisons,
        waiting=tuple(waiting),
    )


def _outcome(
    cell: _Cell,
    done: Mapping[tuple[int, int], Trial],
    reports: Mapping[tuple[int, int], Report],
    *,
    output: Path,
) -> CellOutcome:
    """Return the trainings of a cell and their means."""
    runs, parameters = [], 0
    for (seed, fold), trial in done.items():
        record = ModelFolder.open(trial.folder).read_run()
        if record is None:
            raise InputError(f"{trial.folder}: its run.json is gone; delete the folder, and train it again")
        parameters = record.num_parameters
        runs.append(
            StudyRun(
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
    return CellOutcome(
        name=cell.cell.name,
        settings=cell.cell.settings,
        num_parameters=parameters,
        runs=tuple(runs),
        mean_dice=mean(dice) if dice else None,
        std=stdev(dice) if len(dice) > 1 else None,
        seed_std=stdev(by_seed.values()) if len(by_seed) > 1 else None,
        labels={name: _mean([each[name] for each in labels]) for name in cell.plan.dataset.foreground},
    )


def _seed_means(runs: Sequence[StudyRun]) -> dict[int, float]:
    """Return the mean Dice of each seed over its folds."""
    found: dict[int, list[float]] = {}
    for run in runs:
        if run.mean_dice is not None:
            found.setdefault(run.seed, []).append(run.mean_dice)
    return {seed: mean(values) for seed, values in found.items()}


def _by_seed(outcome: CellOutcome, spec: StudySpec) -> list[float]:
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
    return re.sub(r"[^a-z0-9]+", "-", name.casefold()).strip("-") or "cell"
