"""`scanseg data`: data sets that have names, and objects."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from scanseg.cli.console import say, show_table
from scanseg.cli.options import Workers
from scanseg.cli.progress import show_progress
from scanseg.messages import counted
from scanseg.runtime import RunContext


def list_datasets() -> None:
    """List the data sets that can be converted, where they are had, and their splits."""
    from scanseg.converters import NAMED_DATASETS

    rows = [(one.name, one.content, one.split, one.homepage) for one in NAMED_DATASETS.values()]
    show_table(("name", "content", "split", "had from"), rows, align="left")


def convert(
    name: str,
    source: Path,
    /,
    *,
    output: Annotated[Path, Parameter(name=("--output", "-o"))],
    test_fraction: float | None = None,
    num_workers: Workers = None,
) -> None:
    """Convert a data set that has a name into nnU-Net's raw layout, with its published split.

    All that is wrong with the source is said at once, and nothing is written then.

    Args:
        name: Name of the data set, see `scanseg data list`.
        source: Folder in which it lies, in a form in which people have it.
        output: Folder to write, new.
        test_fraction: Part of the cases to draw as a test set, where the data set has none of its own.
    """
    from scanseg import api

    with show_progress() as progress:
        result = api.convert(
            name, source, output, test_fraction=test_fraction, num_workers=num_workers, progress=progress
        )
    for note in result.notes:
        say(f"note: {note}")
    counts = ", ".join(counted(number, f"{part} case") for part, number in result.num_cases.items())
    say(f"{result.folder}: {result.dataset}, {counts}; from {result.layout}")


def instances(
    predictions: Path,
    /,
    *,
    output: Annotated[Path, Parameter(name=("--output", "-o"))],
    interior: int = 1,
    boundary: int = 2,
    grow: int = 1,
    min_voxels: int = 0,
    num_workers: Workers = None,
) -> None:
    """Number the objects in label maps of interior and boundary, 2D or 3D.

    Args:
        predictions: Folder of label maps, or one file.
        output: Folder to write the instance maps to, under the same names; new, it appears when all is done.
        interior: Value of the voxels whose connected parts are the objects.
        boundary: Value of the voxels by which objects grow.
        grow: How far, in voxels; 1 undoes the boundary that `data convert` draws, 0 is as published.
        min_voxels: Objects with fewer voxels are left out.
    """
    from scanseg.evaluation import convert_to_instances
    from scanseg.runtime import choose_workers

    with show_progress() as progress:
        files = convert_to_instances(
            predictions,
            output,
            interior=interior,
            boundary=boundary,
            grow=grow,
            min_voxels=min_voxels,
            context=RunContext(num_workers=choose_workers(num_workers), progress=progress),
        )
    say(f"{output}: {counted(len(files), 'instance map')}")
