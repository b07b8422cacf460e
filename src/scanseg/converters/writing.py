"""Writing of one case into the raw layout."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from scanseg.converters.sources import Part, Sample, SourceCase
from scanseg.errors import InputError
from scanseg.imaging import (
    DECODERS,
    MEDICAL_DECODERS,
    Image,
    PictureHeader,
    write_colours,
    write_image,
    write_instance_colours,
    write_instance_map,
    write_label_map,
)
from scanseg.imaging import file_ending as known_ending

_FOLDER_ENDS: dict[Part, str] = {"train": "Tr", "validation": "Tr", "test": "Ts"}
"""Ends of the names of the folders of each labelled part."""


def write_sample(
    folder: Path,
    case: SourceCase,
    sample: Sample,
    *,
    file_ending: str,
    unlabelled: str = "Ts",
    colours: Mapping[int, tuple[int, int, int]] | None = None,
) -> None:
    """Write the image, label map and instance map of a case.

    Their folders end in `Ts` for test cases and in `Tr` for training cases. A colour picture is one file. Other images
    are one file per channel. The maps of a picture look black in viewers, so `coloursTr` and `instanceColoursTr` hold
    them in colours too.

    Args:
        folder: Folder of the data set.
        case: Name and part of the case.
        sample: Image and maps to write.
        file_ending: Ending of all files.
        unlabelled: End of the name of the folder of unlabelled images.
        colours: Red, green and blue of label values, for `coloursTr`. Other values have the colours of a fixed
            palette.

    Raises:
        InputError: The format of the ending cannot store the case, or a file cannot be written.
    """
    part = _FOLDER_ENDS.get(case.part, unlabelled)
    image = _without_tag(_storable(sample.image))
    images = _make_folder(folder / f"images{part}")
    if file_ending == ".png":
        write_image(images / f"{case.name}_0000{file_ending}", image)
    else:
        for index, channel in enumerate(image.array):
            target = images / f"{case.name}_{index:04d}{file_ending}"
            write_image(target, replace(image, array=channel[np.newaxis]))
    if sample.label_map is None:
        return
    name = f"{case.name}{file_ending}"
    label_map = sample.label_map.array[0]
    write_label_map(_make_folder(folder / f"labels{part}") / name, label_map, like=image)
    is_picture = label_map.ndim == 2 and DECODERS[known_ending(Path(name))] not in MEDICAL_DECODERS
    if is_picture:
        shown = _make_folder(folder / f"colours{part}") / f"{case.name}.png"
        write_colours(shown, label_map, like=image, colours=colours)
    if sample.instances is not None:
        instances = sample.instances.array[0]
        write_instance_map(_make_folder(folder / f"instances{part}") / name, instances, like=image)
        if is_picture:
            shown = folder / f"instanceColours{part}" / f"{case.name}.png"
            write_instance_colours(shown, instances, like=image)


def _without_tag(image: Image) -> Image:
    """Return an image whose files hold the displayed picture.

    Programs that ignore orientation tags then show it correctly.
    """
    return replace(image, header=None) if isinstance(image.header, PictureHeader) else image


def _make_folder(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def _storable(image: Image) -> Image:
    """Return an image in a type that all formats support.

    Types of 64 bits become types of 32 bits.

    Raises:
        InputError: Integers exceed 32 bits.
    """
    array = image.array
    if array.dtype == np.float64:
        return replace(image, array=array.astype(np.float32))
    if array.dtype in (np.int64, np.uint64, np.uint32):
        if array.min() < np.iinfo(np.int32).min or array.max() > np.iinfo(np.int32).max:
            raise InputError(f"expected intensities of 32 bits, got {array.min()} to {array.max()}")
        return replace(image, array=array.astype(np.int32))
    return image
