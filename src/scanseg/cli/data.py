"""`scanseg data`: converters of folders and data sets, and instance maps."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from scanseg.cli.console import print_colours, print_line, show_table, suggest_command
from scanseg.cli.options import ADVANCED, COMMON, HARDWARE, OutputFolder, split_names
from scanseg.errors import UsageError, refuse_faults
from scanseg.messages import counted, first_lines, listed, merge_cases
from scanseg.progress_display import show_progress

_NOTHING_WRITTEN = "nothing was written (--dry-run)"
_MOST_NAMED = 4
"""Largest number of labels in the advice to name them."""


def list_datasets() -> None:
    """List the converters: own folders and public data sets."""
    from scanseg.converters import NAMED_DATASETS, OWN_FOLDER

    converters = (OWN_FOLDER, *NAMED_DATASETS.values())
    rows = [(one.name, one.content, one.split, one.homepage or "your own data") for one in converters]
    show_table(("name", "content", "split", "source"), rows, align="left")


def convert(
    converter: Annotated[str, Parameter(name="NAME")],
    source: Path,
    label_maps: Annotated[Path | None, Parameter(name="LABELS")] = None,
    /,
    *,
    output: Annotated[Path | None, COMMON, Parameter(name=("--output", "-o"))] = None,
    labels: Annotated[str | None, COMMON] = None,
    channels: Annotated[str, COMMON] = "",
    test_fraction: Annotated[float | None, COMMON] = None,
    dry_run: Annotated[bool, COMMON] = False,
    dataset_name: Annotated[str | None, COMMON, Parameter(name="--name")] = None,
    num_workers: Annotated[int | None, HARDWARE] = None,
    overlap: Annotated[Literal["refuse", "last"], ADVANCED] = "refuse",
) -> None:
    """Convert a folder or a public data set to nnU-Net's raw layout.

    A published split is kept. Faults of the source are reported together, and nothing is written in that case.

    Args:
        converter: `folder` for your own images and label maps, or a name from `scanseg data list`.
        source: Folder of your images, or of the downloaded data set.
        label_maps: Folder of your label maps. Defaults to label maps inside the folder of images. Only for `folder`,
            as `--labels`, `--channels` and `--overlap`.
        output: Folder to write. It must not exist. Defaults to none, which needs `--dry-run`.
        labels: Values or colours of the labels: `liver=1,spleen=2`, `road=#ff0000`, or a file with `name value` or
            `name r g b` on each line. For one mask per structure, the structures to use. Defaults to all values found.
        channels: Names of the channels in order, separated by commas. Names of image files may end with them, such as
            `CASE_t1` and `CASE_flair`. `CT` chooses the normalization of CT. Defaults to
            `R,G,B` or `intensity`.
        test_fraction: Fraction of the cases to draw as test cases, if the data set has none. Defaults to none for
            `folder`, otherwise to a fraction fixed for each data set.
        dry_run: Print the content of the source. Nothing is written. For `folder`: pairs, labels, sizes and left
            out files of up to 20 cases. Otherwise every case is read: cases of each part, channels, labels and notes.
        dataset_name: Name of the converted data set. Defaults to that of the public data set, or of the output folder.
        num_workers: Processes that convert cases. 0 converts in the main process. Defaults to one per core, at most
            16.
        overlap: Treatment of voxels in several structure masks: an error, or the last label.
    """
    names = split_names(channels)
    if dry_run and converter == "folder":
        _show_folder(source, label_maps, labels=labels, channels=names, num_workers=num_workers)
        return
    if dry_run:
        if label_maps is not None or labels is not None or names or overlap != "refuse":
            raise UsageError(
                f"{converter}: LABELS, --labels, --channels and --overlap are only for `folder`."
            )
        _show_source(converter, source, test_fraction=test_fraction, num_workers=num_workers)
        return
    if output is None:
        raise UsageError("--output: expected a new folder, got none. Add -o DATASET, or --dry-run.")
    with show_progress(f"converting {source}") as progress:
        from scanseg import api

        result = api.convert(
            converter,
            source,
            output,
            label_maps=label_maps,
            labels=labels,
            channels=names,
            overlap=overlap,
            dataset_name=dataset_name,
            test_fraction=test_fraction,
            num_workers=num_workers,
            progress=progress,
        )
    _print_notes(result.notes)
    counts = ", ".join(counted(number, f"{part} case") for part, number in result.num_cases.items())
    print_line(f"{result.folder}: {result.name}, {counts}; by {result.dataset} from {result.layout}")
    suggest_command("to check it", "check", result.folder)


def _show_folder(
    source: Path,
    label_maps: Path | None,
    *,
    labels: str | None,
    channels: tuple[str, ...],
    num_workers: int | None,
) -> None:
    """Print the content of an own folder.

    Raises:
        InputError: The folder has faults.
    """
    with show_progress(f"inspecting {source}") as progress:
        from scanseg import api
        from scanseg.converters import name_folders

        found = api.inspect_folder(
            source, label_maps, labels=labels, channels=channels, num_workers=num_workers, progress=progress
        )
    print_line(f"layout: {found.layout}")
    print_line(f"cases: {len(found.labelled)} with label map, {len(found.unlabelled)} without")
    for images, label_map in found.pairs:
        print_line(f"  {images}  with  {label_map}")
    if len(found.labelled) > len(found.pairs):
        print_line(f"  and {len(found.labelled) - len(found.pairs)} more")
    if found.unlabelled:
        print_line(f"without label map, for prediction: {listed(found.unlabelled)}")
    print_line(f"channels: {', '.join(found.channels) or 'unknown'}")
    _show_sizes("size (voxels)" if found.spacings else "size (pixels)", found.shapes)
    _show_sizes("spacing (mm)", found.spacings)
    if found.labels:
        print_line(f"labels in {counted(found.num_read, 'case')}:")
        rows = [
            (one.name, str(one.value), one.source, str(one.num_cases), str(one.num_voxels))
            for one in found.labels
        ]
        show_table(("label", "value", "in the files", "cases", "voxels"), rows)
    keys = [one.source for one in found.labels if one.value and one.source != one.name]
    if keys and labels is None:
        more = ",..." if len(keys) > _MOST_NAMED else ""
        print_line(f"to name them:  --labels {','.join(f'NAME={key}' for key in keys[:_MOST_NAMED])}{more}")
    for ignored in first_lines(found.ignored):
        print_line(f"left out: {ignored}")
    for note in found.notes:
        print_line(f"note: {note}")
    refuse_faults(name_folders(source, label_maps), found.faults)
    print_line(_NOTHING_WRITTEN)


def _show_source(
    converter: str, source: Path, *, test_fraction: float | None, num_workers: int | None
) -> None:
    """Print the content of a public data set.

    Raises:
        InputError: The data set has faults.
    """
    with show_progress(f"inspecting {source}") as progress:
        from scanseg import api

        found = api.inspect_source(
            converter, source, test_fraction=test_fraction, num_workers=num_workers, progress=progress
        )
    print_line(f"layout: {found.layout}")
    print_line(f"cases: {', '.join(f'{number} {part}' for part, number in found.num_cases.items())}")
    print_line(f"channels: {', '.join(found.channels)}")
    print_line("labels: " + ", ".join(f"{name} {value}" for name, value in found.labels.items()))
    _print_notes(found.notes)
    print_line(_NOTHING_WRITTEN)


def _print_notes(notes: Sequence[str]) -> None:
    """Print notes, at most the first twenty."""
    for line in first_lines([f"note: {note}" for note in merge_cases(notes)]):
        print_line(line)


def _show_sizes(name: str, sizes: Sequence[tuple[float, ...]]) -> None:
    """Print the smallest and the largest size along each axis."""
    texts = [" x ".join(f"{size:g}" for size in axes) for axes in sizes]
    if texts:
        print_line(f"{name}: {texts[0] if len(texts) == 1 else f'{texts[0]} to {texts[-1]}'}")


def instances(
    predictions: Path,
    /,
    *,
    output: OutputFolder,
    min_voxels: Annotated[int, COMMON] = 0,
    num_workers: Annotated[int | None, HARDWARE] = None,
    interior: Annotated[int, ADVANCED] = 1,
    boundary: Annotated[int, ADVANCED] = 2,
    grow: Annotated[int, ADVANCED] = 2,
    neck: Annotated[float, ADVANCED] = 0.6,
) -> None:
    """Convert label maps of interior and boundary to instance maps.

    This works in 2D and 3D.

    Args:
        predictions: Folder of label maps, or one file.
        output: Folder of the instance maps, with the names of the label maps. It must not exist, and appears once all
            maps are complete. Maps of pictures look black in viewers, so `colours` in it shows them in colours.
        min_voxels: Leave out instances with fewer voxels.
        num_workers: Processes that convert label maps. 0 converts in the main process. Defaults to one per core, at
            most 16.
        interior: Label value of the interior. Its connected parts become instances.
        boundary: Label value of the boundary, into which instances grow.
        grow: Largest number of voxels by which instances grow into the boundary. `scanseg data convert` draws a
            boundary of one voxel, and networks often a thicker one. 0 is as published.
        neck: Split interiors at necks narrower than this fraction of the narrower part, from 0 to 1. 0 splits nothing,
            as published.
    """
    with show_progress(f"converting {predictions}") as progress:
        from scanseg.evaluation import convert_to_instances
        from scanseg.runtime import RunContext, choose_workers

        files = convert_to_instances(
            predictions,
            output,
            interior=interior,
            boundary=boundary,
            grow=grow,
            neck=neck,
            min_voxels=min_voxels,
            context=RunContext(num_workers=choose_workers(num_workers), progress=progress),
        )
    print_line(f"{output}: {counted(len(files), 'instance map')}")
    print_colours(output)
