"""Cross-validation: train every fold, and choose the best recipe or pair."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from scanseg.errors import InputError, UsageError
from scanseg.experiments.configuration import Configuration
from scanseg.experiments.job import check_same_folds
from scanseg.experiments.pairs import Pair, predict_pairs
from scanseg.experiments.postprocessing import choose_postprocessing, mean, score_postprocessed
from scanseg.experiments.scheduler import require_devices, run_jobs
from scanseg.experiments.single import default_stores
from scanseg.files import make_folder, write_text
from scanseg.models import PLAN_FILE, SETUP_FILE, VALIDATION_FILE, ModelFolder, write_ensemble
from scanseg.planning import (
    RECIPES,
    PlanRequest,
    TrainingSource,
    find_known_splits,
    find_plan,
    prepare_store,
)
from scanseg.preprocessing import Store
from scanseg.progress import WarningCollector
from scanseg.runtime import RunContext, count_launched, keep_workers
from scanseg.settings import apply_settings, compare_settings
from scanseg.specs import (
    ConfigurationOutcome,
    CrossValidationRecord,
    EnsembleOutcome,
    EnsembleSpec,
    Plan,
    PostprocessingSpec,
    ScoredOutcome,
    Splits,
    TrainingSetup,
)

RECORD = "crossval.json"
_CASCADE = "cascade."


@dataclass(frozen=True)
class CrossValidationResult:
    """A finished cross-validation."""

    model: Path
    """Folder of the cross-validation, which predicts as one model."""
    record: CrossValidationRecord
    warnings: tuple[str, ...] = ()
    """Unusual properties of the data set that do not prevent training, see `scanseg.check`."""


@dataclass(frozen=True)
class CrossValidationOptions:
    """The user's choices for a cross-validation."""

    recipes: tuple[str, ...] = ()
    """Recipes that compete on a data set. Empty: the plan gets its default recipe."""
    devices: tuple[str, ...] = ()
    """Devices that train folds at the same time. Defaults to the first available one."""
    ensembles: bool = True
    """Pairs of recipes compete too."""
    stores: Path | None = None
    """Folder of stores. `None`: beside the output."""
    resume: bool = False
    """Resume the cross-validation in the output folder."""


def cross_validate(
    source: TrainingSource,
    output: Path,
    request: PlanRequest,
    options: CrossValidationOptions,
    *,
    context: RunContext,
) -> CrossValidationResult:
    """Train every fold and make them one model. See `scanseg.cross_validate`.

    Args:
        source: Data set or plan.
        output: Folder to write.
        request: Initial weights and settings of all plans. Its recipe is replaced by those of the options.
        options: Recipes, devices and stores.
        context: Worker processes and progress.
    """
    collector = WarningCollector(context.progress)
    context = context.with_progress(collector)
    _check_options(source, output, options)
    names = _configuration_names(source, output, options.recipes, initial_weights=request.like)
    splits = find_known_splits(source)
    if splits is not None:
        _check_folds(splits, where=source.path)
    folders = [output if name is None or len(names) == 1 else output / name for name in names]
    for folder in folders:
        make_folder(folder)  # --resume finds the recipes by their folders
    takes_recipe = source.plan is None and (bool(options.recipes) or request.like is None)
    configurations = [
        _configure(
            source,
            folder,
            name,
            replace(request, recipe=name if takes_recipe else None),
            options,
            stores=default_stores(output) if options.stores is None else options.stores,
            is_only=len(names) == 1,
            context=context,
        )
        for name, folder in zip(names, folders, strict=True)
    ]
    for each in configurations:
        _check_folds(each.prepared.store.index.splits, where=each.prepared.store.folder)
    _check_cascades(configurations, request)
    weights = _find_initial_weights(configurations, request)
    configurations = [replace(each, initial_weights=weights) for each in configurations]
    warnings = tuple(collector.warnings)
    jobs = [replace(each.job(fold), warnings=warnings) for each in configurations for fold in each.folds]
    check_same_folds(jobs)
    remaining = [job for job in jobs if not job.is_finished]
    run_jobs(remaining, devices=options.devices, context=context, task="folds")
    pairs = (
        predict_pairs(configurations, output, devices=options.devices, context=context)
        if options.ensembles and len(configurations) > 1
        else []
    )
    record = _choose_model(configurations, pairs, output, context=context)
    write_text(output / RECORD, record.to_json())
    return CrossValidationResult(output, record, tuple(collector.warnings))


def _check_options(source: TrainingSource, output: Path, options: CrossValidationOptions) -> None:
    """Check before any work that the choices fit together.

    Raises:
        UsageError: The choices exclude each other, or a device is missing.
    """
    recipes = options.recipes
    if source.plan is not None and recipes:
        raise UsageError(
            f"{source.path} is a plan and has its recipe. Use --recipe with a data set's folder."
        )
    if len(set(recipes)) < len(recipes):
        raise UsageError(f"recipes {', '.join(recipes)}: one is given twice. Give each once.")
    if count_launched() > 1:
        raise UsageError("a cross-validation is one process. Start it without torchrun, and with --devices.")
    require_devices(options.devices or ("auto",))
    if not options.resume:
        ModelFolder.require_new(output)
    elif not output.is_dir() or not any(output.iterdir()):
        raise UsageError(
            f"{output}: nothing to resume. Give the folder of a cross-validation, or leave --resume out."
        )


def _check_folds(splits: Splits, *, where: Path) -> None:
    """Check that every fold can be scored.

    Raises:
        InputError: There are no folds, or folds have no validation cases. The message names them.
    """
    if not splits.folds:
        raise InputError(
            f"{where}: expected at least one fold, got none ({splits.source}). Add cases, or train one network by "
            "scanseg train --fold all."
        )
    empty = [number for number, fold in enumerate(splits.folds) if not fold.validation]
    if empty:
        folds = f"fold {empty[0]} has" if len(empty) == 1 else f"folds {', '.join(map(str, empty))} have"
        raise InputError(
            f"{where}: {folds} no validation cases ({splits.source}), and a cross-validation scores every fold. Add "
            f"cases there, remove the fold, or train one fold without a score by scanseg train --fold."
        )


def _configuration_names(
    source: TrainingSource, output: Path, recipes: Sequence[str], *, initial_weights: Path | None
) -> Sequence[str | None]:
    """Return the names of the configurations, new or resumed.

    `None`: the recipe that the plan gets by default.

    Raises:
        UsageError: A resumed cross-validation has other recipes.
    """
    plan = output / PLAN_FILE
    started = [] if plan.is_file() else _started_recipes(output)
    if started and (source.plan is not None or not set(started) <= set(recipes or started)):
        raise UsageError(
            f"{output} is a cross-validation of {', '.join(started)}. Resume all of them: leave --recipe out and give "
            f"the data set's folder. Or choose another folder."
        )
    if plan.is_file() and len(recipes) > 1:
        raise UsageError(
            f"{output} is a cross-validation of {Plan.read(plan).recipe} alone. Leave --recipe out, or choose another "
            f"folder."
        )
    if recipes or started:
        return recipes or started
    if source.plan is not None:
        return [source.path.stem]
    if plan.is_file():
        return [Plan.read(plan).recipe]
    return [None if initial_weights is None else ModelFolder.open(initial_weights).plan.recipe]


def _started_recipes(output: Path) -> list[str]:
    """Return the recipes of a started cross-validation, each with its folder."""
    return [name for name in RECIPES if (output / name).is_dir()]


def _find_initial_weights(configurations: Sequence[Configuration], request: PlanRequest) -> Path | None:
    """Return the initial weights of all folds.

    A cross-validation that is started already determines them.

    Raises:
        UsageError: The cross-validation was started with other initial weights.
    """
    jobs = [each.job(fold) for each in configurations for fold in each.folds]
    setups = [ModelFolder.open(job.folder).read_setup() for job in jobs if job.is_started]
    for each in configurations:
        path = each.folder / SETUP_FILE
        setups.append(TrainingSetup.read(path) if path.is_file() else None)
    started = {setup.initial_weights for setup in setups if setup is not None}
    given = None if request.like is None else str(request.like)
    if given is not None and not started <= {given}:
        others = ", ".join(sorted(name or "random" for name in started - {given}))
        raise UsageError(
            f"--initial-weights: the folds to resume have {others} initial weights, not {given}. Leave the option out, "
            f"or choose another folder."
        )
    return Path(name) if len(started) == 1 and (name := next(iter(started))) else request.like


@keep_workers()
def _configure(
    source: TrainingSource,
    folder: Path,
    name: str | None,
    request: PlanRequest,
    options: CrossValidationOptions,
    *,
    stores: Path,
    is_only: bool,
    context: RunContext,
) -> Configuration:
    """Make or open the plan and the store of a configuration.

    With several recipes, settings of a cascade apply only to recipes with a cascade. Without a name, it is the recipe
    of the plan.
    """
    make_folder(folder)
    path = folder / PLAN_FILE
    cascade = [] if is_only else [each for each in request.settings if each.startswith(_CASCADE)]
    request = replace(request, settings=tuple(each for each in request.settings if each not in cascade))
    if options.resume and path.is_file():
        plan = _resumed_plan(path, request, cascade=cascade)
    else:
        plan = find_plan(source, request, context=context)
        plan = plan if plan.cascade is None else apply_settings(plan, cascade)
        weights = None if request.like is None else str(request.like)
        write_text(folder / SETUP_FILE, TrainingSetup(fold=None, initial_weights=weights).to_json())
        write_text(path, plan.to_json())
    return Configuration(name or plan.recipe, folder, prepare_store(plan, source, stores, context=context))


def _check_cascades(configurations: Sequence[Configuration], request: PlanRequest) -> None:
    """Check that settings of a cascade have a configuration with a cascade.

    Raises:
        UsageError: No configuration has a cascade.
    """
    settings = [each for each in request.settings if each.startswith(_CASCADE)]
    if settings and all(each.prepared.plan.cascade is None for each in configurations):
        raise UsageError(
            f"--set {' --set '.join(settings)}: none of {', '.join(each.name for each in configurations)} has a "
            f"cascade. Leave the setting out, or add a recipe that has one."
        )


def _resumed_plan(path: Path, request: PlanRequest, *, cascade: Sequence[str]) -> Plan:
    """Read the plan of a resumed configuration and check its settings.

    Raises:
        UsageError: Settings or recipe differ.
    """
    plan = Plan.read(path)
    settings = request.settings if plan.cascade is None else (*request.settings, *cascade)
    faults = compare_settings(plan, apply_settings(plan, settings))
    if request.recipe not in (None, plan.recipe):
        faults.append(f"recipe is {plan.recipe}, not {request.recipe}")
    if request.size not in (None, plan.size):
        faults.append(f"size is {plan.size}, not {request.size}")
    if faults:
        raise UsageError(
            f"{path}: the cross-validation to resume has a plan where {'; '.join(faults)}. Leave these options out, "
            f"or choose another folder."
        )
    return plan


def _choose_model(
    configurations: Sequence[Configuration], pairs: Sequence[Pair], output: Path, *, context: RunContext
) -> CrossValidationRecord:
    """Score all configurations and pairs, and make the best one the model."""
    candidates: list[Configuration | Pair] = [*configurations, *pairs]
    store = configurations[0].prepared.store
    outcomes = [_score(each, store, context=context) for each in candidates]
    best = max(range(len(outcomes)), key=lambda number: outcomes[number].postprocessed_mean_dice or 0.0)
    chosen, spec = candidates[best], outcomes[best].postprocessing
    report = score_postprocessed(chosen.predicted(), store, spec, context=context)
    write_text(output / VALIDATION_FILE, report.to_json())
    for each, outcome in zip(configurations, outcomes, strict=False):
        folds = tuple(each.job(fold).folder.name for fold in each.folds)
        write_ensemble(each.folder, EnsembleSpec(members=folds, postprocessing=outcome.postprocessing))
    if len(configurations) > 1:
        write_ensemble(output, _ensemble_of(chosen, output, spec))
    return CrossValidationRecord(
        dataset=configurations[0].prepared.plan.dataset.name,
        num_cases=report.summary.num_cases,
        configurations=tuple(
            ConfigurationOutcome(**dict(outcome), folds=tuple(each.fold_outcomes(output)))
            for each, outcome in zip(configurations, outcomes, strict=False)
        ),
        ensembles=tuple(
            EnsembleOutcome(**dict(outcome), members=pair.names)
            for pair, outcome in zip(pairs, outcomes[len(configurations) :], strict=True)
        ),
        chosen=chosen.name,
    )


def _score(candidate: Configuration | Pair, store: Store, *, context: RunContext) -> ScoredOutcome:
    """Score a configuration or a pair on the validation cases."""
    choice = choose_postprocessing(candidate.predicted(), store, context=context)
    return ScoredOutcome(
        name=candidate.name,
        labels=dict(choice.before),
        mean_dice=mean(list(choice.before.values())),
        postprocessing=choice.postprocessing,
        postprocessed_labels=dict(choice.after),
        postprocessed_mean_dice=mean(list(choice.after.values())),
    )


def _ensemble_of(chosen: Configuration | Pair, output: Path, spec: PostprocessingSpec) -> EnsembleSpec:
    """Return the ensemble file that makes the output folder the chosen model."""
    if isinstance(chosen, Pair):
        return EnsembleSpec(members=chosen.names, average="probabilities", postprocessing=spec)
    members = tuple(chosen.job(fold).folder.relative_to(output).as_posix() for fold in chosen.folds)
    return EnsembleSpec(members=members, postprocessing=spec)
