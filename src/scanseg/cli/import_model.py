"""`scanseg import`: read models of other programs."""

from pathlib import Path
from typing import Annotated

from cyclopts import App

from scanseg.cli.console import print_line, suggest_command
from scanseg.cli.options import ADVANCED, COMMON, OutputFolder, split_names
from scanseg.messages import counted


def nnunet(
    folder: Path,
    /,
    *,
    output: OutputFolder,
    folds: Annotated[str, COMMON] = "",
    checkpoint: Annotated[str, ADVANCED] = "checkpoint_final.pth",
    first_stage: Annotated[Path | None, COMMON] = None,
) -> None:
    """Import a training of nnU-Net v2 as a model.

    No code in the checkpoints is executed, and nnU-Net is not needed. Settings that scanseg lacks are listed together,
    and nothing is written in that case.

    Args:
        folder: Folder of the training (`TRAINER__PLANS__CONFIGURATION`), with `plans.json` and `fold_*`.
        output: Model folder to write. It must not exist. Several folds become an ensemble.
        folds: Folds to import, separated by commas, or `all`. Defaults to every numbered fold.
        checkpoint: File name of the checkpoint of a fold.
        first_stage: Folder of the first stage of a cascade. Defaults to the folder beside `FOLDER` with its name.
    """
    from scanseg import api

    record = api.import_nnunet(
        folder, output, folds=split_names(folds), checkpoint=checkpoint, first_stage=first_stage
    )
    for note in record.notes:
        print_line(f"note: {note}")
    print_line(
        f"{output}: {record.configuration} of {record.dataset}, {counted(len(record.checkpoints), 'fold')}"
    )
    suggest_command("to predict like nnUNetv2_predict", "predict", output, "IMAGES", "-o", "OUT", "--mirror")


def import_app() -> App:
    """Build the application `scanseg import`."""
    app = App(name="import", help="Import models of other programs.")
    app.command(nnunet, sort_key=0, usage="Usage: scanseg import nnunet --output PATH [OPTIONS] FOLDER")
    return app
