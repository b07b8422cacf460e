"""`scanseg report`, and the reports at the end of other commands."""

from pathlib import Path
from typing import Annotated, Literal

from scanseg.cli.console import print_line
from scanseg.cli.options import COMMON, Device, OutputFile, Overwrite, require_new_file
from scanseg.errors import ScansegError, UsageError
from scanseg.progress_display import show_progress

REPORT_FILE = "report.html"
"""File name of the report of a training, a cross-validation or a reproduction, in its folder."""


def report(
    target: Path,
    /,
    *,
    output: OutputFile,
    overwrite: Overwrite = False,
    references: Annotated[Path | None, COMMON] = None,
    images: Annotated[Path | None, COMMON] = None,
    instances: Annotated[Literal["numbers", "components", "grown", "separated"] | None, COMMON] = None,
    iou: Annotated[float | None, COMMON] = None,
    border: Annotated[int | None, COMMON] = None,
    device: Device = "auto",
    num_workers: Annotated[int | None, COMMON] = None,
) -> None:
    """Write a report as one HTML file with pictures, for any browser.

    The file needs no network.

    Args:
        target: Folder of a model, a cross-validation, a comparison, a reproduction, or predictions.
        output: HTML file of the report.
        references: Folder of the references of predictions, such as `labelsTr`. Without it, unusual predictions are
            found by comparing all cases. Defaults to none.
        images: Folder of the images of predictions. Defaults to the files in `prediction.json`.
        instances: Score instances of predictions, as in `scanseg evaluate`. The references are instance maps.
            `numbers`: predictions are instance maps too. `components`: instances are connected parts of label 1.
            `grown`: these parts with the adjacent voxels of label 2. `separated`: as `scanseg data instances` does.
            Defaults to scores of label maps.
        iou: Least overlap (IoU) of a matched pair. Needs `--instances`. Defaults to 0.5.
        border: Leave out instances that reach into this many pixels at the ends of y and x. Needs `--instances`.
            Defaults to 2.
        num_workers: Processes that read cases. 0 reads in the main process. Defaults to one per core, at most 16.
    """
    if instances is None and (iou is not None or border is not None):
        raise UsageError("--iou and --border: expected --instances too. Add it, or leave these options out.")
    require_new_file(output, overwrite=overwrite)
    with show_progress(f"writing the report of {target}") as progress:
        from scanseg import api

        api.report(
            target,
            output,
            references=references,
            images=images,
            instances=instances,
            iou=0.5 if iou is None else iou,
            border=2 if border is None else border,
            device=device,
            num_workers=num_workers,
            progress=progress,
        )
    print_line(f"report: {output}")


def write_final_report(folder: Path, *, device: str = "auto") -> None:
    """Write the report at the end of a command into its folder.

    The result of the command exists already. So a report that cannot be written is a note instead of an error.

    Args:
        folder: Folder of the result.
        device: Device for validation cases whose label maps were not kept.
    """
    from scanseg import api

    path = folder / REPORT_FILE
    try:
        api.report(folder, path, device=device, progress=False)
    except (ScansegError, OSError) as error:
        print_line(f"note: no report. {error}")
        return
    print_line(f"report: {path}")
