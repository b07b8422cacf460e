"""`scanseg predict`."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from scanseg.cli.console import format_duration, say, show_table
from scanseg.cli.options import Device
from scanseg.cli.progress import show_progress


def predict(
    model: Path,
    inputs: Annotated[Path, Parameter(name="INPUT")],
    /,
    *,
    output: Annotated[Path, Parameter(name=("--output", "-o"))],
    weights: Literal["exported", "last", "best"] = "exported",
    mirror: bool = False,
    probabilities: bool = False,
    overwrite: bool = False,
    device: Device = "auto",
) -> None:
    """Segment images with a trained model.

    Args:
        model: Model folder that `scanseg train` wrote, or the folder of a `scanseg crossval`.
        inputs: Folder of images named as for training (CASE_0000.nii.gz and so on), or one image.
        output: Folder for the label maps, each on the grid of its image.
        weights: Those that the training chose to export, the last, or the best on validation patches.
        mirror: Average over mirrored images too: slower, often a little better.
        probabilities: Write the probabilities of the labels too.
        overwrite: Replace what an earlier prediction left in the output folder.
    """
    from scanseg import api

    with show_progress() as listen:
        predictor = api.load(model, device=device, weights=weights)
        record = predictor.predict_folder(
            inputs,
            output,
            mirror=mirror,
            probabilities=probabilities,
            overwrite=overwrite,
            listen=listen,
        )
    show_table(
        ("case", "label map", "seconds"),
        [(case.case, case.label_map or "-", f"{case.seconds:.1f}") for case in record.cases],
    )
    say(f"{output}: {len(record.cases)} label maps in {format_duration(record.seconds)} on {record.device}")
