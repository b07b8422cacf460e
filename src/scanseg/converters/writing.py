"""Write one case into the raw layout."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from scanseg.converters.sources import Sample, SourceCase
from scanseg.errors import InputError
from scanseg.imaging import Image, write_image, write_instance_map, write_label_map


def write_sample(folder: Path, case: SourceCase, sample: Sample, *, file_ending: str) -> None:
    """Write image, labels and objects of a case to their folders, which end in `Ts` for test cases.

    A colour picture is one file; the channels of other images are a file each.

    Args:
        folder: The data set's folder.
        case: The case.
        sample: What it holds.
        file_ending: Ending of all files.

    Raises:
        InputError: The case does not fit the ending, or a file cannot be written.
    """
    part = "Ts" if case.part == "test" else "Tr"
    image = _storable(sample.image)
    images = _made(folder / f"images{part}")
    if file_ending == ".png":
        write_image(images / f"{case.name}_0000{file_ending}", image)
    else:
        for index, channel in enumerate(image.array):
            target = images / f"{case.name}_{index:04d}{file_ending}"
            write_image(target, replace(image, array=channel[np.newaxis]))
    name = f"{case.name}{file_ending}"
    write_label_map(_made(folder / f"labels{part}") / name, sample.label_map.array[0], like=image)
    if sample.instances is not None:
        instances = sample.instances.array[0]
        write_instance_map(_made(folder / f"instances{part}") / name, instances, like=image)


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def _storable(image: Image) -> Image:
    """Return an image in a type that every format and reader has; 64 bits become 32."""
    array = image.array
    if array.dtype == np.float64:
        return replace(image, array=array.astype(np.float32))
    if array.dtype in (np.int64, np.uint64, np.uint32):
        if array.min() < np.iinfo(np.int32).min or array.max() > np.iinfo(np.int32).max:
            raise InputError(f"intensities from {array.min()} to {array.max()} do not fit 32 bits")
        return replace(image, array=array.astype(np.int32))
    return image
