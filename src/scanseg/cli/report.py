"""`scanseg report`, and the reports at the end of other commands."""

from pathlib import Path
from typing import Annotated

from scanseg.cli.console import print_line
from scanseg.cli.options import COMMON, Device, OutputFile, Overwrite, require_new_file
from scanseg.errors import ScansegError
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
        num_workers: Processes that read cases. 0 reads in the main process. Defaults to one per core, at most 16.
    """
    require_new_file(output, overwrite=overwrite)
    with show_progress(f"writing the report of {target}") as progress:
        from scanseg import api

        api.report(
            target,
            output,
            references=references,
            images=images,
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
