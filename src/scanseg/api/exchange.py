"""Functions for other programs' formats of models."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scanseg.api.paths import AnyPath
from scanseg.api.plans import plan_request
from scanseg.progress import ProgressChoice
from scanseg.progress_display import display
from scanseg.runtime import RunContext
from scanseg.settings import Settings
from scanseg.specs import ExportedModel, PlanSize

if TYPE_CHECKING:
    from scanseg.interop import ExportedPlans, ExportedTraining
    from scanseg.models import Weights
    from scanseg.specs import NNUNetImportRecord


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


def export_monai(model: AnyPath, output: AnyPath, *, weights: "Weights" = "exported") -> Path:
    """Write a model as a bundle of MONAI.

    Args:
        model: A model folder, or the folder of a cross-validation with one recipe.
        output: Folder to write. It must be missing or empty.
        weights: Weights to export: `exported`, `last`, or `best` (highest validation Dice).

    Returns:
        The output.

    Raises:
        InputError: The folder is not a model folder, or its training has not finished.
        UsageError: The output exists, or the model is a cascade or an ensemble of several plans.

    Example:
        >>> import scanseg
        >>> bundle = scanseg.export_monai("MODEL", "BUNDLE")
        >>> sorted(path.name for path in (bundle / "configs").iterdir())
        ['inference.json', 'metadata.json', 'plan.json', 'postprocessing.json']
    """
    from scanseg.interop import export_monai as export

    return export(Path(model), Path(output), weights=weights)


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
            request=plan_request(recipe=recipe, size=size, settings=settings),
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
