"""Instance maps from label maps of interior and boundary."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from scanseg.errors import InputError, UsageError, refuse_faults
from scanseg.evaluation.instances import BOUNDARY, GROW, INTERIOR, NECK, find_instances
from scanseg.evaluation.pairs import Pair, case_name, list_label_maps
from scanseg.files import find_disk_fault, is_unused, new_folder
from scanseg.imaging import (
    DECODERS,
    MEDICAL_DECODERS,
    file_ending,
    read_label_map,
    write_instance_colours,
    write_instance_map,
)
from scanseg.runtime import RunContext, map_cases

INSTANCE_COLOURS = "colours"
"""Folder of the pictures in colours inside a folder of instance maps."""


def convert_to_instances(
    predictions: Path,
    output: Path,
    *,
    interior: int = INTERIOR,
    boundary: int | None = BOUNDARY,
    grow: int = GROW,
    neck: float = NECK,
    min_voxels: int = 0,
    context: RunContext,
) -> tuple[Path, ...]:
    """Write instance maps for a folder of interior and boundary label maps.

    Args:
        predictions: Folder of label maps, or one file.
        output: Folder for the instance maps, which have the same file names. It appears once all are written. The maps
            of pictures look black in viewers, so `colours` in it holds them in colours too.
        interior: Value of the voxels whose connected components are the instances.
        boundary: Value of the voxels that instances may grow into. `None`: no value.
        grow: Largest distance in voxels by which instances grow.
        neck: Split interiors at necks below this fraction of the narrower part's half width. 0: do not split.
        min_voxels: Smallest number of voxels of an instance. Smaller instances are left out.
        context: Worker processes and progress.

    Returns:
        Paths of the instance maps, sorted by name.

    Raises:
        InputError: Files cannot be read. The message lists all of them, and no file is written.
        UsageError: The output already exists.
        OSError: The disk is full. No file is written.
    """
    if not predictions.exists():
        raise InputError(f"{predictions}: no such file or folder.")
    if output.resolve() == (predictions if predictions.is_dir() else predictions.parent).resolve():
        raise UsageError(f"{output}: instance maps would replace the label maps. Choose another folder.")
    if output.exists() and (not output.is_dir() or not is_unused(output)):
        raise UsageError(f"{output} already exists. Choose a new folder, or remove it.")
    faults: list[str] = []
    if predictions.is_dir():
        files = list_label_maps(predictions, None, faults)
    else:
        files = {case_name(predictions): predictions}
    if not files and not faults:
        faults.append("no label maps")
    refuse_faults(predictions, faults)
    find = partial(
        find_instances, interior=interior, boundary=boundary, grow=grow, neck=neck, min_voxels=min_voxels
    )
    with new_folder(output) as folder:
        tasks = [Pair(name, path, folder / path.name) for name, path in files.items()]
        convert = partial(_convert, find=find)
        done = map_cases(convert, tasks, context=context, task="converting")
        refuse_faults(predictions, [fault for fault in done if fault is not None])
    return tuple(output / path.name for path in files.values())


def _convert(task: Pair, *, find: Callable[[np.ndarray], np.ndarray]) -> str | None:
    """Write the instances of one label map, or return its fault."""
    try:
        image = read_label_map(task.prediction)
        instances = find(image.array[0])
        write_instance_map(task.reference, instances, like=image)
        if instances.ndim == 2 and DECODERS[file_ending(task.reference)] not in MEDICAL_DECODERS:
            colours = task.reference.parent / INSTANCE_COLOURS / f"{task.name}.png"
            write_instance_colours(colours, instances, like=image)
    except InputError as error:
        if (full := find_disk_fault(error)) is not None:
            raise full from error
        return f"case {task.name}: {error}"
    return None
