"""`scanseg view`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from scanseg.cli.console import print_error_lines
from scanseg.cli.options import ADVANCED, COMMON, Device
from scanseg.cli.serve import run_until_stopped


def view(
    image: Path,
    /,
    *label_maps: Annotated[Path, Parameter(name="LABEL_MAP")],
    model: Annotated[tuple[str, ...], COMMON] = (),
    output: Annotated[Path | None, COMMON, Parameter(name=("--output", "-o"))] = None,
    overwrite: Annotated[bool, COMMON] = False,
    channel: Annotated[tuple[Path, ...], COMMON] = (),
    no_browser: Annotated[bool, COMMON] = False,
    device: Device = "auto",
    port: Annotated[int, ADVANCED] = 0,
) -> None:
    """Show an image in a browser, with label maps and models.

    The page runs models, compares label maps, and saves corrected ones. It is on this machine alone and loads nothing
    from elsewhere. Ctrl-C ends it.

    Args:
        image: A volume, a picture, or the folder or zip file of a DICOM series.
        label_maps: Label maps on its grid. Names of labels come from `dataset.json` beside them, or from the model.
        model: Folder, name or address of a model that the page can run. Repeat for more. Defaults to none.
        output: File of label maps that the page saves. Defaults to `NAME-corrected` with the ending of the image, in
            the working folder. A number is appended instead of replacing a file.
        overwrite: Replace the output file if it exists.
        channel: File of a further channel of the image. Repeat for more. Defaults to none.
        no_browser: Print the address without opening it.
        port: Port to listen on. 0 chooses a free one.
    """
    print_error_lines([f"reading {image}"])

    from scanseg import api

    server = api.view(
        (image, *channel),
        label_maps,
        models=model,
        output=output,
        overwrite=overwrite,
        port=port,
        device=device,
    )
    run_until_stopped(server, f"showing {image} at {server.page}", page=None if no_browser else server.page)
