"""What the commands do, as functions: from a data set to a scored segmentation."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scanseg.dataset import CheckReport, check_dataset, open_dataset
from scanseg.progress import ProgressCallback, ignore_progress
from scanseg.runtime import RunContext, choose_workers, keep_workers
from scanseg.specs import DistanceUnit, InstanceReport, InstanceSource, Plan, Report, RuleName

if TYPE_CHECKING:
    from scanseg.converters import Conversion
    from scanseg.experiments import CrossValidationResult
    from scanseg.inference import Predictor
    from scanseg.models import Weights
    from scanseg.runtime import Precision
    from scanseg.training import FoldChoice, TrainingResult

AnyPath = str | os.PathLike[str]


def check(
    dataset: AnyPath, *, num_workers: int | None = None, progress: ProgressCallback = ignore_progress
) -> CheckReport:
    """Check a raw data set in nnU-Net's layout.

    Args:
        dataset: Its folder.
        num_workers: Processes that read cases; None: one for each core, at most 16; 0 for small data sets.
        progress: Called with each progress update.

    Raises:
        InputError: Something is wrong; all faults are in one message.
    """
    raw = open_dataset(Path(dataset))
    return check_dataset(
        raw,
        context=RunContext(
            num_workers=choose_workers(num_workers, image_bytes=raw.image_bytes), progress=progress
        ),
    )


def make_plan(
    dataset: AnyPath,
    *,
    recipe: str | None = None,
    like: AnyPath | None = None,
    settings: Sequence[str] = (),
    num_workers: int | None = None,
    progress: ProgressCallback = ignore_progress,
) -> Plan:
    """Check and measure a data set, and plan a training on it.

    Args:
        dataset: Folder of the raw data set.
        recipe: Name of the recipe, see `scanseg.planning.RECIPES`; None: `xlstm-unet`.
        like: Folder of a model whose plan the data set takes over instead, for fine-tuning.
        settings: Changes to the plan, each `path.to.key=value`.
        num_workers: Processes that read cases; None: one for each core, at most 16; 0 for small data sets.
        progress: Called with each progress update.

    Raises:
        InputError: The data set is faulty, or the network refuses the changes.
        UsageError: The recipe or a setting is unknown or invalid.
    """
    from scanseg.planning import make_plan as prepare_plan

    return prepare_plan(
        Path(dataset),
        recipe=recipe,
        like=None if like is None else Path(like),
        settings=settings,
        num_workers=num_workers,
        progress=progress,
    )


def preprocess(
    source: AnyPath,
    *,
    store: AnyPath,
    recipe: str | None = None,
    settings: Sequence[str] = (),
    num_workers: int | None = None,
    progress: ProgressCallback = ignore_progress,
) -> Path:
    """Make the preprocessed cases that trainings read; those that are there already are kept.

    Args:
        source: Folder of a raw data set, or a plan's file.
        store: Folder of the preprocessed cases, to be given to trainings.
        recipe: How to plan, where `source` is a data set; None: `xlstm-unet`.
        settings: Changes to the plan, each `path.to.key=value`.
        num_workers: Processes that read cases; None: one for each core, at most 16; 0 for small data sets.
        progress: Called with each progress update.

    Returns:
        The folder in `store` that holds the cases.

    Raises:
        InputError: The data set or the plan is faulty.
        UsageError: The options cannot be carried out together.
    """
    from scanseg.planning import plan_of, store_of

    with keep_workers():
        plan = plan_of(
            Path(source),
            recipe=recipe,
            like=None,
            settings=settings,
            context=RunContext(num_workers=num_workers, progress=progress),
        )
        return store_of(
            plan, Path(source), Path(store), context=RunContext(num_workers=num_workers, progress=progress)
        ).folder


def train(
    source: AnyPath,
    output: AnyPath,
    *,
    recipe: str | None = None,
    fold: "FoldChoice | None" = None,
    initial_weights: AnyPath | None = None,
    epochs: int | None = None,
    max_minutes: float | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    seed: int | None = None,
    precision: "Precision | None" = None,
    device: str = "auto",
    resume: bool = False,
    keep_predictions: bool = False,
    store: AnyPath | None = None,
    settings: Sequence[str] = (),
    num_workers: int | None = None,
    progress: ProgressCallback = ignore_progress,
) -> "TrainingResult":
    """Train a network and score it on the validation cases of its fold.

    Under `torchrun` the processes share each batch; the first of them writes.

    Args:
        source: Folder of a raw data set, or a plan's file.
        output: Model folder to write; new, or to go on with (`resume`).
        recipe: How to plan, where `source` is a data set; None: `xlstm-unet`.
        fold: Number of the fold, or `all` cases; None: 0, or that of the training that goes on.
        initial_weights: Folder of a model to begin with; a data set takes over its plan too.
        epochs: Instead of the plan's.
        max_minutes: Instead of the plan's.
        batch_size: Instead of the plan's.
        lr: Highest learning rate, instead of the plan's.
        seed: Instead of the plan's.
        precision: Of products, instead of the plan's: `auto`, `float32`, `bfloat16` or `float16` (with a scaled loss).
        device: `cpu`, `cuda`, `cuda:N`, `mps` or `auto`.
        resume: Go on from the last checkpoint in `output`, with the plan and the cases there; what is given beside
            must be what the training began with.
        keep_predictions: Keep the label maps of the validation cases in the model folder, as `validation/CASE.b2nd`.
        store: Folder of the preprocessed cases, made if absent; None: in `scanseg-stores` beside `output`.
        settings: Changes to the plan, each `path.to.key=value`.
        num_workers: Processes that read cases; None: one for each core, at most 16; 0 for small data sets.
        progress: Called with each progress update.

    Raises:
        InputError: The data set, plan, store or initial weights are faulty, or cases of a begun training are gone.
        UsageError: The options cannot be carried out together.
        scanseg.training.InterruptionError: SIGINT or SIGTERM came; the training can be resumed.
    """
    from scanseg.experiments import TrainingOptions, plan_settings
    from scanseg.experiments import train as run_training

    options = TrainingOptions(
        recipe=recipe,
        settings=plan_settings(
            epochs=epochs,
            max_minutes=max_minutes,
            batch_size=batch_size,
            lr=lr,
            seed=seed,
            precision=precision,
            settings=settings,
        ),
        initial_weights=None if initial_weights is None else Path(initial_weights),
        device=device,
        store=None if store is None else Path(store),
        num_workers=num_workers,
    )
    return run_training(
        Path(source),
        Path(output),
        options,
        fold=fold,
        resume=resume,
        keep_predictions=keep_predictions,
        context=RunContext(progress=progress),
    )


def cross_validate(
    source: AnyPath,
    output: AnyPath,
    *,
    recipes: Sequence[str] = (),
    devices: Sequence[str] = (),
    initial_weights: AnyPath | None = None,
    max_minutes: float | None = None,
    batch_size: int | None = None,
    ensembles: bool = True,
    resume: bool = False,
    store: AnyPath | None = None,
    settings: Sequence[str] = (),
    num_workers: int | None = None,
    progress: ProgressCallback = ignore_progress,
) -> "CrossValidationResult":
    """Train every fold; choose recipes and postprocessing by the validation cases of all; make the folds one model.

    Args:
        source: Folder of a raw data set, or a plan's file.
        output: Folder of the study; `load` takes it as a model.
        recipes: Ways to plan that compete, where `source` is a data set; none: `xlstm-unet`.
        devices: Devices that train folds at the same time, each one at a time; none: the first that is there.
        initial_weights: Folder of a model to begin with; a data set takes over its plan too.
        max_minutes: Of the training of each fold, instead of the plan's.
        batch_size: Instead of the plan's.
        ensembles: Where recipes compete, let their pairs compete too: the mean of the probabilities of both.
        resume: Go on with the study in `output`, with what it began with; folds that are done are kept.
        store: Folder of the preprocessed cases, made if absent; None: in `scanseg-stores` beside `output`.
        settings: Changes to the plans, each `path.to.key=value`.
        num_workers: Processes that read cases; None: one for each core, at most 16; 0 for small data sets.
        progress: Called with each progress update.

    Raises:
        InputError: The data set or plan is faulty.
        UsageError: The options cannot be carried out together.
        ScansegError: A training failed; those that are done are kept for `resume`.
    """
    from scanseg.experiments import TrainingOptions, plan_settings
    from scanseg.experiments import cross_validate as run_comparison

    options = TrainingOptions(
        settings=plan_settings(max_minutes=max_minutes, batch_size=batch_size, settings=settings),
        initial_weights=None if initial_weights is None else Path(initial_weights),
        store=None if store is None else Path(store),
        num_workers=num_workers,
    )
    return run_comparison(
        Path(source),
        Path(output),
        options,
        recipes=recipes,
        devices=devices,
        ensembles=ensembles,
        resume=resume,
        progress=progress,
    )


def load(
    model: AnyPath,
    *,
    device: str = "auto",
    weights: "Weights" = "exported",
    precision: "Precision | None" = None,
    cuda_graph: bool = True,
) -> "Predictor":
    """Load a model for prediction.

    Args:
        model: The model folder, or that of a cross-validation, whose models predict as one.
        weights: Those that the training chose to export, the last, or the best on validation patches.
        device: `cpu`, `cuda`, `cuda:N`, `mps` or `auto`.
        precision: Of the network's products; None: that of the plan's training.
        cuda_graph: On a GPU with CUDA, replay the network's passes as a CUDA graph; see `scanseg.inference.Predictor`.

    Raises:
        InputError: The folder is no model, or its training has not finished.
        UsageError: The device is not there, or weights or precision are unknown.
    """
    from scanseg.inference import load as load_predictor

    return load_predictor(
        Path(model), device=device, weights=weights, precision=precision, cuda_graph=cuda_graph
    )


def evaluate(
    predictions: AnyPath,
    references: AnyPath,
    *,
    cases: Sequence[str] | None = None,
    only_predicted: bool = False,
    rule: RuleName = "skip",
    distance_unit: DistanceUnit = "mm",
    tolerance_mm: float = 2.0,
    label_tolerances_mm: Mapping[str, float] | None = None,
    tolerance_preset: str | None = None,
    num_workers: int | None = None,
    progress: ProgressCallback = ignore_progress,
) -> Report:
    """Score predicted label maps.

    Args:
        predictions: Folder of predicted label maps, or one file.
        references: Folder of reference label maps of the same names, or one file.
        cases: Names of the cases to score; None: all of them, and each must have a prediction.
        only_predicted: Leave out the references without a prediction; the report names them.
        rule: Name of the metric rule, see `scanseg.evaluation.METRIC_RULES`.
        distance_unit: Of HD95 and ASD; `voxels` measures them without the spacing.
        tolerance_mm: Distance, in mm, up to which surfaces agree (NSD).
        label_tolerances_mm: Other tolerances, for labels by name.
        tolerance_preset: Tolerances of a protocol, see `scanseg.evaluation.TOLERANCE_PRESETS`.
        num_workers: Processes that score; None: one for each core, at most 16.
        progress: Called with each progress update.

    Raises:
        InputError: Files are missing, faulty, or do not fit each other; all faults are in one message.
        UsageError: A rule, unit or preset is unknown.
    """
    from scanseg.evaluation import evaluate as score

    return score(
        Path(predictions),
        Path(references),
        cases=cases,
        only_predicted=only_predicted,
        rule=rule,
        distance_unit=distance_unit,
        tolerance_mm=tolerance_mm,
        label_tolerances_mm=label_tolerances_mm,
        tolerance_preset=tolerance_preset,
        context=RunContext(num_workers=num_workers, progress=progress),
    )


def evaluate_instances(
    predictions: AnyPath,
    references: AnyPath,
    *,
    instances: InstanceSource = "numbers",
    iou: float = 0.5,
    border: int = 2,
    cases: Sequence[str] | None = None,
    only_predicted: bool = False,
    num_workers: int | None = None,
    progress: ProgressCallback = ignore_progress,
) -> InstanceReport:
    """Score the objects of predictions against instance maps: those found, missed and false, and their F1.

    Args:
        predictions: Folder of predicted maps, or one file.
        references: Folder of instance maps of the same names, or one file.
        instances: How the predictions say which voxels are one object: `numbers`, `components` or `grown`.
        iou: Least intersection over union of a matched pair.
        border: Objects that reach into this many pixels at the ends of y and x are left out on both sides.
        cases: Names of the cases to score; None: all of them, and each must have a prediction.
        only_predicted: Leave out the references without a prediction; the report names them.
        num_workers: Processes that score; None: one for each core, at most 16.
        progress: Called with each progress update.

    Raises:
        InputError: Files are missing, faulty, or do not fit each other; all faults are in one message.
        UsageError: `instances` is none of these, or the references are label maps.
    """
    from scanseg.evaluation import evaluate_instances as score

    return score(
        Path(predictions),
        Path(references),
        instances=instances,
        iou=iou,
        border=border,
        cases=cases,
        only_predicted=only_predicted,
        context=RunContext(num_workers=num_workers, progress=progress),
    )


def convert(
    name: str,
    source: AnyPath,
    output: AnyPath,
    *,
    test_fraction: float | None = None,
    num_workers: int | None = None,
    progress: ProgressCallback = ignore_progress,
) -> "Conversion":
    """Convert a data set that has a name into nnU-Net's raw layout, with its published split.

    Args:
        name: Name of the data set, see `scanseg.converters.NAMED_DATASETS`.
        source: Folder in which it lies, in a form in which people have it.
        output: Folder to write; it appears when all is done.
        test_fraction: Part of the cases to draw as a test set, where the source has none; None: that of the data set.
        num_workers: Processes that convert; None: one for each core, at most 16.
        progress: Called with each progress update.

    Raises:
        InputError: The source is in no known form, or faulty; all faults are in one message, and nothing is written.
        UsageError: The name is unknown, or the output is there already.
    """
    from scanseg.converters import convert_dataset, find_dataset

    return convert_dataset(
        find_dataset(name),
        Path(source),
        Path(output),
        test_fraction=test_fraction,
        context=RunContext(num_workers=choose_workers(num_workers), progress=progress),
    )
