"""`scanseg predict`."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from scanseg.cli.console import format_duration, say, show_table
from scanseg.cli.options import Device, Precision
from scanseg.cli.progress import show_progress
from scanseg.messages import counted, first_lines


def predict(
    model: Path,
    /,
    *inputs: Annotated[Path, Parameter(name="INPUT")],
    output: Annotated[Path, Parameter(name=("--output", "-o"))],
    weights: Literal["exported", "last", "best"] = "exported",
    mirror: bool = False,
    probabilities: bool = False,
    uncertainty: bool = False,
    overwrite: bool = False,
    skip_existing: bool = False,
    precision: Precision | None = None,
    device: Device = "auto",
) -> None:
    """Segment images with a trained model.

    Args:
        model: Model folder that `scanseg train` wrote, or the folder of a `scanseg crossval`.
        inputs: Folder of images named as for training (CASE_0000.nii.gz and so on), or one image; or several of these.
        output: Folder for the label maps, each on the grid of its image.
        weights: Those that the training chose to export, the last, or the best on validation patches.
        mirror: Average over mirrored images too: slower, often a little better.
        probabilities: Write the probabilities of the labels too.
        uncertainty: Write maps from 0 to 1 too: of the entropy, and of how much mirrored images and the networks of a
            study disagree, where there are several.
        overwrite: Replace what an earlier prediction left in the output folder.
        skip_existing: Leave out the images that an earlier prediction, of the same model, has segmented.
        precision: Of products, instead of that of the training.
    """
    from scanseg import api
    from scanseg.errors import UsageError

    if not inputs:
        raise UsageError("no images to segment; give a folder or files after the model")

    with show_progress() as progress:
        predictor = api.load(model, device=device, weights=weights, precision=precision)
        record = predictor.predict_folder(
            inputs,
            output,
            mirror=mirror,
            probabilities=probabilities,
            uncertainty=uncertainty,
            overwrite=overwrite,
            skip_existing=skip_existing,
            progress=progress,
        )
    show_table(
        ("case", "label map", "seconds"),
        [
            (case.case, case.label_map or "-", "was there" if case.skipped else f"{case.seconds:.1f}")
            for case in record.cases
        ],
    )
    doubts = [f"case {case.case}: {case.warning}" for case in record.cases if case.warning is not None]
    for warning in (*record.warnings, *first_lines(doubts)):
        say(f"warning: {warning}")
    say(
        f"{output}: {counted(len(record.cases), 'label map')} in {format_duration(record.seconds)} on {record.device}"
    )
