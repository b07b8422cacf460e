"""`scanseg export`: write plans and models for other programs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from scanseg.cli.console import print_line, show_table
from scanseg.cli.options import (
    ADVANCED,
    COMMON,
    OutputFolder,
    Overwrite,
    PlanSize,
    Recipe,
    Settings,
    Workers,
    require_new_file,
)
from scanseg.errors import UsageError
from scanseg.messages import counted
from scanseg.progress_display import show_progress

if TYPE_CHECKING:
    from scanseg.interop import ExportedPlans


def nnunet(
    source: Annotated[
        Path,
        Parameter(
            name="SOURCE",
            help="Data set folder in nnU-Net's raw layout, plan file from `scanseg plan`, or model folder.",
        ),
    ],
    /,
    *,
    output: OutputFolder,
    overwrite: Overwrite = False,
    dataset_name: Annotated[str | None, COMMON] = None,
    recipe: Annotated[Recipe | None, COMMON] = None,
    size: PlanSize = None,
    num_workers: Workers = None,
    settings: Settings = (),
) -> None:
    """Write plans or a model for nnU-Net v2.

    With the plans of a data set, `nnUNetv2_train` trains xLSTM-UNet and MSVM-UNet. A model becomes a folder that
    `nnUNetv2_predict_from_modelfolder` reads. Networks that nnU-Net lacks need scanseg in its environment.

    Args:
        output: JSON file of the plans, such as `nnUNetPlans_scanseg.json`, or new folder for a model.
        dataset_name: Name of the data set in nnU-Net, such as `Dataset004_Hippocampus`. Defaults to the name of the
            folder of the data set or of the output.
        recipe: Recipe of the only configuration. Defaults to the configurations `2d`, `2d_msvm_unet` and `3d_fullres`.
    """
    from scanseg import api
    from scanseg.models import ModelFolder, is_ensemble

    if source.is_dir() and (ModelFolder.exists(source) or is_ensemble(source)):
        if dataset_name is not None or recipe is not None or size is not None or settings:
            raise UsageError(f"{source} is a model and has its plan. Leave the other options out.")
        exported = api.export_nnunet_model(source, output)
        print_line(f"{output}: {counted(len(exported.folds), 'fold')} for nnUNetv2_predict_from_modelfolder")
        for note in exported.notes:
            print_line(f"note: {note}")
        return
    require_new_file(output, overwrite=overwrite)
    with show_progress() as progress:
        made = api.export_nnunet(
            source,
            output,
            dataset_name=dataset_name,
            recipe=recipe,
            size=size,
            settings=settings,
            num_workers=num_workers,
            progress=progress,
        )
    _print_commands(output, made)


def _print_commands(output: Path, made: "ExportedPlans") -> None:
    """Print the commands of nnU-Net that use the plans."""
    number = int(made.dataset_name.removeprefix("Dataset")[:3])
    print_line(
        f"{output}: {counted(len(made.configurations), 'configuration')} ({', '.join(made.configurations)})"
    )
    for note in made.notes:
        print_line(f"note: {note}")
    if output.absolute().parent.name != made.dataset_name:
        print_line(f"to use:  copy it to $nnUNet_preprocessed/{made.dataset_name}/{made.plans_name}.json")
    print_line(f"         export nnUNet_extTrainer={made.trainer_folder}")
    print_line(
        f"         nnUNetv2_preprocess -d {number} -plans_name {made.plans_name} -c {' '.join(made.prepared)}"
    )
    for configuration in made.configurations:
        print_line(
            f"         nnUNetv2_train {number} {configuration} 0 -p {made.plans_name} -tr {made.trainer}"
        )


def onnx(
    model: Path,
    /,
    *,
    output: OutputFolder,
    weights: Annotated[Literal["exported", "last", "best"], ADVANCED] = "exported",
    opset: Annotated[int, ADVANCED, Parameter(show_default=True)] = 20,
) -> None:
    """Export a model as ONNX files, for prediction without PyTorch.

    The folder has the networks, and `model.json` with preprocessing, windows and postprocessing. `scanseg predict`
    takes it as MODEL. Each file is compared with PyTorch before the folder appears.

    Args:
        model: Folder of a model from `scanseg train` or `scanseg crossval`.
        output: Folder to write. It must be missing or empty.
        weights: Weights to export. `exported`: chosen by the training. `last`: from the end of the training. `best`:
            with the highest Dice on validation patches.
        opset: Version of the ONNX operators, from 20 to 23.
    """
    from scanseg import api

    with show_progress() as progress:
        document = api.export_onnx(model, output, weights=weights, opset=opset, progress=progress)
        progress.print_new(document.warnings)
    rows = [
        (
            network.file,
            f"{(output / network.file).stat().st_size / 2**20:.1f} MiB",
            f"{network.largest_difference:.1e}",
            f"{network.largest_logit:.1f}",
        )
        for network in document.networks
    ]
    show_table(("file", "size", "difference from PyTorch", "largest logit"), rows)
    print_line(f"{output}: {counted(len(rows), 'network')}, opset {document.opset}")


def monai(
    model: Path,
    /,
    *,
    output: OutputFolder,
    weights: Annotated[Literal["exported", "last", "best"], ADVANCED] = "exported",
) -> None:
    """Export a model as a bundle of MONAI.

    The bundle has metadata, a configuration for `monai.bundle run`, and the weights. It needs scanseg in MONAI's
    environment.

    Args:
        model: Folder of a model from `scanseg train` or `scanseg crossval`.
        output: Folder to write. It must be missing or empty.
        weights: Weights to export. `exported`: chosen by the training. `last`: from the end of the training. `best`:
            with the highest Dice on validation patches.
    """
    from scanseg import api

    api.export_monai(model, output, weights=weights)
    print_line(f"{output}: bundle with configs/inference.json")


def export_app() -> App:
    """Build the application `scanseg export`."""
    app = App(name="export", help="Write plans and models for other programs.")
    app.command(nnunet, sort_key=0, usage="Usage: scanseg export nnunet --output PATH [OPTIONS] SOURCE")
    app.command(monai, sort_key=2, usage="Usage: scanseg export monai --output PATH [OPTIONS] MODEL")
    app.command(onnx, sort_key=1, usage="Usage: scanseg export onnx --output PATH [OPTIONS] MODEL")
    return app
