"""Prediction by a server, and the token of a server."""

import os
from collections.abc import Sequence
from pathlib import Path

from scanseg.cli.console import print_line, show_table
from scanseg.cli.options import OutputFormat
from scanseg.errors import InputError
from scanseg.messages import counted, listed
from scanseg.progress_display import show_progress


def predict_remotely(
    server: str,
    model: str,
    inputs: Sequence[Path],
    output: Path,
    *,
    token: str | None,
    output_format: OutputFormat | None,
    overwrite: bool,
    mirror: bool | None,
    uncertainty: bool,
) -> None:
    """Segment images by a server, and print a table of the cases.

    Args:
        server: Address of the server.
        model: Name of the model on the server.
        inputs: Folders and files of images.
        output: Folder of the label maps.
        token: Token of the server. `None`: no token.
        output_format: Format of the label maps. `None`: that of the image.
        overwrite: Replace the files of an earlier prediction.
        mirror: Average over flips. `None`: the choice of the model's plan.
        uncertainty: Write the uncertainty maps too.
    """
    with show_progress(f"segmenting {listed([str(path) for path in inputs])} by {server}") as progress:
        from scanseg.client import Client, predict_folder

        with Client(server, token=token) as client:
            cases = predict_folder(
                client,
                inputs,
                output,
                model=model,
                mirror=mirror,
                uncertainty=uncertainty,
                overwrite=overwrite,
                format=output_format,
                progress=progress,
            )
        progress.print_new([f"case {case.name}: {warning}" for case in cases for warning in case.warnings])
    rows = [(case.name, case.label_map.name, f"{case.seconds:.1f}") for case in cases]
    show_table(("case", "label map", "seconds"), rows)
    print_line(f"{output}: {counted(len(cases), 'label map')} by {server}")


def read_token(path: Path | None) -> str | None:
    """Return the token of a file or of the environment variable SCANSEG_TOKEN.

    Args:
        path: The file. `None`: the variable, if it is set.

    Raises:
        InputError: The file cannot be read, or is empty.
    """
    if path is None:
        return os.environ.get("SCANSEG_TOKEN") or None
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: the token cannot be read ({error}). Check the path.") from error
    if not token.isascii() or not token:
        raise InputError(f"{path}: expected a token of ASCII characters, got none. Write one into the file.")
    return token
