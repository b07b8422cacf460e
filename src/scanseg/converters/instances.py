"""Data sets of objects, each with its number: cells (NeurIPS 2022), nuclei (Data Science Bowl 2018)."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Integer, UInt8
from scipy import ndimage

from scanseg.converters.pictures import as_colour
from scanseg.converters.sources import Found, Part, Sample, SourceCase, first_folder, visible_files
from scanseg.errors import InputError
from scanseg.imaging import DECODERS, Image, read_image, read_instance_map, read_label_map
from scanseg.messages import counted

INTERIOR, BOUNDARY = 1, 2
LABELS = {"interior": INTERIOR, "boundary": BOUNDARY}


def interior_and_boundary(
    instances: Integer[np.ndarray, "*spatial"],
) -> UInt8[np.ndarray, "*spatial"]:
    """Return a label map of objects: their outermost voxels are boundary, the rest interior.

    A voxel is boundary if one of its neighbours, corners included, is of another object or of none; beyond the image
    nothing is known, so that its edge is no boundary. Objects that touch so stay apart in the interior.

    Args:
        instances: Number of the object of each voxel, 0 for none.
    """
    size = (3,) * instances.ndim
    uniform = ndimage.maximum_filter(instances, size) == ndimage.minimum_filter(instances, size)
    labels = np.where(uniform, np.uint8(INTERIOR), np.uint8(BOUNDARY))
    return np.where(instances > 0, labels, np.uint8(0))


def find_neurips(source: Path) -> Found | None:
    """Find `Training-labeled/images/NAME.*` with `labels/NAME_label.tiff`, and `Tuning` as the test part."""
    root = first_folder(source, (".", "NeurIPS22-CellSeg", "Training_Testing"), ("Training-labeled",))
    if root is None:
        return None
    cases: list[SourceCase] = []
    faults: list[str] = []
    parts: tuple[tuple[str, Part], ...] = (("Training-labeled", "train"), ("Tuning", "test"))
    notes = []
    for folder, part in parts:
        if part == "test" and not (root / folder / "labels").is_dir():
            notes.append(f"{folder}/labels is not there: there is no test part")
            continue
        found = _pair(root / folder / "images", root / folder / "labels", suffix="_label")
        cases += [SourceCase(name, part, read) for name, read in found[0].items()]
        faults += [f"{folder}: {fault}" for fault in found[1]]
    return Found(tuple(cases), tuple(faults), tuple(notes))


def find_numbered(source: Path) -> Found | None:
    """Find `images/NAME.*` with `instances/NAME.*` or `masks/NAME.*`: a number for each object.

    The folders may lie in `train` and `test`, which are then the parts.
    """
    parts: dict[Path, Part] = {source: "train"}
    if (source / "train" / "images").is_dir():
        parts = {source / "train": "train", source / "test": "test"}
    cases: list[SourceCase] = []
    faults: list[str] = []
    for folder, part in parts.items():
        if not (folder / "images").is_dir():
            continue
        second = next((name for name in ("instances", "masks") if (folder / name).is_dir()), None)
        if second is None:
            return None
        found = _pair(folder / "images", folder / second, suffix="")
        cases += [SourceCase(name, part, read) for name, read in found[0].items()]
        faults += [f"{folder.name}: {fault}" for fault in found[1]]
    return Found(tuple(cases), tuple(faults)) if cases or faults else None


def find_volumes(source: Path) -> Found | None:
    """Find volumes `images/NAME.*` with `instances/NAME.*`: a number for each object in three axes."""
    if not all((source / folder).is_dir() for folder in ("images", "instances")):
        return None
    readers, faults = _pair(source / "images", source / "instances", suffix="", read=_read_volume)
    cases = tuple(SourceCase(name, "train", read) for name, read in readers.items())
    return Found(cases, tuple(faults)) if cases or faults else None


def find_bowl(source: Path) -> Found | None:
    """Find `ID/images/ID.png` with `ID/masks/*.png`, one mask for each nucleus, as Kaggle gives them."""
    root = first_folder(source, ("stage1_train", "."), ("",))
    folders = [
        path
        for path in sorted((root or source).iterdir())
        if (path / "images" / f"{path.name}.png").is_file()
    ]
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
    return Found(tuple(cases), tuple(faults))


def _pair(
    images: Path, instances: Path, *, suffix: str, read: Callable[[Path, Path], Sample] | None = None
) -> tuple[dict[str, partial[Sample]], list[str]]:
    """Pair the pictures of two folders by name; returns readers by case, and what is missing."""
    by_name: list[dict[str, Path]] = []
    faults: list[str] = []
    for folder, ending in ((images, ""), (instances, suffix)):
        named: dict[str, Path] = {}
        for path in visible_files(folder):
            known = next((end for end in DECODERS if path.name.lower().endswith(end)), None)
            if known is not None:
                name = path.name[: -len(known)].removesuffix(ending)
                if name in named:
                    faults.append(f"{folder.name}: {named[name].name} and {path.name} have one name")
                named[name] = path
        by_name.append(named)
    pictures, numbers = by_name
    faults += [
        f"{pictures[name].name}: no instances in {instances.name}" for name in pictures if name not in numbers
    ]
    faults += [f"{numbers[name].name}: no image in {images.name}" for name in numbers if name not in pictures]
    both = sorted(pictures.keys() & numbers.keys())
    return {name: partial(read or _read_numbered, pictures[name], numbers[name]) for name in both}, faults


def _read_numbered(image: Path, instances: Path) -> Sample:
    numbers = read_instance_map(instances)
    if set(np.unique(numbers.array)) == {0, 255}:
        raise InputError(f"{instances}: holds 0 and 255 alone: a mask, and not a number for each object.")
    return _sample(image, numbers)


def _read_volume(image: Path, instances: Path) -> Sample:
    return _label(read_image(image), read_instance_map(instances), ())


def _read_masks(image: Path, masks: Sequence[Path]) -> Sample:
    """Read an image whose objects have a mask each; where masks overlap, the later one stands."""
    picture = read_image(image)
    numbers = np.zeros((1, *picture.shape), np.int32)
    for number, path in enumerate(masks, start=1):
        mask = read_label_map(path)
        if mask.shape != picture.shape:
            raise InputError(f"{path}: shape {mask.shape}, where the image has {picture.shape}.")
        numbers[mask.array > 0] = number
    return _sample(image, replace(picture, array=numbers))


def _sample(path: Path, instances: Image) -> Sample:
    """Return a colour picture with its objects, and what is lost of them."""
    picture, notes = as_colour(read_image(path))
    return _label(picture, instances, notes)


def _label(image: Image, instances: Image, notes: tuple[str, ...]) -> Sample:
    """Return an image with its objects as interior and boundary."""
    labels = interior_and_boundary(instances.array[0])[np.newaxis]
    all_objects = np.unique(instances.array[instances.array > 0])
    thin = len(all_objects) - len(np.unique(instances.array[labels == INTERIOR]))
    if thin:
        notes = (*notes, f"{thin} of {counted(len(all_objects), 'object')} too thin to have an interior")
    return Sample(image, replace(instances, array=labels), instances, notes)
