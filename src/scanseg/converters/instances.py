"""Data sets of instances: cells (NeurIPS 2022) and nuclei (DSB 2018)."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Integer, UInt8
from scipy import ndimage

from scanseg.converters.pairing import note_unused_files, pair_by_name
from scanseg.converters.pictures import as_colour
from scanseg.converters.sources import (
    Found,
    Part,
    Sample,
    SourceCase,
    first_folder,
    note_unused,
    visible_files,
)
from scanseg.errors import InputError
from scanseg.imaging import Image, read_image, read_instance_map, read_label_map
from scanseg.messages import counted

INTERIOR, BOUNDARY = 1, 2
LABELS = {"interior": INTERIOR, "boundary": BOUNDARY}


def interior_and_boundary(
    instances: Integer[np.ndarray, "*spatial"],
) -> UInt8[np.ndarray, "*spatial"]:
    """Return a label map of the interior and the boundary of instances.

    A voxel of an instance is boundary if one of its neighbours, including those at corners, belongs to another instance
    or to none. The edge of the image is no boundary. The interiors of instances that touch are therefore separate.

    Args:
        instances: Instance map (z, y, x) or (y, x).
    """
    size = (3,) * instances.ndim
    uniform = ndimage.maximum_filter(instances, size) == ndimage.minimum_filter(instances, size)
    labels = np.where(uniform, np.uint8(INTERIOR), np.uint8(BOUNDARY))
    return np.where(instances > 0, labels, np.uint8(0))


def find_neurips(source: Path) -> Found | None:
    """Find the cells of the NeurIPS 2022 challenge.

    Training images are `Training-labeled/images/NAME.*`, instance maps `Training-labeled/labels/NAME_label.tiff`. The
    folder `Tuning` is the test part.
    """
    root = first_folder(source, (".", "NeurIPS22-CellSeg", "Training_Testing"), ("Training-labeled",))
    if root is None:
        return None
    cases: list[SourceCase] = []
    faults: list[str] = []
    parts: tuple[tuple[str, Part], ...] = (("Training-labeled", "train"), ("Tuning", "test"))
    notes = []
    for folder, part in parts:
        if part == "test" and not (root / folder / "labels").is_dir():
            notes.append(f"{folder}/labels is missing, so the test part is empty")
            continue
        folders = (root / folder / "images", root / folder / "labels")
        readers, unpaired = pair_by_name(*folders, read=_read_numbered, noun="instances", suffix="_label")
        cases += [SourceCase(name, part, read) for name, read in readers.items()]
        faults += [f"{folder}: {fault}" for fault in unpaired]
        notes += note_unused_files(*folders)
    return Found(tuple(cases), tuple(faults), tuple(notes))


def find_numbered(source: Path) -> Found | None:
    """Find pictures `images/NAME.*` with their instance maps.

    Instance maps are `instances/NAME.*` or `masks/NAME.*`. The folders may be inside `train` and `test`, which are then
    the parts.
    """
    parts: dict[Path, Part] = {source: "train"}
    if (source / "train" / "images").is_dir():
        parts = {source / "train": "train", source / "test": "test"}
    cases: list[SourceCase] = []
    faults: list[str] = []
    notes: list[str] = []
    for folder, part in parts.items():
        if not (folder / "images").is_dir():
            continue
        second = next((name for name in ("instances", "masks") if (folder / name).is_dir()), None)
        if second is None:
            return None
        folders = (folder / "images", folder / second)
        readers, unpaired = pair_by_name(*folders, read=_read_numbered, noun="instances")
        cases += [SourceCase(name, part, read) for name, read in readers.items()]
        faults += [f"{folder.name}: {fault}" for fault in unpaired]
        notes += note_unused_files(*folders)
    return Found(tuple(cases), tuple(faults), tuple(notes)) if cases or faults else None


def find_volumes(source: Path) -> Found | None:
    """Find volumes `images/NAME.*` with instance maps `instances/NAME.*`."""
    folders = (source / "images", source / "instances")
    if not all(folder.is_dir() for folder in folders):
        return None
    readers, faults = pair_by_name(*folders, read=_read_volume, noun="instances")
    cases = tuple(SourceCase(name, "train", read) for name, read in readers.items())
    return Found(cases, tuple(faults), tuple(note_unused_files(*folders))) if cases or faults else None


def find_bowl(source: Path) -> Found | None:
    """Find the nuclei of the Data Science Bowl 2018 in Kaggle's layout.

    Images are `ID/images/ID.png`. Each nucleus has one mask `ID/masks/*.png`.
    """
    root = source / "stage1_train"
    root = root if root.is_dir() else source
    folders = [path for path in sorted(root.iterdir()) if (path / "images" / f"{path.name}.png").is_file()]
    if not folders:
        return None
    cases, faults = [], []
    for folder in folders:
        masks = tuple(visible_files(folder / "masks"))
        if masks:
            image = folder / "images" / f"{folder.name}.png"
            cases.append(SourceCase(folder.name, "train", partial(_read_masks, image, masks)))
        else:
            faults.append(f"{folder.name}: no masks in {folder.name}/masks")
    return Found(tuple(cases), tuple(faults), note_unused(root, set(folders).__contains__))


def _read_numbered(image: Path, instances: Path) -> Sample:
    numbers = read_instance_map(instances)
    if set(np.unique(numbers.array)) == {0, 255}:
        raise InputError(f"{instances}: expected a number for each instance, got a mask of 0 and 255.")
    return _sample(image, numbers)


def _read_volume(image: Path, instances: Path) -> Sample:
    return _label(read_image(image), read_instance_map(instances), ())


def _read_masks(image: Path, masks: Sequence[Path]) -> Sample:
    """Read an image and one mask for each instance.

    The last mask wins if masks overlap.
    """
    picture = read_image(image)
    numbers = np.zeros((1, *picture.shape), np.int32)
    for number, path in enumerate(masks, start=1):
        mask = read_label_map(path)
        if mask.shape != picture.shape:
            raise InputError(f"{path}: expected shape {picture.shape} of the image, got {mask.shape}.")
        numbers[mask.array > 0] = number
    return _sample(image, replace(picture, array=numbers))


def _sample(path: Path, instances: Image) -> Sample:
    """Read a picture as colour and add its instances."""
    picture, notes = as_colour(read_image(path))
    return _label(picture, instances, notes)


def _label(image: Image, instances: Image, notes: tuple[str, ...]) -> Sample:
    """Return an image with the interior and boundary of its instances.

    A note reports instances without interior.
    """
    labels = interior_and_boundary(instances.array[0])[np.newaxis]
    numbers = np.unique(instances.array[instances.array > 0])
    thin = len(numbers) - len(np.unique(instances.array[labels == INTERIOR]))
    if thin:
        notes = (*notes, f"{thin} of {counted(len(numbers), 'instance')} too thin to have an interior")
    return Sample(image, replace(instances, array=labels), instances, notes)
