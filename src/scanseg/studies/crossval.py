"""Cross-validation: every fold of one or more ways to plan, the best of them, and its folds as one model."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from scanseg.data.store import Store
from scanseg.data.workers import choose_workers
from scanseg.errors import InputError, UsageError
from scanseg.files import write_text
from scanseg.models import ModelFolder, write_ensemble
from scanseg.progress import Progress, ProgressListener, ignore_progress
from scanseg.settings import apply_settings, compare_settings
from scanseg.specs import (
    ConfigurationOutcome,
    CrossValidationRecord,
    EnsembleSpec,
    FoldOutcome,
    Plan,
    Report,
    RunRecord,
    Splits,
)
from scanseg.studies.on_devices import Job, run_on_devices
from scanseg.studies.postprocessing import PredictedCase, choose_postprocessing, mean, report_of
from scanseg.studies.preparation import DEFAULT_RECIPE, known_splits, plan_of, store_of
from scanseg.studies.single import TrainingOptions, stores_of, train
from scanseg.training.processes import count_launched
from scanseg.training.standing import mean_dice
from scanseg.training.validation import REPORT, prediction_path

RECORD = "crossval.json"
_PLAN = "plan.json"


@dataclass(frozen=True)
class CrossValidationResult:
    """What a cross-validation gives."""

    model: Path
    """The study's folder, which predicts as one model."""
    record: CrossValidationRecord


@dataclass(frozen=True, eq=False)
class _Configuration:
    """One way to plan, and where its folds are trained."""

    name: str
    folder: Path
    plan: Plan
    store: Store

    @property
    def folds(self) -> range:
        """Numbers of the folds."""
        return range(len(self.store.index.splits.folds))

    def model(self, fold: int) -> Path:
        """Return the model folder of a fold."""
        return self.folder / f"fold_{fold}"


def cross_validate(
    source: Path,
    output: Path,
    options: TrainingOptions,
    *,
    recipes: Sequence[str],
    devices: Sequence[str],
    resume: bool,
    listen: ProgressListener = ignore_progress,
) -> CrossValidationResult:
    """Train every fold and make of them one model. See `scanseg.cross_validate`."""
    if source.is_file() and recipes:
        raise UsageError(f"{source} is a plan and has its recipe; --recipe is for a data set's folder.")
    if len(set(recipes)) < len(recipes):
        raise UsageError(f"recipes {', '.join(recipes)}: one is given twice")
    if count_launched() > 1:
        raise UsageError("a cross-validation is one process: start it without torchrun, and with --devices")
    if not resume:
        ModelFolder.require_new(output)
    names = _names(source, output, recipes, initial_weights=options.initial_weights)
    options = replace(options, store=stores_of(output, options))
    splits = known_splits(source)
    if splits is not None:
        _check_folds(splits, where=source)
    folders = [output / name if len(names) > 1 else output for name in names]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    takes_recipe = source.is_dir() and (bool(recipes) or options.initial_weights is None)
    configurations = [
        _configure(
            source,
            folder,
            name,
            replace(options, recipe=name if takes_recipe else None),
            resume=resume,
            listen=listen,
        )
        for name, folder in zip(names, folders, strict=True)
    ]
    for each in configurations:
        _check_folds(each.store.index.splits, where=each.store.folder)
    options = replace(options, initial_weights=_begun_weights(configurations, options))
    _train_all(configurations, options, devices=devices, listen=listen)
    workers = choose_workers(options.num_workers)
    outcomes = [_judge(each, output, num_workers=workers, listen=listen) for each in configurations]
    best = max(range(len(outcomes)), key=lambda number: outcomes[number].postprocessed_mean_dice or 0.0)
    chosen, outcome = configurations[best], outcomes[best]
    report = report_of(
        _predicted(chosen), chosen.store, outcome.postprocessing, num_workers=workers, listen=listen
    )
    write_text(output / REPORT, report.to_json())
    record = CrossValidationRecord(
        dataset=chosen.plan.dataset.name,
        num_cases=report.summary.num_cases,
        configurations=tuple(outcomes),
        chosen=chosen.name,
    )
    members = tuple(chosen.model(fold).relative_to(output).as_posix() for fold in chosen.folds)
    write_ensemble(output, EnsembleSpec(members=members, postprocessing=outcome.postprocessing))
    write_text(output / RECORD, record.to_json())
    return CrossValidationResult(output, record)


def _check_folds(splits: Splits, *, where: Path) -> None:
    """Make sure that every fold can be scored.

    Raises:
        InputError: Some have no validation cases; they are named.
    """
    bare = [number for number, fold in enumerate(splits.folds) if not fold.validation]
    if bare:
        folds = f"fold {bare[0]} has" if len(bare) == 1 else f"folds {', '.join(map(str, bare))} have"
        raise InputError(
            f"{where}: {folds} no validation cases ({splits.source}), and a cross-validation scores every fold. Name "
            f"cases there, or remove the fold; scanseg train --fold trains one without a score."
        )


def _names(
    source: Path, output: Path, recipes: Sequence[str], *, initial_weights: Path | None
) -> Sequence[str]:
    """Name the configurations of a study that begins, or goes on.

    Raises:
        UsageError: It goes on, and began with other recipes.
    """
    plan = output / _PLAN
    begun = [] if plan.is_file() else _begun_recipes(output)
    if begun and (source.is_file() or not set(begun) <= set(recipes or begun)):
        raise UsageError(
            f"{output} is a study of {', '.join(begun)}. Go on with all of them (leave --recipe out, and give the "
            f"data set's folder), or begin anew in another folder."
        )
    if plan.is_file() and len(recipes) > 1:
        raise UsageError(
            f"{output} is a study of {Plan.read(plan).recipe} alone. Leave --recipe out, or begin anew in another "
            f"folder."
        )
    if recipes or begun:
        return recipes or begun
    if source.is_file():
        return [source.stem]
    if plan.is_file():
        return [Plan.read(plan).recipe]
    return [DEFAULT_RECIPE if initial_weights is None else ModelFolder.open(initial_weights).plan.recipe]


def _begun_recipes(output: Path) -> list[str]:
    """Return the recipes of a study of several that has begun; each has a folder."""
    from scanseg.planning import RECIPES

    return [name for name in RECIPES if (output / name).is_dir()]


def _begun_weights(configurations: Sequence[_Configuration], options: TrainingOptions) -> Path | None:
    """Return the weights with which all folds begin: those of the folds that have begun, if there are any.

    Raises:
        UsageError: They began with others than those that were given.
    """
    folders = [each.model(fold) for each in configurations for fold in each.folds]
    records = [ModelFolder.open(path).read_run() for path in folders if (path / _PLAN).is_file()]
    begun = {record.initial_weights for record in records if record is not None}
    given = None if options.initial_weights is None else str(options.initial_weights)
    if given is not None and not begun <= {given}:
        others = ", ".join(sorted(name or "random ones" for name in begun - {given}))
        raise UsageError(
            f"--resume goes on with folds whose weights to begin with were {others}, not {given}. Leave "
            f"--initial-weights out, or begin anew in another folder."
        )
    return Path(name) if len(begun) == 1 and (name := next(iter(begun))) else options.initial_weights


def _configure(
    source: Path,
    folder: Path,
    name: str,
    options: TrainingOptions,
    *,
    resume: bool,
    listen: ProgressListener,
) -> _Configuration:
    """Make a configuration's plan and store; one that goes on has its plan."""
    path = folder / _PLAN
    if resume and path.is_file():
        plan = _begun_plan(path, options)
    else:
        plan = plan_of(
            source,
            recipe=options.recipe,
            like=options.initial_weights,
            settings=options.settings,
            num_workers=options.num_workers,
            listen=listen,
        )
        write_text(path, plan.to_json())
    assert options.store is not None
    store = store_of(plan, source, options.store, num_workers=options.num_workers, listen=listen)
    return _Configuration(name, folder, plan, store)


def _begun_plan(path: Path, options: TrainingOptions) -> Plan:
    """Read the plan of a study that goes on; refuse what would make it another study."""
    plan = Plan.read(path)
    faults = compare_settings(plan, apply_settings(plan, options.settings))
    if options.recipe not in (None, plan.recipe):
        faults.append(f"recipe is {plan.recipe}, not {options.recipe}")
    if faults:
        raise UsageError(
            f"--resume goes on with the study of {path}, where {'; '.join(faults)}. Leave these options out, or "
            f"begin anew in another folder."
        )
    return plan


def _train_all(
    configurations: Sequence[_Configuration],
    options: TrainingOptions,
    *,
    devices: Sequence[str],
    listen: ProgressListener,
) -> None:
    """Train every fold that is not done, one after the other or each device one at a time."""
    waiting = [(each, fold) for each in configurations for fold in each.folds if not _is_done(each, fold)]
    if len(devices) < 2:
        options = replace(options, device=devices[0]) if devices else options
        for each, fold in waiting:
            model = each.model(fold)
            train(
                each.folder / _PLAN,
                model,
                replace(options, recipe=None, settings=()),
                fold=fold,
                resume=(model / _PLAN).is_file(),
                keep_predictions=True,
                listen=_named(listen, f"{each.name} fold {fold}"),
            )
        return
    jobs = {
        Job(f"the training in {each.model(fold)}", _command(each, fold, options)): (each, fold)
        for each, fold in waiting
    }
    done: list[Job] = []

    def tell(running: Sequence[Job]) -> None:
        listen(Progress("folds", len(done), len(jobs), "; ".join(_standing(*jobs[job]) for job in running)))

    def end(job: Job) -> None:
        done.append(job)
        tell([job])

    tell([])
    run_on_devices(list(jobs), devices, ended=end, running=tell)


def _standing(configuration: _Configuration, fold: int) -> str:
    """Say how far a fold is: the last line of its metrics."""
    name, model = f"{configuration.name} fold {fold}", configuration.model(fold)
    metrics = ModelFolder.open(model).read_metrics() if (model / _PLAN).is_file() else []
    if not metrics:
        return name
    last = metrics[-1]
    measured = [line["validation_dice"] for line in metrics if isinstance(line.get("validation_dice"), dict)]
    said = f"{name}: epoch {last['epoch']}/{configuration.plan.training.epochs}, loss {last['loss']:.3f}"
    if not measured:
        return said
    dice = mean_dice(cast(dict[str, float | None], measured[-1]))
    return said if dice is None else f"{said}, Dice {dice:.3f}"


def _command(configuration: _Configuration, fold: int, options: TrainingOptions) -> tuple[str, ...]:
    """Return the command that trains a fold."""
    model = configuration.model(fold)
    words = [sys.executable, "-m", "scanseg", "train", str(configuration.folder / _PLAN), "-o", str(model)]
    words += ["--fold", str(fold), "--store", str(options.store), "--keep-predictions"]
    if options.num_workers is not None:
        words += ["--num-workers", str(options.num_workers)]
    if options.initial_weights is not None:
        words += ["--initial-weights", str(options.initial_weights)]
    return (*words, "--resume") if (model / _PLAN).is_file() else tuple(words)


def _named(listen: ProgressListener, name: str) -> ProgressListener:
    """Return a listener that says of which training it hears."""

    def hear(progress: Progress) -> None:
        listen(replace(progress, detail=f"{name}, {progress.detail}" if progress.detail else name))

    return hear


def _is_done(configuration: _Configuration, fold: int) -> bool:
    """Whether a fold is trained, its validation cases predicted and scored."""
    path = configuration.model(fold)
    if not (path / _PLAN).is_file() or not (path / REPORT).is_file():
        return False
    folder = ModelFolder.open(path)
    record = folder.read_run()
    return (
        record is not None
        and record.status == "finished"
        and all(prediction_path(folder, case).is_file() for case in record.validation_cases)
    )


def _predicted(configuration: _Configuration) -> list[PredictedCase]:
    """Return the validation cases of all folds with their label maps."""
    folders = [ModelFolder.open(configuration.model(fold)) for fold in configuration.folds]
    return [
        PredictedCase(case, prediction_path(folder, case))
        for folder in folders
        for case in _record_of(folder).validation_cases
    ]


def _record_of(folder: ModelFolder) -> RunRecord:
    """Return the record of a training.

    Raises:
        InputError: It is gone.
    """
    record = folder.read_run()
    if record is None:
        raise InputError(
            f"{folder.path}: its run.json is gone; delete the folder, and train the fold again by --resume."
        )
    return record


def _judge(
    configuration: _Configuration, study: Path, *, num_workers: int, listen: ProgressListener
) -> ConfigurationOutcome:
    """Score a configuration by the validation cases of all its folds."""
    choice = choose_postprocessing(
        _predicted(configuration), configuration.store, num_workers=num_workers, listen=listen
    )
    outcomes = []
    for fold in configuration.folds:
        folder = ModelFolder.open(configuration.model(fold))
        record = _record_of(folder)
        report = Report.read(folder.path / REPORT)
        outcomes.append(
            FoldOutcome(
                fold=fold,
                model=folder.path.relative_to(study).as_posix(),
                epochs_done=record.epochs_done,
                seconds=record.training_seconds,
                mean_dice=report.summary.mean_over_labels.dice,
            )
        )
    return ConfigurationOutcome(
        name=configuration.name,
        folds=tuple(outcomes),
        labels=dict(choice.before),
        mean_dice=mean(list(choice.before.values())),
        postprocessing=choice.postprocessing,
        postprocessed_labels=dict(choice.after),
        postprocessed_mean_dice=mean(list(choice.after.values())),
    )
