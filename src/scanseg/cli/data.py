"""`scanseg data`: converters of public data sets, and instance maps."""

from pathlib import Path
from typing import Annotated

from scanseg.cli.console import print_line, show_table
from scanseg.cli.options import ADVANCED, COMMON, HARDWARE, OutputFolder
from scanseg.messages import counted, first_lines
from scanseg.progress_display import show_progress


def list_datasets() -> None:
    """List the public data sets that can be converted."""
    from scanseg.converters import NAMED_DATASETS

    rows = [(one.name, one.content, one.split, one.homepage) for one in NAMED_DATASETS.values()]
    show_table(("name", "content", "split", "source"), rows, align="left")


def convert(
    name: str,
    source: Path,
    /,
    *,
    output: OutputFolder,
    num_workers: Annotated[int | None, HARDWARE] = None,
    test_fraction: Annotated[float | None, ADVANCED] = None,
) -> None:
    """Convert a public data set to nnU-Net's raw layout.

    The published split is kept. Faults of the source are reported together, and nothing is written in that case.

    Args:
        name: Name of the data set, from `scanseg data list`.
        source: Folder of the downloaded data set.
        output: Folder to write. It must not exist.
        num_workers: Processes that convert cases. 0 converts in the main process. Defaults to one per core, at most
            16.
        test_fraction: Fraction of the cases to draw as test cases, if the data set has none. Defaults to a fraction
            fixed for each data set.
    """
    from scanseg import api

    with show_progress() as progress:
        result = api.convert(
            name, source, output, test_fraction=test_fraction, num_workers=num_workers, progress=progress
        )
    for line in first_lines([f"note: {note}" for note in result.notes]):
        print_line(line)
    counts = ", ".join(counted(number, f"{part} case") for part, number in result.num_cases.items())
    print_line(f"{result.folder}: {result.dataset}, {counts}; from {result.layout}")


def instances(
    predictions: Path,
    /,
    *,
    output: OutputFolder,
    min_voxels: Annotated[int, COMMON] = 0,
    num_workers: Annotated[int | None, HARDWARE] = None,
    interior: Annotated[int, ADVANCED] = 1,
    boundary: Annotated[int, ADVANCED] = 2,
    grow: Annotated[int, ADVANCED] = 1,
) -> None:
    """Convert label maps of interior and boundary to instance maps.

    This works in 2D and 3D.

    Args:
        predictions: Folder of label maps, or one file.
        output: Folder of the instance maps, with the names of the label maps. It must not exist, and appears once all
            maps are complete.
        min_voxels: Leave out instances with fewer voxels.
        num_workers: Processes that convert label maps. 0 converts in the main process. Defaults to one per core, at
            most 16.
        interior: Label value of the interior. Its connected parts become instances.
        boundary: Label value of the boundary, into which instances grow.
        grow: Voxels by which instances grow. 1 undoes the boundary drawn by `scanseg data convert`. 0 is as published.
    """
    from scanseg.evaluation import convert_to_instances
    from scanseg.runtime import RunContext, choose_workers

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
    print_line(f"{output}: {counted(len(files), 'instance map')}")
