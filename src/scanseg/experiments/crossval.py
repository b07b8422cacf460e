"""Cross-validation: every fold of one or more ways to plan; the best of them, or of their pairs, as one model."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from scanseg.errors import InputError, UsageError
from scanseg.experiments.configuration import PLAN, Configuration
from scanseg.experiments.fold_trainings import train_all
from scanseg.experiments.pairs import Pair, predict_pairs
from scanseg.experiments.postprocessing import choose_postprocessing, mean, report_of
from scanseg.experiments.scheduler import require_devices
from scanseg.experiments.single import TrainingOptions, stores_of
from scanseg.files import write_text
from scanseg.models import ModelFolder, write_ensemble
from scanseg.planning import DEFAULT_RECIPE, known_splits, plan_of, store_of
from scanseg.preprocessing import Store
from scanseg.progress import ProgressCallback, ignore_progress
from scanseg.runtime import RunContext, choose_workers, count_launched, keep_workers
from scanseg.settings import apply_settings, compare_settings, several
from scanseg.specs import (
    ConfigurationOutcome,
    CrossValidationRecord,
    EnsembleOutcome,
    EnsembleSpec,
    Plan,
    PostprocessingSpec,
    ScoredOutcome,
    Splits,
)
from scanseg.training import REPORT

RECORD = "crossval.json"
_CASCADE = "cascade."


@dataclass(frozen=True)
class CrossValidationResult:
    """What a cross-validation gives."""

    model: Path
    """The study's folder, which predicts as one model."""
    record: CrossValidationRecord


def cross_validate(
    source: Path,
    output: Path,
    options: TrainingOptions,
    *,
    recipes: Sequence[str],
    devices: Sequence[str],
    ensembles: bool,
    resume: bool,
    progress: ProgressCallback = ignore_progress,
) -> CrossValidationResult:
    """Train every fold and make of them one model. See `scanseg.cross_validate`."""
    recipes, devices = several(recipes), several(devices)
    if source.is_file() and recipes:
        raise UsageError(f"{source} is a plan and has its recipe; --recipe is for a data set's folder.")
    if len(set(recipes)) < len(recipes):
        raise UsageError(f"recipes {', '.join(recipes)}: one is given twice")
    if count_launched() > 1:
        raise UsageError("a cross-validation is one process: start it without torchrun, and with --devices")
    require_devices(devices or (options.device,))
    if not resume:
        ModelFolder.require_new(output)
    elif not output.is_dir() or not any(output.iterdir()):
        raise UsageError(
            f"nothing to go on with in {output}; give the folder of a study, or leave --resume out"
        )
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
            alone=len(names) == 1,
            resume=resume,
            progress=progress,
        )
        for name, folder in zip(names, folders, strict=True)
    ]
    for each in configurations:
        _check_folds(each.store.index.splits, where=each.store.folder)
    _check_cascades(configurations, options)
    options = replace(options, initial_weights=_begun_weights(configurations, options))
    train_all(configurations, options, devices=devices, progress=progress)
    pairs = (
        predict_pairs(configurations, output, devices=devices, progress=progress)
        if ensembles and len(configurations) > 1
        else []
    )
    record = _judge_all(
        configurations,
        pairs,
        output,
        context=RunContext(num_workers=choose_workers(options.num_workers), progress=progress),
    )
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
    plan = output / PLAN
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


def _begun_weights(configurations: Sequence[Configuration], options: TrainingOptions) -> Path | None:
    """Return the weights with which all folds begin: those of the folds that have begun, if there are any.

    Raises:
        UsageError: They began with others than those that were given.
    """
    folders = [each.model(fold) for each in configurations for fold in each.folds]
    records = [ModelFolder.open(path).read_run() for path in folders if (path / PLAN).is_file()]
    begun = {record.initial_weights for record in records if record is not None}
    given = None if options.initial_weights is None else str(options.initial_weights)
    if given is not None and not begun <= {given}:
        others = ", ".join(sorted(name or "random ones" for name in begun - {given}))
        raise UsageError(
            f"--resume goes on with folds whose weights to begin with were {others}, not {given}. Leave "
            f"--initial-weights out, or begin anew in another folder."
        )
    return Path(name) if len(begun) == 1 and (name := next(iter(begun))) else options.initial_weights


@keep_workers()
def _configure(
    source: Path,
    folder: Path,
    name: str,
    options: TrainingOptions,
    *,
    alone: bool,
    resume: bool,
    progress: ProgressCallback,
) -> Configuration:
    """Make a configuration's plan and store; one that goes on has its plan.

    Beside others, settings of a cascade are for those that have one.
    """
    path = folder / PLAN
    cascade = [] if alone else [each for each in options.settings if each.startswith(_CASCADE)]
    options = replace(options, settings=tuple(each for each in options.settings if each not in cascade))
    if resume and path.is_file():
        plan = _begun_plan(path, options, cascade=cascade)
    else:
        plan = plan_of(
            source,
            recipe=options.recipe,
            like=options.initial_weights,
            settings=options.settings,
            context=RunContext(num_workers=options.num_workers, progress=progress),
        )
        plan = plan if plan.cascade is None else apply_settings(plan, cascade)
        write_text(path, plan.to_json())
    assert options.store is not None
    store = store_of(
        plan, source, options.store, context=RunContext(num_workers=options.num_workers, progress=progress)
    )
    return Configuration(name, folder, plan, store)


def _check_cascades(configurations: Sequence[Configuration], options: TrainingOptions) -> None:
    """Make sure that settings of a cascade are for one of the configurations.

    Raises:
        UsageError: None has a cascade.
    """
    asked = [each for each in options.settings if each.startswith(_CASCADE)]
    if asked and all(each.plan.cascade is None for each in configurations):
        raise UsageError(
            f"--set {' --set '.join(asked)}: none of {', '.join(each.name for each in configurations)} has a cascade"
        )


def _begun_plan(path: Path, options: TrainingOptions, *, cascade: Sequence[str]) -> Plan:
    """Read the plan of a study that goes on; refuse what would make it another study."""
    plan = Plan.read(path)
    settings = options.settings if plan.cascade is None else (*options.settings, *cascade)
    faults = compare_settings(plan, apply_settings(plan, settings))
    if options.recipe not in (None, plan.recipe):
        faults.append(f"recipe is {plan.recipe}, not {options.recipe}")
    if faults:
        raise UsageError(
            f"--resume goes on with the study of {path}, where {'; '.join(faults)}. Leave these options out, or "
            f"begin anew in another folder."
        )
    return plan


def _judge_all(
    configurations: Sequence[Configuration], pairs: Sequence[Pair], study: Path, *, context: RunContext
) -> CrossValidationRecord:
    """Score all configurations and pairs, and make the best of them the model of the study."""
    candidates: list[Configuration | Pair] = [*configurations, *pairs]
    store = configurations[0].store
    outcomes = [_judge(each, store, context=context) for each in candidates]
    best = max(range(len(outcomes)), key=lambda number: outcomes[number].postprocessed_mean_dice or 0.0)
    chosen, spec = candidates[best], outcomes[best].postprocessing
    report = report_of(chosen.predicted(), store, spec, context=context)
    write_text(study / REPORT, report.to_json())
    for each, outcome in zip(configurations, outcomes, strict=False):
        folds = tuple(each.model(fold).name for fold in each.folds)
        write_ensemble(each.folder, EnsembleSpec(members=folds, postprocessing=outcome.postprocessing))
    if len(configurations) > 1:
        write_ensemble(study, _ensemble_of(chosen, study, spec))
    return CrossValidationRecord(
        dataset=configurations[0].plan.dataset.name,
        num_cases=report.summary.num_cases,
        configurations=tuple(
            ConfigurationOutcome(**dict(outcome), folds=tuple(each.fold_outcomes(study)))
            for each, outcome in zip(configurations, outcomes, strict=False)
        ),
        ensembles=tuple(
            EnsembleOutcome(**dict(outcome), members=pair.names)
            for pair, outcome in zip(pairs, outcomes[len(configurations) :], strict=True)
        ),
        chosen=chosen.name,
    )


def _judge(candidate: Configuration | Pair, store: Store, *, context: RunContext) -> ScoredOutcome:
    """Score a way to plan, or a pair, by the validation cases of all folds."""
    choice = choose_postprocessing(candidate.predicted(), store, context=context)
    return ScoredOutcome(
        name=candidate.name,
        labels=dict(choice.before),
        mean_dice=mean(list(choice.before.values())),
        postprocessing=choice.postprocessing,
        postprocessed_labels=dict(choice.after),
        postprocessed_mean_dice=mean(list(choice.after.values())),
    )


def _ensemble_of(chosen: Configuration | Pair, study: Path, spec: PostprocessingSpec) -> EnsembleSpec:
    """Return what makes the study's folder the model that was chosen."""
    if isinstance(chosen, Pair):
        return EnsembleSpec(members=chosen.names, average="probabilities", postprocessing=spec)
    members = tuple(chosen.model(fold).relative_to(study).as_posix() for fold in chosen.folds)
    return EnsembleSpec(members=members, postprocessing=spec)
