"""What the commands do, as functions: from a data set to a scored segmentation."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scanseg.data import (
    CheckReport,
    RawDataset,
    build_store,
    check_dataset,
    find_splits,
    measure,
    open_dataset,
    store_name,
)
from scanseg.data.store import Store
from scanseg.errors import InputError, UsageError
from scanseg.models import ModelFolder, check_network
from scanseg.models.device import choose_device
from scanseg.progress import ProgressListener, ignore_progress
from scanseg.settings import apply_settings, compare_settings
from scanseg.specs import DistanceUnit, InstanceReport, InstanceSource, Plan, RuleName

if TYPE_CHECKING:
    from scanseg.evaluation import Report
    from scanseg.inference import Predictor
    from scanseg.training import FoldChoice, TrainingResult

DEFAULT_RECIPE = "xlstm-unet"
AnyPath = str | os.PathLike[str]
_STORES = "scanseg-stores"
_MAX_WORKERS = 16
_WORTH_WORKERS_BYTES = 4 * 2**20
"""Image files below this are read sooner than processes start (2 to 3 seconds)."""


def check(
    dataset: AnyPath, *, num_workers: int | None = None, listen: ProgressListener = ignore_progress
) -> CheckReport:
    """Check a raw data set in nnU-Net's layout.

    Args:
        dataset: Its folder.
        num_workers: Processes that read cases; None: one for each core, at most 16; 0 for small data sets.
        listen: Told of progress.

    Raises:
        InputError: Something is wrong; all faults are in one message.
    """
    raw = open_dataset(Path(dataset))
    return check_dataset(raw, num_workers=_workers(num_workers, raw), listen=listen)


def make_plan(
    dataset: AnyPath,
    *,
    recipe: str = DEFAULT_RECIPE,
    settings: Sequence[str] = (),
    num_workers: int | None = None,
    listen: ProgressListener = ignore_progress,
) -> Plan:
    """Check and measure a data set, and plan a training on it.

    Args:
        dataset: Folder of the raw data set.
        recipe: Name of the recipe, see `scanseg.planning.RECIPES`.
        settings: Changes to the plan, each `path.to.key=value`.
        num_workers: Processes that read cases; None: one for each core, at most 16; 0 for small data sets.
        listen: Told of progress.

    Raises:
        InputError: The data set is faulty, or the network refuses the changes.
        UsageError: The recipe or a setting is unknown or invalid.
    """
    from scanseg.planning import RECIPES
    from scanseg.planning import make_plan as plan_recipe

    if recipe not in RECIPES:
        raise UsageError(f"recipe {recipe!r} is unknown; choose one of {', '.join(RECIPES)}")
    raw = open_dataset(Path(dataset))
    workers = _workers(num_workers, raw)
    check_dataset(raw, num_workers=workers, listen=listen)
    fingerprint = measure(raw, num_workers=workers, listen=listen)
    plan = plan_recipe(fingerprint, raw.spec, recipe=recipe, dataset_path=str(raw.path.resolve()))
    plan = apply_settings(plan, settings)
    check_network(plan)
    return plan


def train(
    source: AnyPath,
    output: AnyPath,
    *,
    recipe: str | None = None,
    fold: "FoldChoice | None" = None,
    epochs: int | None = None,
    max_minutes: float | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    seed: int | None = None,
    device: str = "auto",
    resume: bool = False,
    store: AnyPath | None = None,
    settings: Sequence[str] = (),
    num_workers: int | None = None,
    listen: ProgressListener = ignore_progress,
) -> "TrainingResult":
    """Train a network and score it on the validation cases of its fold.

    Args:
        source: Folder of a raw data set, or a plan's file.
        output: Model folder to write; new, or to go on with (`resume`).
        recipe: How to plan, where `source` is a data set; None: `xlstm-unet`.
        fold: Number of the fold, or `all` cases; None: 0, or that of the training that goes on.
        epochs: Instead of the plan's.
        max_minutes: Instead of the plan's.
        batch_size: Instead of the plan's.
        lr: Highest learning rate, instead of the plan's.
        seed: Instead of the plan's.
        device: `cpu`, `cuda`, `cuda:N`, `mps` or `auto`.
        resume: Go on from the last checkpoint in `output`, with the plan and the cases there; what is given beside
            must be what the training began with.
        store: Folder of the preprocessed cases, made if absent; None: in `scanseg-stores` beside `output`.
        settings: Changes to the plan, each `path.to.key=value`.
        num_workers: Processes that read cases; None: one for each core, at most 16; 0 for small data sets.
        listen: Told of progress.

    Raises:
        InputError: The data set, plan or store is faulty, or lacks cases with which the training began.
        UsageError: The options cannot be carried out together.
        scanseg.training.InterruptionError: SIGINT or SIGTERM came; the training can be resumed.
    """
    from scanseg.training import choose_fold, watch_signals
    from scanseg.training import train as run_training

    options = {
        "training.epochs": epochs,
        "training.max_minutes": max_minutes,
        "sampling.batch_size": batch_size,
        "training.optimizer.lr": lr,
        "training.seed": seed,
    }
    changes = [*(f"{path}={value}" for path, value in options.items() if value is not None), *settings]
    chosen_device = choose_device(device)
    source, output = Path(source), Path(output)
    stores = output.parent / _STORES if store is None else Path(store)
    if resume:
        folder = _begun_model(output, recipe=recipe, settings=changes, fold=fold)
        cases = _store_of(folder.plan, source, stores, num_workers=num_workers, listen=listen)
    else:
        ModelFolder.require_new(output)
        plan = _plan_of(source, recipe=recipe, settings=changes, num_workers=num_workers, listen=listen)
        fold = 0 if fold is None else fold
        cases = _store_of(plan, source, stores, num_workers=num_workers, listen=listen)
        choose_fold(cases, fold)
        folder = ModelFolder.create(output, plan)
    with watch_signals() as stopped:
        return run_training(folder, cases, fold=fold, device=chosen_device, stopped=stopped, listen=listen)


def load(model: AnyPath, *, device: str = "auto") -> "Predictor":
    """Load a model for prediction.

    Args:
        model: The model folder.
        device: `cpu`, `cuda`, `cuda:N`, `mps` or `auto`.

    Raises:
        InputError: The folder is no model, or its training has not finished.
        UsageError: The device is not there.
    """
    from scanseg.inference import load as load_predictor

    return load_predictor(Path(model), device=device)


def evaluate(
    predictions: AnyPath,
    references: AnyPath,
    *,
    cases: Sequence[str] | None = None,
    rule: RuleName = "skip",
    distance_unit: DistanceUnit = "mm",
    tolerance_mm: float = 2.0,
    label_tolerances_mm: Mapping[str, float] | None = None,
    tolerance_preset: str | None = None,
    num_workers: int | None = None,
    listen: ProgressListener = ignore_progress,
) -> "Report":
    """Score predicted label maps.

    Args:
        predictions: Folder of predicted label maps, or one file.
        references: Folder of reference label maps of the same names, or one file.
        cases: Names of the cases to score; None: all of them, and each must have a prediction.
        rule: Name of the metric rule, see `scanseg.evaluation.METRIC_RULES`.
        distance_unit: Of HD95 and ASD; `voxels` measures them without the spacing.
        tolerance_mm: Distance, in mm, up to which surfaces agree (NSD).
        label_tolerances_mm: Other tolerances, for labels by name.
        tolerance_preset: Tolerances of a protocol, see `scanseg.evaluation.TOLERANCE_PRESETS`.
        num_workers: Processes that score; None: one for each core, at most 16.
        listen: Told of progress.

    Raises:
        InputError: Files are missing, faulty, or do not fit each other; all faults are in one message.
    """
    from scanseg.evaluation import evaluate as score

    return score(
        Path(predictions),
        Path(references),
        cases=cases,
        rule=rule,
        distance_unit=distance_unit,
        tolerance_mm=tolerance_mm,
        label_tolerances_mm=label_tolerances_mm,
        tolerance_preset=tolerance_preset,
        num_workers=_workers(num_workers),
        listen=listen,
    )


def evaluate_instances(
    predictions: AnyPath,
    references: AnyPath,
    *,
    instances: InstanceSource = "numbers",
    iou: float = 0.5,
    border: int = 2,
    cases: Sequence[str] | None = None,
    num_workers: int | None = None,
    listen: ProgressListener = ignore_progress,
) -> InstanceReport:
    """Score the objects of predictions against instance maps: those found, missed and false, and their F1.

    Args:
        predictions: Folder of predicted maps, or one file.
        references: Folder of instance maps of the same names, or one file.
        instances: How the predictions say which voxels are one object: `numbers`, `components` or `grown`.
        iou: Least intersection over union of a matched pair.
        border: Objects that reach into this many pixels at the ends of y and x are left out on both sides.
        cases: Names of the cases to score; None: all of them, and each must have a prediction.
        num_workers: Processes that score; None: one for each core, at most 16.
        listen: Told of progress.

    Raises:
        InputError: Files are missing, faulty, or do not fit each other; all faults are in one message.
    """
    from scanseg.evaluation import evaluate_instances as score

    return score(
        Path(predictions),
        Path(references),
        instances=instances,
        iou=iou,
        border=border,
        cases=cases,
        num_workers=_workers(num_workers),
        listen=listen,
    )


def convert_to_instances(
    predictions: AnyPath,
    output: AnyPath,
    *,
    interior: int = 1,
    boundary: int | None = 2,
    grow: int = 1,
    num_workers: int | None = None,
    listen: ProgressListener = ignore_progress,
) -> tuple[Path, ...]:
    """Number the objects of label maps of interior and boundary.

    Args:
        predictions: Folder of label maps, or one file.
        output: Folder to write the instance maps to, under the same names.
        interior: Value of the voxels whose connected components are the objects.
        boundary: Value of the voxels by which objects grow; None: no value.
        grow: How far, in voxels; 1 undoes the boundary that converters draw.
        num_workers: Processes that convert; None: one for each core, at most 16.
        listen: Told of progress.

    Returns:
        The files written.

    Raises:
        InputError: Files cannot be read or written; all are named.
    """
    from scanseg.evaluation import convert_to_instances as convert

    return convert(
        Path(predictions),
        Path(output),
        interior=interior,
        boundary=boundary,
        grow=grow,
        num_workers=_workers(num_workers),
        listen=listen,
    )


def _begun_model(
    path: Path, *, recipe: str | None, settings: Sequence[str], fold: "FoldChoice | None"
) -> ModelFolder:
    """Open a model whose training is to go on; refuse what would make it another training."""
    folder = ModelFolder.open(path)
    faults = compare_settings(folder.plan, apply_settings(folder.plan, settings))
    if recipe not in (None, folder.plan.recipe):
        faults.append(f"recipe is {folder.plan.recipe}, not {recipe}")
    record = folder.read_run()
    if record is not None and fold not in (None, record.fold):
        faults.append(f"fold is {record.fold}, not {fold}")
    if faults:
        raise UsageError(
            f"--resume goes on with the training in {path}, where {'; '.join(faults)}. Leave these options out, or "
            f"train anew in another folder."
        )
    return folder


def _plan_of(
    source: Path,
    *,
    recipe: str | None,
    settings: Sequence[str],
    num_workers: int | None,
    listen: ProgressListener,
) -> Plan:
    """Read a plan, or make one for a data set."""
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
    return make_plan(
        source, recipe=recipe or DEFAULT_RECIPE, settings=settings, num_workers=num_workers, listen=listen
    )


def _store_of(
    plan: Plan, source: Path, store: Path, *, num_workers: int | None, listen: ProgressListener
) -> Store:
    """Open the store of a plan, or make it; it is a folder in `store` named after what is in it."""
    folder = store / store_name(plan.dataset.name, plan.preprocessing, source=plan.dataset_path)
    raw = _raw_dataset(plan, source)
    if raw is None:
        return Store.open(folder)
    return build_store(
        raw,
        preprocessing=plan.preprocessing,
        splits=find_splits(raw),
        folder=folder,
        num_workers=_workers(num_workers, raw),
        listen=listen,
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


def _workers(wanted: int | None, raw: RawDataset | None = None) -> int:
    """Return how many processes to use: as wanted, or as many as pay for their start on the data set's images."""
    if wanted is not None:
        return wanted
    if raw is not None:
        num_bytes = sum(image.stat().st_size for case in raw.cases for image in case.images)
        if num_bytes < _WORTH_WORKERS_BYTES:
            return 0
    return min(os.cpu_count() or 1, _MAX_WORKERS)
