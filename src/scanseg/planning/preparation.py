"""Prepare a training: its plan, and the store of its preprocessed cases."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scanseg.dataset import (
    DESCRIPTION_FILE,
    RawDataset,
    check_dataset,
    compute_dataset_digest,
    compute_fingerprint,
    find_splits,
    list_unused,
    open_dataset,
)
from scanseg.documents import read_json
from scanseg.errors import InputError, UsageError, refuse_faults
from scanseg.models import ModelFolder, check_network, require_single
from scanseg.planning.adoption import adopt_plan
from scanseg.planning.first_stage import build_second_stage_store
from scanseg.planning.pictures import has_pictures
from scanseg.planning.recipes import RECIPES, plan_recipe
from scanseg.planning.sizes import check_size
from scanseg.preprocessing import Store, build_store, find_range_faults, store_name
from scanseg.runtime import RunContext, keep_workers
from scanseg.settings import apply_settings
from scanseg.specs import DatasetSpec, Fingerprint, Plan, PlanSize, Splits

SpacingRange = tuple[tuple[float, float, float], tuple[float, float, float]]


@dataclass(frozen=True)
class TrainingSource:
    """The raw data set of a training, its plan, or both."""

    path: Path
    """The data set's folder or the plan's file, for messages."""
    dataset: Path | None = None
    """Folder of the raw data set. `None`: the folder that the plan names, if it exists."""
    plan: Plan | None = None
    """A plan that exists already. `None`: a plan is made for the data set."""

    @classmethod
    def open(cls, path: Path) -> "TrainingSource":
        """Open a path as a raw data set or a plan.

        Args:
            path: Folder of a raw data set, or a plan file.

        Raises:
            InputError: The path does not exist, or the plan is faulty.
            UsageError: The path is something close to a data set or a plan. The message names the right path.
        """
        if path.name == DESCRIPTION_FILE:
            raise UsageError(f"{path} describes a data set. Give its folder, {path.parent}, or a plan file.")
        if path.is_file():
            return cls(path, plan=_read_plan(path))
        if not path.exists():
            raise InputError(
                f"{path}: no such file or folder. Give a data set's folder (with {DESCRIPTION_FILE}) or a plan file."
            )
        if ModelFolder.exists(path) and not (path / DESCRIPTION_FILE).is_file():
            raise UsageError(
                f"{path} is a model folder, not a data set. Give its plan, {ModelFolder.plan_path(path)}: with "
                f"-o {path} --resume to go on, with another folder to train again, and with --initial-weights {path} "
                f"to start from its weights."
            )
        return cls(path, dataset=path)

    def raw_folder(self, plan: Plan | None = None) -> Path | None:
        """Return the folder of the raw data set, if it exists.

        Args:
            plan: The plan to ask for the folder. `None`: the plan of this source.
        """
        plan = plan or self.plan
        known = Path(plan.dataset_path) if plan is not None and plan.dataset_path else None
        folder = self.dataset or known
        return folder if folder is not None and folder.is_dir() else None


def _read_plan(path: Path) -> Plan:
    """Read a plan.

    Raises:
        InputError: The plan is faulty.
        UsageError: The file is a plan of nnU-Net.
    """
    try:
        return Plan.read(path)
    except InputError:
        content = read_json(path)
        if isinstance(content, dict) and {"plans_name", "configurations"} <= content.keys():
            raise UsageError(
                f"{path}: expected a plan of scanseg, got nnU-Net's plans. Plan the data set by scanseg plan DATASET "
                f"--recipe plain-unet -o plan.json, which follows nnU-Net's rules."
            ) from None
        raise


@dataclass(frozen=True)
class PlanRequest:
    """The user's choices for a plan."""

    recipe: str | None = None
    """Name of the recipe for a data set. `None`: see `default_recipe`."""
    size: PlanSize | None = None
    """Size of the plan. Defaults to `small` for the fast recipes on a CPU, otherwise to `full`."""
    like: Path | None = None
    """Folder of a model whose plan is taken over for the data set, for fine-tuning."""
    settings: tuple[str, ...] = ()
    """Changes to the plan, each `path.to.key=value`."""


@dataclass(frozen=True)
class Prepared:
    """A plan with the store of its preprocessed cases."""

    plan: Plan
    store: Store


@keep_workers()
def make_plan(dataset: Path, request: PlanRequest, *, context: RunContext) -> Plan:
    """Check a raw data set and plan a training on it.

    Args:
        dataset: Folder of the raw data set.
        request: Recipe, model to follow, and settings.
        context: Worker processes and progress.

    Raises:
        InputError: The data set is faulty, or the network refuses the settings.
        UsageError: The recipe or a setting is unknown or invalid.
    """
    recipe, like = request.recipe, request.like
    if recipe is not None and recipe not in RECIPES:
        raise UsageError(f"recipe {recipe!r}: expected one of {', '.join(RECIPES)}.")
    if recipe is not None and like is not None:
        raise UsageError(f"recipe {recipe} and the plan of {like} exclude each other. Leave one out.")
    if request.size is not None:
        check_size(request.size)
        if like is not None:
            raise UsageError(f"size {request.size} and the plan of {like} exclude each other. Leave one out.")
    raw = open_dataset(dataset)
    context = context.for_images(raw.image_bytes)
    report = check_dataset(raw, context=context)
    context.report_warnings(report.warnings)
    path = str(raw.path.resolve())
    if like is not None:
        model = ModelFolder.open(like)
        plan = adopt_plan(model.plan, raw.spec, num_axes=report.num_axes, source=str(like), dataset_path=path)
        spacings = report.spacing_range if report.num_axes == 3 else None
    else:
        fingerprint = compute_fingerprint(raw, context=context)
        recipe = recipe or default_recipe(raw.spec, fingerprint)
        size = request.size or _default_size(recipe, context)
        plan = plan_recipe(fingerprint, raw.spec, recipe=recipe, size=size, dataset_path=path)
        spacings = _spacing_range(fingerprint)
    measured = {"spacing_range": spacings, "dataset_digest": compute_dataset_digest(raw)}
    plan = apply_settings(plan.model_copy(update=measured), request.settings)
    check_network(plan)
    refuse_faults(
        dataset,
        find_range_faults(report.intensity_ranges, plan.preprocessing.normalizations, raw.spec.channel_names),
    )
    return plan


def default_recipe(dataset: DatasetSpec, fingerprint: Fingerprint) -> str:
    """Return the default recipe of a data set.

    Args:
        dataset: Data set with the names of channels.
        fingerprint: Fingerprint of the data set.
    """
    return "xlstm-unet-fast" if has_pictures(dataset, fingerprint) else "xlstm-unet"


def _default_size(recipe: str, context: RunContext) -> PlanSize:
    """Return the size of a recipe on a device."""
    return "small" if RECIPES[recipe].is_fast and context.torch_device.type == "cpu" else "full"


def _spacing_range(fingerprint: Fingerprint) -> SpacingRange | None:
    """Return the smallest and the largest spacing of a data set."""
    if fingerprint.num_axes == 2:
        return None
    spacings = np.array([case.spacing for case in fingerprint.cases])
    lowest, highest = (tuple(map(float, bound)) for bound in (spacings.min(0), spacings.max(0)))
    return (lowest[0], lowest[1], lowest[2]), (highest[0], highest[1], highest[2])


def find_plan(source: TrainingSource, request: PlanRequest, *, context: RunContext) -> Plan:
    """Return the plan of a source, or make one.

    Args:
        source: Data set or plan.
        request: Recipe, model to follow, and settings.
        context: Worker processes and progress.

    Raises:
        InputError: The data set or the plan is faulty.
        UsageError: The choices exclude each other.
    """
    if request.like is not None:
        require_single(request.like)
    if source.plan is not None:
        if request.recipe is not None:
            raise UsageError(
                f"{source.path} is a plan and has its recipe. Use --recipe with a data set's folder."
            )
        if request.size is not None:
            raise UsageError(
                f"{source.path} is a plan and has its size. Use --size with a data set's folder."
            )
        plan = apply_settings(source.plan, request.settings)
        check_network(plan)
        return plan
    assert source.dataset is not None
    return make_plan(source.dataset, request, context=context)


def find_known_splits(source: TrainingSource) -> Splits | None:
    """Return the folds of a raw data set before it is preprocessed.

    Args:
        source: Data set or plan.

    Returns:
        The folds, or `None` if the data set is not on this machine.

    Raises:
        InputError: The data set or the file of its folds is faulty.
    """
    folder = source.raw_folder()
    if folder is None or not (folder / DESCRIPTION_FILE).is_file():
        return None
    return find_splits(open_dataset(folder))


def prepare_store(plan: Plan, source: TrainingSource, stores: Path, *, context: RunContext) -> Prepared:
    """Open or build the store of a plan.

    Args:
        plan: The plan.
        source: Where the raw data set may be.
        stores: Folder of stores. The store is a folder in it, named after its content.
        context: Worker processes and progress.

    Raises:
        InputError: Neither the store nor the data set exists, or the data set is another one.
    """
    folder = stores / store_name(plan.dataset.name, plan.preprocessing, source=plan.dataset_path)
    store = _find_store(folder, plan, source, context=context)
    if plan.cascade is not None:
        store = build_second_stage_store(plan, store, context=context)
    return Prepared(plan, store)


def _find_store(folder: Path, plan: Plan, source: TrainingSource, *, context: RunContext) -> Store:
    """Open a store, or build it from the raw data set."""
    raw = open_raw(plan, source)
    if raw is not None:
        context.report_warnings([*list_unused(raw), *_list_changes(raw, plan)])
    if raw is None:
        if plan.dataset_path and not folder.exists():
            raise InputError(
                f"{plan.dataset_path}: the data set of the plan is missing, and so is its store {folder}. Give the "
                f"new folder by --set dataset_path=FOLDER, or a folder that holds the store by --store FOLDER."
            )
        return Store.open(folder)
    return build_store(
        raw,
        preprocessing=plan.preprocessing,
        splits=find_splits(raw, required=False),
        folder=folder,
        context=context.for_images(raw.image_bytes),
    )


def open_raw(plan: Plan, source: TrainingSource) -> RawDataset | None:
    """Open the raw data set of a plan, if it exists.

    Args:
        plan: The plan.
        source: Where the raw data set may be.

    Raises:
        InputError: The data set is another one, or is faulty.
    """
    folder = source.raw_folder(plan)
    if folder is None:
        return None
    raw = open_dataset(folder)
    if raw.spec.without_colours() != plan.dataset.without_colours():
        raise InputError(
            f"{folder}: expected the data set of the plan, but channels, labels or file ending differ. Give its "
            f"folder, or make a new plan."
        )
    return raw


def _list_changes(raw: RawDataset, plan: Plan) -> list[str]:
    """Return a warning about a data set that has changed."""
    if plan.dataset_digest in (None, compute_dataset_digest(raw)):
        return []
    return [
        f"{raw.path}: names or sizes of files, or dataset.json, have changed since the plan was made. Make a new plan "
        f"if spacings or intensities have changed"
    ]
