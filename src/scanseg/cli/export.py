"""`scanseg export`."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from scanseg.cli.console import print_line, show_table
from scanseg.cli.options import ADVANCED, OutputFolder
from scanseg.messages import counted
from scanseg.progress_display import show_progress


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
