"""What comes before a training: the plan and the store."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from scanseg.dataset import (
    DESCRIPTION_FILE,
    RawDataset,
    check_dataset,
    compute_fingerprint,
    find_splits,
    open_dataset,
)
from scanseg.errors import InputError, UsageError
from scanseg.models import ModelFolder, check_network, require_single
from scanseg.planning.adoption import adopt_plan
from scanseg.planning.first_stage import cascade_store_of
from scanseg.planning.recipes import RECIPES, plan_recipe
from scanseg.preprocessing import Store, build_store, store_name
from scanseg.runtime import RunContext, choose_workers, keep_workers
from scanseg.settings import apply_settings
from scanseg.specs import Plan, Splits

DEFAULT_RECIPE = "xlstm-unet"


@keep_workers()
def make_plan(
    dataset: Path, *, recipe: str | None, like: Path | None, settings: Sequence[str], context: RunContext
) -> Plan:
    """Check a data set and plan a training on it. See `scanseg.make_plan`."""
    if recipe is not None and recipe not in RECIPES:
        raise UsageError(f"recipe {recipe!r} is unknown; choose one of {', '.join(RECIPES)}")
    if recipe is not None and like is not None:
        raise UsageError(f"recipe {recipe} and the plan of {like} exclude each other; leave one out")
    raw = open_dataset(dataset)
    workers = choose_workers(context.num_workers, image_bytes=raw.image_bytes)
    report = check_dataset(raw, context=replace(context, num_workers=workers))
    path = str(raw.path.resolve())
    if like is not None:
        model = ModelFolder.open(like)
        plan = adopt_plan(model.plan, raw.spec, num_axes=report.num_axes, source=str(like), dataset_path=path)
    else:
        fingerprint = compute_fingerprint(raw, context=replace(context, num_workers=workers))
        plan = plan_recipe(fingerprint, raw.spec, recipe=recipe or DEFAULT_RECIPE, dataset_path=path)
    spacings = report.spacing_range if report.num_axes == 3 else None
    plan = apply_settings(plan.model_copy(update={"spacing_range": spacings}), settings)
    check_network(plan)
    return plan


def plan_of(
    source: Path, *, recipe: str | None, like: Path | None, settings: Sequence[str], context: RunContext
) -> Plan:
    """Read a plan, or make one for a data set.

    Args:
        source: A plan's file, or a data set's folder.
        recipe: How to plan, for a data set.
        like: Folder of a model whose plan a data set takes over.
        settings: Changes to the plan.
        context: Worker processes and progress.

    Raises:
        InputError: The data set or the plan is faulty.
        UsageError: The options cannot be carried out together.
    """
    if like is not None:
        require_single(like)
    _refuse_neighbours(source)
    if source.is_file():
        if recipe is not None:
            raise UsageError(f"{source} is a plan and has its recipe; --recipe is for a data set's folder.")
        plan = apply_settings(Plan.read(source), settings)
        check_network(plan)
        return plan
    if not source.exists():
        raise InputError(
            f"{source}: no such file or folder; give a data set's folder (with dataset.json), or a plan's file."
        )
    return make_plan(source, recipe=recipe, like=like, settings=settings, context=context)


def _refuse_neighbours(source: Path) -> None:
    """Name what to give where something close to a data set's folder, or to a plan's file, was given."""
    if source.name == DESCRIPTION_FILE:
        raise UsageError(
            f"{source} describes a data set; give its folder, {source.parent}, or a plan's file."
        )
    plan = source / "plan.json"
    if plan.is_file() and not (source / DESCRIPTION_FILE).is_file():
        raise UsageError(
            f"{source} is a model's folder, not a data set's; give its plan, {plan}: with -o {source} --resume "
            f"to go on, with another folder to train anew, and --initial-weights {source} to begin with its weights."
        )


def known_splits(source: Path) -> Splits | None:
    """Return the folds of a data set, or of that of a plan, before anything is made of it; None where it is not here.

    Args:
        source: The data set's folder, or a plan's file.

    Raises:
        InputError: The data set, the plan or the file of folds is faulty.
    """
    _refuse_neighbours(source)
    folder = (
        source
        if source.is_dir()
        else Path(Plan.read(source).dataset_path or "")
        if source.is_file()
        else None
    )
    if folder is None or not (folder / DESCRIPTION_FILE).is_file():
        return None
    return find_splits(open_dataset(folder))


def store_of(plan: Plan, source: Path, store: Path, *, context: RunContext) -> Store:
    """Open the store of a plan, or make it.

    Args:
        plan: The plan.
        source: The data set's folder, or else a plan's file, which knows it.
        store: Folder in which the store is a folder named after what is in it.
        context: Worker processes and progress.

    Raises:
        InputError: The store is not there, and the data set is not, or is another.
    """
    _refuse_neighbours(source)
    folder = store / store_name(plan.dataset.name, plan.preprocessing, source=plan.dataset_path)
    made = _store_at(folder, plan, source, context=context)
    if plan.cascade is None:
        return made
    return cascade_store_of(plan, made, context=context)


def _store_at(folder: Path, plan: Plan, source: Path, *, context: RunContext) -> Store:
    """Open a store, or make it if the data set is there."""
    raw = _raw_dataset(plan, source)
    if raw is None:
        if plan.dataset_path and not folder.exists():
            raise InputError(
                f"the data set of the plan is not at {plan.dataset_path}, and nothing was made of it in {folder}. Say "
                f"where it is now: --set dataset_path=FOLDER; or give a store that was made of it: --store FOLDER."
            )
        return Store.open(folder)
    return build_store(
        raw,
        preprocessing=plan.preprocessing,
        splits=find_splits(raw),
        folder=folder,
        context=replace(
            context, num_workers=choose_workers(context.num_workers, image_bytes=raw.image_bytes)
        ),
    )


def _raw_dataset(plan: Plan, source: Path) -> RawDataset | None:
    """Open the raw data set of a plan; None where it is not on this machine, so that a store must do."""
    folder = source if source.is_dir() else Path(plan.dataset_path) if plan.dataset_path else None
    if folder is None or not folder.is_dir():
        return None
    raw = open_dataset(folder)
    if raw.spec != plan.dataset:
        raise InputError(
            f"{folder} is not the data set of the plan: its channels, labels or file ending differ."
        )
    return raw
