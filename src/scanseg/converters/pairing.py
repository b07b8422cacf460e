"""Pairs of image and map files with equal names."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from scanseg.converters.sources import Sample, note_unused, visible_files
from scanseg.imaging import DECODERS, read_image, read_label_map


def pair_by_name(
    images: Path, maps: Path, *, read: Callable[[Path, Path], Sample], noun: str, suffix: str = ""
) -> tuple[dict[str, partial[Sample]], list[str]]:
    """Pair the files of two folders by name.

    Args:
        images: Folder of images.
        maps: Folder of masks, label maps or instance maps.
        read: Function that reads a case from its two files.
        noun: Word for the content of a map, for messages.
        suffix: End of the names of maps.

    Returns:
        Reader of each case by name, and the faults.
    """
    faults: list[str] = []
    named_images = _by_name(images, faults)
    named_maps = _by_name(maps, faults, suffix=suffix)
    faults += [
        f"{path.name}: no {noun} in {maps.name}"
        for name, path in named_images.items()
        if name not in named_maps
    ]
    faults += [
        f"{path.name}: no image in {images.name}"
        for name, path in named_maps.items()
        if name not in named_images
    ]
    both = sorted(named_images.keys() & named_maps.keys())
    return {name: partial(read, named_images[name], named_maps[name]) for name in both}, faults


def note_unused_files(*folders: Path) -> list[str]:
    """Return notes on the content of folders that is no image file.

    Args:
        folders: Folders of images or maps.
    """
    return [note for folder in folders for note in note_unused(folder, _is_image)]


def read_pair(image: Path, label_map: Path) -> Sample:
    """Read an image and its label map.

    Args:
        image: File of the image.
        label_map: File of the label map.

    Raises:
        InputError: A file cannot be used.
    """
    return Sample(read_image(image), read_label_map(label_map))


def _by_name(folder: Path, faults: list[str], *, suffix: str = "") -> dict[str, Path]:
    """Return the images of a folder by name, and collect faults."""
    named: dict[str, Path] = {}
    for path in filter(_is_image, visible_files(folder)):
        ending = next(ending for ending in DECODERS if path.name.lower().endswith(ending))
        name = path.name[: -len(ending)].removesuffix(suffix)
        if name in named:
            faults.append(f"{folder.name}: {named[name].name} and {path.name} have one name")
        named[name] = path
    return named


def _is_image(path: Path) -> bool:
    """Return whether a path is a file of a known ending."""
    return path.is_file() and path.name.lower().endswith(tuple(DECODERS))
