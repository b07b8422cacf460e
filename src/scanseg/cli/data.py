"""`scanseg data`: data sets that have names, and objects."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from scanseg.cli.console import say
from scanseg.cli.options import Workers
from scanseg.cli.progress import show_progress


def instances(
    predictions: Path,
    /,
    *,
    output: Annotated[Path, Parameter(name=("--output", "-o"))],
    interior: int = 1,
    boundary: int = 2,
    grow: int = 1,
    num_workers: Workers = None,
) -> None:
    """Number the objects in label maps of interior and boundary, 2D or 3D.

    Args:
        predictions: Folder of label maps, or one file.
        output: Folder to write the instance maps to, under the same names.
        interior: Value of the voxels whose connected parts are the objects.
        boundary: Value of the voxels by which objects grow.
        grow: How far, in voxels; 1 undoes the boundary that `data convert` draws, 0 is as published.
    """
    from scanseg import api

    with show_progress() as listen:
        files = api.convert_to_instances(
            predictions,
            output,
            interior=interior,
            boundary=boundary,
            grow=grow,
            num_workers=num_workers,
            listen=listen,
        )
    say(f"{output}: {len(files)} instance maps")
