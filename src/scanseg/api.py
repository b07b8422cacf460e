"""The functions behind the commands."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from scanseg.dataset import CheckReport, check_dataset, open_dataset
from scanseg.errors import InputError, UsageError
from scanseg.progress import ProgressChoice
from scanseg.progress_display import display
from scanseg.runtime import RunContext, keep_workers
from scanseg.settings import Settings, as_tuple, setting_texts
from scanseg.specs import (
    DistanceUnit,
    ExportedModel,
    InstanceReport,
    InstanceSource,
    Plan,
    PlanSize,
    Report,
    RuleName,
    SegmentCodes,
)

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import UInt8

    from scanseg.converters import Conversion, FolderInspection, FolderOptions, OverlapRule, SourceInspection
    from scanseg.experiments import CrossValidationResult
    from scanseg.imaging import SourceSummary
    from scanseg.inference import Predictor, Runtime
    from scanseg.interop import ExportedPlans, ExportedTraining
    from scanseg.models import Weights
    from scanseg.planning import PlanRequest
    from scanseg.pretrained import WeightType
    from scanseg.runtime import Precision
    from scanseg.specs import NNUNetImportRecord
    from scanseg.training import FoldChoice, Purpose, StepTiming, TrainingResult, WarmUp

AnyPath = str | os.PathLike[str]


def check(
    dataset: AnyPath, *, num_workers: int | None = None, progress: ProgressChoice = True
) -> CheckReport:
    """Check a raw data set in nnU-Net's layout.

    Args:
        dataset: Folder of the data set.
        num_workers: Processes that read cases. `None`: one per core, at most 16; 0 for small data sets.
        progress: True: show progress on stderr. False: show none. Or a function that is called with each update.

    Raises:
        InputError: The data set is faulty. One message lists all faults.

    Example:
        >>> import scanseg
        >>> report = scanseg.check("DATASET")
        >>> report.num_cases, report.num_axes
        (4, 2)
    """
    from scanseg.planning import describe_dataset

    raw = open_dataset(Path(dataset))
    with display(progress) as shown:
        context = RunContext(num_workers=num_workers, progress=shown)
        report = check_dataset(raw, context=context.for_images(raw.image_bytes))
    orientation = next(iter(report.orientations), None)
    decisions = describe_dataset(
        raw.spec,
        num_axes=report.num_axes,
        orientation=orientation,
        kept=report.kept,
        ranges=report.intensity_ranges,
    )
    return replace(report, decisions=tuple(decisions))


def make_plan(
    dataset: AnyPath,
    *,
    recipe: str | None = None,
    size: PlanSize | None = None,
    like: AnyPath | None = None,
    settings: Settings = (),
    device: str = "auto",
    num_workers: int | None = None,
    progress: ProgressChoice = True,
) -> Plan:
    """Check a raw data set, compute its fingerprint, and plan a training.

    Args:
        dataset: Folder of the raw data set.
        recipe: Name of the recipe, see `scanseg.planning.RECIPES`. Defaults to `xlstm-unet`.
        size: `small` for a CPU, `medium` for a small GPU, or `full`. Defaults to `small` for the fast recipes on a CPU,
            otherwise to `full`.
        like: Model folder whose plan is taken over for the data set, for fine-tuning.
        settings: Changes to the plan: texts `path.to.key=value`, or a dictionary of values by path.
        device: Device of the training, for the default size.
        num_workers: Processes that read cases. `None`: one per core, at most 16; 0 for small data sets.
        progress: True: show progress on stderr. False: show none. Or a function that is called with each update.

    Raises:
        InputError: The data set is faulty, or the network refuses the settings.
        UsageError: The recipe or a setting is unknown or invalid.

    Example:
        >>> import scanseg
        >>> plan = scanseg.make_plan("DATASET", recipe="plain-unet", settings={"training.epochs": 50})
        >>> plan.recipe, plan.training.epochs
        ('plain-unet', 50)
    """
    from scanseg.planning import make_plan as plan_dataset

    with display(progress) as shown:
        return plan_dataset(
            Path(dataset),
            _plan_request(recipe=recipe, size=size, like=like, settings=settings),
            context=RunContext(device=device, num_workers=num_workers, progress=shown),
        )


def time_step(plan: Plan | AnyPath, *, device: str = "auto", progress: ProgressChoice = True) -> "StepTiming":
    """Measure the time of a training step on random patches.

    Args:
        plan: The plan, or its file.
        device: `cpu`, `cuda`, `cuda:N`, `mps`, or `auto` for the first available one.
        progress: True: show progress on stderr. False: show none. Or a function that is called with each update.

    Returns:
        Time and memory of a step. The time is `None` if the device has too little memory.

    Example:
        >>> import scanseg
        >>> scanseg.time_step("plan.json", device="cpu").seconds > 0
        True
    """
    from scanseg.training import time_step as measure

    opened = plan if isinstance(plan, Plan) else Plan.read(Path(plan))
    with display(progress) as shown:
        return measure(opened, context=RunContext(device=device, progress=shown))


def warm_up(
    plan: Plan | AnyPath,
    *,
    purpose: "Purpose | None" = None,
    device: str = "auto",
    progress: ProgressChoice = True,
) -> "WarmUp":
    """Compile the GPU kernels of a training or prediction, and check them.

    Triton compiles kernels at their first use and keeps them in its cache (`TRITON_CACHE_DIR`). Afterwards the first
    step or prediction with the plan starts at once, in any process.

    Args:
        plan: The plan, its file, a model folder, or the folder of a cross-validation.
        purpose: `training` or `prediction`. `None`: prediction for folders, both for plans.
        device: `cuda`, `cuda:N`, or `auto` for the first GPU.
        progress: True: show progress on stderr. False: show none. Or a function that is called with each update.

    Returns:
        Device, number of kernels and duration.

    Raises:
        UsageError: The device is no GPU with CUDA, or Triton is missing.
        ScansegError: The plan does not fit into memory.

    Example:
        >>> import scanseg
        >>> scanseg.warm_up("plan.json", device="cpu")
        Traceback (most recent call last):
        ...
        scanseg.errors.UsageError: warm-up: expected a GPU with CUDA, got cpu...
    """
    from scanseg.training import read_plans
    from scanseg.training import warm_up as compile_plans

    is_folder = not isinstance(plan, Plan) and Path(plan).is_dir()
    plans = [plan] if isinstance(plan, Plan) else read_plans(Path(plan))
    both: tuple[Purpose, ...] = ("prediction",) if is_folder else ("training", "prediction")
    with display(progress) as shown:
        context = RunContext(device=device, progress=shown)
        return compile_plans(plans, purposes=both if purpose is None else (purpose,), context=context)


def preprocess(
    source: AnyPath,
    *,
    store: AnyPath,
    recipe: str | None = None,
    size: PlanSize | None = None,
    settings: Settings = (),
    num_workers: int | None = None,
    progress: ProgressChoice = True,
) -> Path:
    """Preprocess a data set for training.

    Existing cases are reused.

    Args:
        source: Folder of a raw data set, or a plan file.
        store: Folder of stores, to give to trainings.
        recipe: Name of the recipe for a data set. Defaults to `xlstm-unet`.
        size: `small` for a CPU, `medium` for a small GPU, or `full`. Defaults to `full`.
        settings: Changes to the plan: texts `path.to.key=value`, or a dictionary of values by path.
        num_workers: Processes that read cases. `None`: one per core, at most 16; 0 for small data sets.
        progress: True: show progress on stderr. False: show none. Or a function that is called with each update.

    Returns:
        Folder of the store, inside `store`.

    Raises:
        InputError: The data set or the plan is faulty.
        UsageError: Options exclude each other.

    Example:
        >>> import scanseg
        >>> folder = scanseg.preprocess("plan.json", store="stores")
        >>> folder.parent.name
        'stores'
    """
    from scanseg.planning import TrainingSource, find_plan, prepare_store

    with display(progress) as shown, keep_workers():
        context = RunContext(num_workers=num_workers, progress=shown)
        opened = TrainingSource.open(Path(source))
        # The machine that preprocesses may lack the GPU of the training.
        default: PlanSize | None = size or ("full" if opened.plan is None else None)
        plan = find_plan(
            opened, _plan_request(recipe=recipe, size=default, settings=settings), context=context
        )
        return prepare_store(plan, opened, Path(store), context=context).store.folder


def train(
    source: AnyPath,
    output: AnyPath,
    *,
    recipe: str | None = None,
    size: PlanSize | None = None,
    fold: "FoldChoice | None" = None,
    initial_weights: AnyPath | None = None,
    encoder_weights: AnyPath | None = None,
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
    settings: Settings = (),
    num_workers: int | None = None,
    progress: ProgressChoice = True,
) -> "TrainingResult":
    """Train a network and score it on its validation cases.

    Under `torchrun` the processes share each batch, and the main process writes the model folder.

    Args:
        source: Folder of a raw data set, or a plan file.
        output: Model folder to write, or to resume.
        recipe: Name of the recipe for a data set. Defaults to `xlstm-unet`.
        size: `small` for a CPU, `medium` for a small GPU, or `full`. Defaults to `small` for the fast recipes on a CPU,
            otherwise to `full`.
        fold: Number of the fold, or `all` cases. Defaults to 0, or to the fold of the resumed training.
        initial_weights: Model folder of the initial weights. A data set takes over its plan too.
        encoder_weights: File of ImageNet weights for the encoder of MSVM-UNet: VMamba's checkpoint, or the file from
            `scanseg weights import --network vmamba`.
        epochs: Number of epochs. Defaults to the plan's.
        max_minutes: Time limit. The learning rate falls with the clock. Defaults to the plan's.
        batch_size: Patches or slices in a batch. Defaults to the plan's.
        lr: Highest learning rate. Defaults to the plan's.
        seed: Random seed. Defaults to the plan's.
        precision: Precision of matrix products: `auto`, `float32`, `bfloat16` or `float16` (with loss scaling).
            Defaults to the plan's.
        device: `cpu`, `cuda`, `cuda:N`, `mps`, or `auto` for the first available one.
        resume: Go on from the last checkpoint in `output`, with its plan and cases. `epochs` and `max_minutes` may
            be changed, also of a finished training. Other options must be those with which the training began.
        keep_predictions: Keep the label maps of the validation cases in the model folder.
        store: Folder of stores. Defaults to `scanseg-stores` beside `output`.
        settings: Changes to the plan: texts `path.to.key=value`, or a dictionary of values by path.
        num_workers: Processes that read cases. `None`: one per core, at most 16; 0 for small data sets.
        progress: True: show progress on stderr. False: show none. Or a function that is called with each update.

    Raises:
        InputError: The data set, plan, store or initial weights are faulty, or cases of a resumed training are
            missing.
        UsageError: Options exclude each other.
        scanseg.errors.InterruptionError: SIGINT or SIGTERM came. The training can be resumed.

    Example:
        >>> import scanseg
        >>> result = scanseg.train("plan.json", "models/first", fold=0, epochs=1, device="cpu")
        >>> result.epochs_done, list(result.scores)
        (1, ['disk'])
    """
    from scanseg.experiments import train_model
    from scanseg.planning import TrainingSource

    overrides = {
        "training.epochs": epochs,
        "training.max_minutes": max_minutes,
        "sampling.batch_size": batch_size,
        "training.optimizer.lr": lr,
        "training.seed": seed,
        "training.precision": precision,
    }
    with display(progress) as shown:
        return train_model(
            TrainingSource.open(Path(source)),
            Path(output),
            _plan_request(
                recipe=recipe, size=size, like=initial_weights, settings=settings, overrides=overrides
            ),
            stores=None if store is None else Path(store),
            fold=fold,
            resume=resume,
            keep_predictions=keep_predictions,
            encoder_weights=None if encoder_weights is None else Path(encoder_weights),
            context=RunContext(device=device, num_workers=num_workers, progress=shown),
        )


def cross_validate(
    source: AnyPath,
    output: AnyPath,
    *,
    recipes: Sequence[str] = (),
    size: PlanSize | None = None,
    devices: Sequence[str] = (),
    initial_weights: AnyPath | None = None,
    max_minutes: float | None = None,
    batch_size: int | None = None,
    ensembles: bool = True,
    resume: bool = False,
    store: AnyPath | None = None,
    settings: Settings = (),
    num_workers: int | None = None,
    progress: ProgressChoice = True,
) -> "CrossValidationResult":
    """Train all folds and make them one model.

    Recipe and postprocessing are chosen on the validation cases of all folds.

    Args:
        source: Folder of a raw data set, or a plan file.
        output: Folder of the cross-validation. `load` reads it as a model.
        recipes: Recipes that compete on a data set. Defaults to `xlstm-unet`.
        size: `small` for a CPU, `medium` for a small GPU, or `full`. Defaults to `small` for the fast recipes on a CPU,
            otherwise to `full`.
        devices: Devices that train folds at the same time. Defaults to the first available one.
        initial_weights: Model folder of the initial weights. A data set takes over its plan too.
        max_minutes: Time limit of each fold. Defaults to the plan's.
        batch_size: Patches or slices in a batch. Defaults to the plan's.
        ensembles: Let pairs of recipes compete too, by the mean of both probabilities.
        resume: Go on with the cross-validation in `output`. Finished folds are kept.
        store: Folder of stores. Defaults to `scanseg-stores` beside `output`.
        settings: Changes to the plans: texts `path.to.key=value`, or a dictionary of values by path.
        num_workers: Processes that read cases. `None`: one per core, at most 16; 0 for small data sets.
        progress: True: show progress on stderr. False: show none. Or a function that is called with each update.

    Raises:
        InputError: The data set or the plan is faulty.
        UsageError: Options exclude each other.
        ScansegError: Trainings failed. Finished ones are kept for `resume`.

    Example:
        >>> import scanseg
        >>> result = scanseg.cross_validate("plan.json", "models/folds", devices=["cpu"])
        >>> result.record.num_cases
        4
    """
    from scanseg.experiments import CrossValidationOptions
    from scanseg.experiments import cross_validate as run
    from scanseg.planning import TrainingSource

    overrides = {"training.max_minutes": max_minutes, "sampling.batch_size": batch_size}
    with display(progress) as shown:
        return run(
            TrainingSource.open(Path(source)),
            Path(output),
            _plan_request(size=size, like=initial_weights, settings=settings, overrides=overrides),
            CrossValidationOptions(
                recipes=as_tuple(recipes),
                devices=as_tuple(devices),
                ensembles=ensembles,
                stores=None if store is None else Path(store),
                resume=resume,
            ),
            context=RunContext(
                device=next(iter(as_tuple(devices)), "auto"), num_workers=num_workers, progress=shown
            ),
        )


def load(
    model: AnyPath,
    *,
    device: str = "auto",
    weights: "Weights" = "exported",
    precision: "Precision | None" = None,
    cuda_graph: bool = True,
    runtime: "Runtime | None" = None,
) -> "Predictor":
    """Load a model for prediction.

    Args:
        model: A model folder, the folder of a cross-validation, whose models predict as one, or an exported model. Or
            the name or address of a model, see `scanseg.pretrained.find_model`.
        device: `cpu`, `cuda`, `cuda:N`, `mps`, or `auto` for the first available one.
        weights: Weights to load: `exported`, `last`, or `best` (highest validation Dice).
        precision: Precision of matrix products. Defaults to that of the plan's training.
        cuda_graph: Replay the network as a CUDA graph on a GPU with CUDA, see `scanseg.inference.Predictor`.
        runtime: Library that computes an exported model on the CPU: `onnxruntime` (the default) or `openvino`.

    Raises:
        InputError: The folder is not a model folder, no model has the name, or its training has not finished.
        UsageError: The device is missing, weights or precision are unknown, or an option does not fit the model.

    Example:
        >>> import scanseg
        >>> prediction = scanseg.load("MODEL", device="cpu").predict("image.png")
        >>> prediction.label_map.shape
        (24, 24)
    """
    from scanseg.inference import load as load_predictor

    folder = Path(model)
    if not folder.exists():  # exported models need no PyTorch, which the search for names loads
        from scanseg.pretrained import find_model

        folder = find_model(model)
    return load_predictor(
        folder,
        device=device,
        weights=weights,
        precision=precision,
        cuda_graph=cuda_graph,
        runtime=runtime,
    )


def save_pretrained(
    model: AnyPath,
    output: AnyPath,
    *,
    weight_type: "WeightType" = "float32",
    about: str | None = None,
) -> Path:
    """Save a trained model to share it: plan, weights and card.

    `scanseg.load` takes the output, and the address of an archive. Names of cases, paths, host names, checkpoints and
    label maps are left out.

    Args:
        model: A model folder, or the folder of a cross-validation.
        output: Folder to write, or a file ending in `.zip`. It must not exist.
        weight_type: Type of the stored weights. `float16` halves their size.
        about: Text in Markdown for the card, such as source and licence of the data.

    Returns:
        The output.

    Raises:
        InputError: The folder is not a model folder, its training has not finished, or a weight is too large for
            float16.
        UsageError: The output exists, or the type is unknown.

    Example:
        >>> import scanseg
        >>> folder = scanseg.save_pretrained("MODEL", "shared", about="Data: our discs.")
        >>> sorted(path.name for path in folder.iterdir())
        ['README.md', 'model.safetensors', 'plan.json']
    """
    from scanseg.pretrained import save_model

    save_model(Path(model), Path(output), weight_type=weight_type, about=about)
    return Path(output)


def list_series(source: AnyPath) -> "SourceSummary":
    """List the DICOM series of a folder or zip file.

    Only headers are read.

    Args:
        source: Folder with its subfolders, or zip file.

    Raises:
        InputError: The source is missing, damaged or unsafe, or pydicom is not installed.

    Example:
        >>> import scanseg
        >>> found = scanseg.list_series("SERIES")
        >>> found.series[0].modality, found.series[0].shape
        ('CT', (4, 5, 6))
    """
    from scanseg.imaging import summarize_series

    return summarize_series(Path(source))


def write_segmentation(
    path: AnyPath,
    label_map: "UInt8[np.ndarray, 'z y x']",
    *,
    series: AnyPath,
    labels: Mapping[str, int | Sequence[int]],
    segment_codes: SegmentCodes | None = None,
    model: str = "scanseg",
) -> None:
    """Write a label map as a DICOM Segmentation of a series.

    Args:
        path: File to write. An existing file is replaced.
        label_map: Label map on the grid of the series, such as `prediction.label_map`.
        series: Folder or zip file of the series, with `/UID` if it holds several.
        labels: Name to the value of a label, or to the values of a region. 0 is no label.
        segment_codes: Codes of the segments by label. `None`: all are coded as tissue.
        model: Name of the model, for the header.

    Raises:
        InputError: highdicom is not installed, the series cannot be read, the shape differs, a value or a code has no
            label, or the file cannot be written.

    Example:
        >>> import numpy as np, scanseg
        >>> label_map = np.ones((4, 5, 6), np.uint8)
        >>> scanseg.write_segmentation("liver.dcm", label_map, series="SERIES", labels={"liver": 1})
    """
    from scanseg.imaging import SegmentationSource, make_segments, read_geometry
    from scanseg.imaging import write_segmentation as write

    like = read_geometry([Path(series)])
    if like is None:
        raise InputError(
            f"{series}: expected a DICOM series, got another image. Give its folder or zip file."
        )
    values = {name: (value,) if isinstance(value, int) else tuple(value) for name, value in labels.items()}
    segments = make_segments(values, segment_codes)
    write(Path(path), label_map, like=like, segments=segments, source=SegmentationSource(model))


def export_onnx(
    model: AnyPath,
    output: AnyPath,
    *,
    weights: "Weights" = "exported",
    opset: int = 20,
    progress: ProgressChoice = True,
) -> ExportedModel:
    """Export a model to ONNX, for prediction without PyTorch.

    Args:
        model: A model folder, or the folder of a cross-validation.
        output: Folder to write. It must be missing or empty.
        weights: Weights to export: `exported`, `last`, or `best` (highest validation Dice).
        opset: Version of the ONNX operators, from 20 to 23.
        progress: True: show progress on stderr. False: show none. Or a function that is called with each update.

    Returns:
        The document `model.json` of the folder.

    Raises:
        InputError: The folder is not a model folder, or its training has not finished.
        UsageError: A package of the extra `onnx` is missing, or the output exists.
        ScansegError: A network cannot be exported, or differs from PyTorch.

    Example:
        >>> import scanseg
        >>> document = scanseg.export_onnx("MODEL", "EXPORTED", progress=False)
        >>> [network.file for network in document.networks]
        ['network-0.onnx']
        >>> scanseg.load("EXPORTED", runtime="onnxruntime").predict("image.png").label_map.shape
        (24, 24)
    """
    from scanseg.interop import export_onnx as export

    with display(progress) as shown:
        return export(Path(model), Path(output), weights=weights, opset=opset, progress=shown)


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
    progress: ProgressChoice = True,
) -> Report:
    """Score predicted label maps.

    Args:
        predictions: Folder of predicted label maps, or one file.
        references: Folder of reference label maps of the same names, or one file.
        cases: Names of the cases to score. `None`: all, and each must have a prediction.
        only_predicted: Leave out references without a prediction. The report names them.
        rule: Name of the metric rule, see `scanseg.evaluation.METRIC_RULES`.
        distance_unit: Unit of HD95 and ASD. `voxels` ignores the spacing.
        tolerance_mm: Tolerance of the normalized surface Dice (NSD), in mm.
        label_tolerances_mm: Tolerances of single labels by name, in mm.
        tolerance_preset: Tolerances of a protocol: `abdomen`.
        num_workers: Processes that score. `None`: one per core, at most 16.
        progress: True: show progress on stderr. False: show none. Or a function that is called with each update.

    Raises:
        InputError: Files are missing or faulty. One message lists all faults.
        UsageError: The rule, unit or preset is unknown.

    Example:
        >>> import scanseg
        >>> report = scanseg.evaluate("predictions", "REFERENCES")
        >>> report.summary.mean_over_labels.dice
        1.0
    """
    from scanseg.evaluation import evaluate as score

    with display(progress) as shown:
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
            context=RunContext(num_workers=num_workers, progress=shown),
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
    progress: ProgressChoice = True,
) -> InstanceReport:
    """Score predicted instances against instance maps.

    The report counts found, missed and false instances, and has their F1.

    Args:
        predictions: Folder of predicted maps, or one file.
        references: Folder of instance maps of the same names, or one file.
        instances: How predictions separate instances: `numbers`, `components` or `grown`.
        iou: Least intersection over union of a matched pair.
        border: Instances within this many pixels of the ends of y and x are left out on both sides.
        cases: Names of the cases to score. `None`: all, and each must have a prediction.
        only_predicted: Leave out references without a prediction. The report names them.
        num_workers: Processes that score. `None`: one per core, at most 16.
        progress: True: show progress on stderr. False: show none. Or a function that is called with each update.

    Raises:
        InputError: Files are missing or faulty. One message lists all faults.
        UsageError: `instances` is unknown, or the references are label maps.

    Example:
        >>> import scanseg
        >>> report = scanseg.evaluate_instances("instances", "instancesTs")
        >>> report.summary.f1.mean
        1.0
    """
    from scanseg.evaluation import evaluate_instances as score

    with display(progress) as shown:
        return score(
            Path(predictions),
            Path(references),
            instances=instances,
            iou=iou,
            border=border,
            cases=cases,
            only_predicted=only_predicted,
            context=RunContext(num_workers=num_workers, progress=shown),
        )


def convert(
    name: str,
    source: AnyPath,
    output: AnyPath,
    *,
    label_maps: AnyPath | None = None,
    labels: "str | os.PathLike[str] | Mapping[str, object] | None" = None,
    channels: Sequence[str] = (),
    overlap: "OverlapRule" = "refuse",
    dataset_name: str | None = None,
    test_fraction: float | None = None,
    num_workers: int | None = None,
    progress: ProgressChoice = True,
) -> "Conversion":
    """Convert a folder or a public data set to nnU-Net's raw layout.

    The published split of a known data set is kept.

    Args:
        name: `folder` for images and label maps of your own, or the name of a data set, see
            `scanseg.converters.NAMED_DATASETS`.
        source: Folder of the images, or of the data set in one of its original forms.
        output: Folder to write. It appears when the conversion is complete.
        label_maps: Folder of the label maps. `None`: inside `source`. Only for `folder`, as the next three.
        labels: Values or colours of the labels by name, as a mapping, a text such as `liver=1,spleen=2`, or a file.
            `None`: all values found.
        channels: Names of the channels in order. Names of image files may end with them.
        overlap: Treatment of voxels in several structure masks: `refuse`, or `last` for the last label.
        dataset_name: Name of the converted data set. Defaults to the name of a known data set, else to that of the
            output folder.
        test_fraction: Fraction of the cases to draw as a test set, if the source has none. Defaults to the data
            set's own.
        num_workers: Processes that convert. `None`: one per core, at most 16.
        progress: True: show progress on stderr. False: show none. Or a function that is called with each update.

    Raises:
        InputError: The source is in no known form, or is faulty. One message lists all faults, and nothing is
            written.
        UsageError: The name is unknown, the output exists, or the labels have another form.

    Example:
        >>> import scanseg
        >>> conversion = scanseg.convert("kvasir-seg", "KVASIR", "data/kvasir-seg")
        >>> sorted(conversion.num_cases)
        ['test', 'train']
        >>> own = scanseg.convert("folder", "KVASIR", "data/polyps", labels={"polyp": 255})
        >>> own.name, own.num_cases
        ('polyps', {'train': 10})
    """
    from scanseg.converters import OWN_FOLDER, convert_dataset, convert_folder, find_dataset

    options = _folder_options(label_maps, labels, channels, overlap)
    is_own = name == OWN_FOLDER.name
    if not is_own and options != _folder_options():
        raise UsageError(
            f"{name}: expected no label maps, labels, channels or overlap. They are for `folder`."
        )
    folders = (Path(source), Path(output))
    with display(progress) as shown:
        context = RunContext(num_workers=num_workers, progress=shown)
        if is_own:
            return convert_folder(
                *folders, options, name=dataset_name, test_fraction=test_fraction, context=context
            )
        return convert_dataset(
            find_dataset(name), *folders, name=dataset_name, test_fraction=test_fraction, context=context
        )


def inspect_folder(
    images: AnyPath,
    label_maps: AnyPath | None = None,
    *,
    labels: "str | os.PathLike[str] | Mapping[str, object] | None" = None,
    channels: Sequence[str] = (),
    num_workers: int | None = None,
    progress: ProgressChoice = True,
) -> "FolderInspection":
    """Inspect a folder of images and label maps without converting it.

    It shows the cases and labels that `convert("folder", ...)` uses. Up to 20 cases are read.

    Args:
        images: Folder of the images.
        label_maps: Folder of the label maps. `None`: inside `images`.
        labels: As for `convert`.
        channels: As for `convert`.
        num_workers: Processes that read cases. `None`: one per core, at most 16.
        progress: True: show progress on stderr. False: show none. Or a function that is called with each update.

    Raises:
        InputError: A folder is missing or has no known layout.
        UsageError: The labels have another form.

    Example:
        >>> import scanseg
        >>> found = scanseg.inspect_folder("KVASIR", labels={"polyp": 255})
        >>> len(found.labelled), [label.name for label in found.labels]
        (10, ['background', 'polyp'])
    """
    from scanseg.converters import inspect_folder as inspect

    options = _folder_options(label_maps, labels, channels)
    with display(progress) as shown:
        return inspect(Path(images), options, context=RunContext(num_workers=num_workers, progress=shown))


def inspect_source(
    name: str,
    source: AnyPath,
    *,
    test_fraction: float | None = None,
    num_workers: int | None = None,
    progress: ProgressChoice = True,
) -> "SourceInspection":
    """Read and check a public data set as `convert` does, without writing.

    Every case is read. For a folder of your own, use `inspect_folder`.

    Args:
        name: Name of the data set, see `scanseg.converters.NAMED_DATASETS`.
        source: Folder of the data set in one of its original forms.
        test_fraction: As for `convert`.
        num_workers: Processes that read cases. `None`: one per core, at most 16.
        progress: True: show progress on stderr. False: show none. Or a function that is called with each update.

    Raises:
        InputError: The source is in no known form, or is faulty. One message lists all faults.
        UsageError: The name is unknown, or the test set cannot be drawn.

    Example:
        >>> import scanseg
        >>> found = scanseg.inspect_source("kvasir-seg", "KVASIR")
        >>> sorted(found.num_cases), found.channels
        (['test', 'train'], ('R', 'G', 'B'))
    """
    from scanseg.converters import find_dataset, inspect_dataset

    with display(progress) as shown:
        context = RunContext(num_workers=num_workers, progress=shown)
        return inspect_dataset(find_dataset(name), Path(source), test_fraction=test_fraction, context=context)


def import_nnunet(
    folder: AnyPath,
    output: AnyPath,
    *,
    folds: Sequence[str | int] = (),
    checkpoint: str = "checkpoint_final.pth",
    first_stage: AnyPath | None = None,
) -> "NNUNetImportRecord":
    """Import a training of nnU-Net v2 as a model.

    No code in the checkpoints is executed, and nnU-Net is not needed.

    Args:
        folder: Folder of the training, with `plans.json`, `dataset.json` and `fold_*`.
        output: New model folder to write. Several folds become an ensemble.
        folds: Folds to import: numbers, or `all`. Defaults to every numbered fold, or else to `all`.
        checkpoint: File name of the checkpoint of a fold.
        first_stage: Folder of the first stage of a cascade. `None`: the folder beside `folder` with its name.

    Returns:
        The import record, which is also written to the model folder.

    Raises:
        InputError: A file is missing or damaged, or the training has settings that a model cannot express. The message
            names all of them, and nothing is written.
        UsageError: The output exists, or an argument does not fit the training.

    Example:
        >>> import scanseg
        >>> record = scanseg.import_nnunet("NNUNET", "IMPORTED")
        >>> record.configuration, scanseg.load("IMPORTED").plan.network.kind
        ('2d', 'xlstm-unet')
    """
    from scanseg.interop import import_nnunet as import_training

    return import_training(
        Path(folder),
        Path(output),
        folds=tuple(map(str, folds)),
        checkpoint=checkpoint,
        first_stage=None if first_stage is None else Path(first_stage),
    )


def export_nnunet(
    source: AnyPath,
    output: AnyPath,
    *,
    dataset_name: str | None = None,
    recipe: str | None = None,
    size: PlanSize | None = None,
    settings: Settings = (),
    num_workers: int | None = None,
    progress: ProgressChoice = True,
) -> "ExportedPlans":
    """Write plans with which nnU-Net v2 trains networks of scanseg.

    Args:
        source: Folder of a raw data set, or a plan file.
        output: JSON file to write, such as `nnUNetPlans_scanseg.json`.
        dataset_name: Name of the data set in nnU-Net, such as `Dataset004_Hippocampus`. `None`: the name of the folder
            of the data set or of the output, if it has this form.
        recipe: Recipe of the only configuration. `None`: for a data set `2d` and `3d_fullres` with xLSTM-UNet, and
            `2d_msvm_unet` with MSVM-UNet.
        size: As for `make_plan`.
        settings: As for `make_plan`.
        num_workers: Processes that read cases. `None`: one per core, at most 16; 0 for small data sets.
        progress: True: show progress on stderr. False: show none. Or a function that is called with each update.

    Returns:
        Names of data set, plans, configurations and trainer, for nnU-Net's commands.

    Raises:
        InputError: The data set or the plan is faulty, or nnU-Net has no such preprocessing.
        UsageError: The name of the data set is unknown, or an argument does not fit.

    Example:
        >>> import scanseg
        >>> made = scanseg.export_nnunet("DATASET", "nnUNetPlans_scanseg.json", dataset_name="Dataset001_Disks")
        >>> made.configurations
        ('2d', '2d_msvm_unet')
    """
    from scanseg.interop import export_nnunet_plans

    with display(progress) as shown:
        return export_nnunet_plans(
            Path(source),
            Path(output),
            dataset_name=dataset_name,
            request=_plan_request(recipe=recipe, size=size, settings=settings),
            context=RunContext(device="cpu", num_workers=num_workers, progress=shown),
        )


def export_nnunet_model(model: AnyPath, output: AnyPath) -> "ExportedTraining":
    """Write a model as a folder of a training of nnU-Net v2.

    Args:
        model: Model folder, or folder of a cross-validation.
        output: New folder to write.

    Returns:
        Names of the folds, and differences from our preprocessing.

    Raises:
        InputError: The model has no weights yet, or nnU-Net has no such preprocessing.
        UsageError: The output exists, or the members of the model have different plans.

    Example:
        >>> import scanseg
        >>> scanseg.export_nnunet_model("MODEL", "FOR_NNUNET").folds
        ('0',)
    """
    from scanseg.interop import export_nnunet_model as export_model

    return export_model(Path(model), Path(output))


def _folder_options(
    label_maps: AnyPath | None = None,
    labels: "str | os.PathLike[str] | Mapping[str, object] | None" = None,
    channels: Sequence[str] = (),
    overlap: "OverlapRule" = "refuse",
) -> "FolderOptions":
    """Return the choices for an own folder."""
    from scanseg.converters import FolderOptions

    return FolderOptions(
        label_maps=None if label_maps is None else Path(label_maps),
        labels=Path(labels) if isinstance(labels, os.PathLike) else labels,
        channels=as_tuple(channels),
        overlap=overlap,
    )


def _plan_request(
    *,
    recipe: str | None = None,
    size: PlanSize | None = None,
    like: AnyPath | None = None,
    settings: Settings = (),
    overrides: Mapping[str, object] | None = None,
) -> "PlanRequest":
    """Combine the choices for a plan.

    Settings with options of their own come before the others.
    """
    from scanseg.planning import PlanRequest

    named = tuple(f"{path}={value}" for path, value in (overrides or {}).items() if value is not None)
    return PlanRequest(
        recipe=recipe,
        size=size,
        like=None if like is None else Path(like),
        settings=(*named, *setting_texts(settings)),
    )
