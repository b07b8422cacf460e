"""Read images and label maps of any known format."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from scanseg.errors import InputError, UsageError
from scanseg.imaging.formats import DECODERS, LOSSY_ENDINGS, file_ending
from scanseg.imaging.image import Image, compare_geometry
from scanseg.imaging.itk import count_itk_channels, read_itk
from scanseg.imaging.nifti import describe_not_finite
from scanseg.imaging.raster import count_pillow_channels, count_tiff_channels, read_pillow, read_tiff
from scanseg.messages import counted

HIGHEST_LABEL = 255
HIGHEST_INSTANCE = 2**31 - 1


def read_image(paths: str | Path | Sequence[str | Path]) -> Image:
    """Read an image from one file, or from several that hold its channels.

    One file may hold several channels: a colour raster, a vector image, a NIfTI file of four axes (the last
    is the channel). Voxels keep the type they have in the file. Orientation tags of JPEG files are not
    followed: pixels are taken as they are stored.

    Args:
        paths: One file, or one file for each channel in their order.

    Raises:
        InputError: A file is missing, damaged, not an image, empty, holds NaN or infinities, has not two or
            three spatial axes, has an alpha channel that varies, or the files do not lie on one grid.
        UsageError: What is given names no files.
    """
    files = _files_of(paths)
    images = [_read_file(file, indices=False) for file in files]
    if len(images) == 1:
        return images[0]
    _check_channels(files, images)
    return replace(images[0], array=np.concatenate([image.array for image in images]))


def read_label_map(path: Path) -> Image:
    """Read a label map: integers from 0 to 255.

    Args:
        path: The file; floats are accepted where all of them are whole, several channels where they are equal.

    Returns:
        The label map as uint8 of shape (1, z, y, x) or (1, y, x), with its place in space.

    Raises:
        InputError: As `read_image`; or values are not whole, negative, above 255, the channels differ, or
            the format loses values.
    """
    image = _read_whole_numbers(path, what="label")
    array = image.array
    if array.min() < 0 or array.max() > HIGHEST_LABEL:
        raise InputError(
            f"{path}: label values from {array.min():g} to {array.max():g}; they must be from 0 to "
            f"{HIGHEST_LABEL}: number the labels anew."
        )
    return replace(image, array=array.astype(np.uint8))


def read_instance_map(path: Path) -> Image:
    """Read an instance map: one number for each object, 0 for none.

    Args:
        path: The file; floats are accepted where all of them are whole, several channels where they are equal.

    Returns:
        The instance map as int32 of shape (1, z, y, x) or (1, y, x), with its place in space.

    Raises:
        InputError: As `read_image`; or values are not whole, negative, or the format loses values.
    """
    image = _read_whole_numbers(path, what="instance")
    array = image.array
    if array.min() < 0 or array.max() > HIGHEST_INSTANCE:
        raise InputError(
            f"{path}: instance numbers from {array.min():g} to {array.max():g}; they must be from 0 to "
            f"{HIGHEST_INSTANCE}: number the instances anew."
        )
    return replace(image, array=array.astype(np.int32))


def _read_whole_numbers(path: Path, *, what: str) -> Image:
    """Read a map of whole numbers: one channel, in the type of the file."""
    if file_ending(path) in LOSSY_ENDINGS:
        raise InputError(f"{path}: JPEG changes values and cannot hold a {what} map; save it as PNG.")
    image = _read_file(path, indices=True)
    array = image.array[:1]
    if image.num_channels > 1 and not (image.array == array).all():
        raise InputError(
            f"{path}: a {what} map of {image.num_channels} channels that differ; save one integer per voxel."
        )
    if array.dtype.kind == "f" and not (array == np.rint(array)).all():
        wrong = array[array != np.rint(array)]
        raise InputError(
            f"{path}: {counted(wrong.size, f'{what} value')} not whole, such as {wrong.flat[0]}; "
            f"save {what}s as integers, without interpolation."
        )
    return replace(image, array=array)


def count_channels(path: Path) -> int:
    """Count the channels of an image file from its header.

    Args:
        path: The file.

    Raises:
        InputError: The file cannot be read.
    """
    _check_exists(path)
    decoder = DECODERS[file_ending(path)]
    if decoder == "itk":
        return count_itk_channels(path)
    return count_tiff_channels(path) if decoder == "tiff" else count_pillow_channels(path)


def _files_of(paths: object) -> list[Path]:
    """Return the files that a caller names, who may have given an image of another library instead."""
    if isinstance(paths, str | Path):
        return [Path(paths)]
    if not isinstance(paths, list | tuple) or not all(isinstance(path, str | Path) for path in paths):
        kind = f"{type(paths).__module__}.{type(paths).__qualname__}".removeprefix("builtins.")
        raise UsageError(
            f"an image of type {kind} cannot be read; give its file, or its channels' files in a list. "
            "A model also predicts from a NumPy array with its spacing."
        )
    if not paths:
        raise InputError("no files for an image; give at least one.")
    return [Path(path) for path in paths]


def _read_file(path: Path, *, indices: bool) -> Image:
    """Read one file and check what holds for every image."""
    _check_exists(path)
    decoder = DECODERS[file_ending(path)]
    if decoder == "itk":
        image = read_itk(path)
    elif decoder == "tiff":
        image = read_tiff(path)
    else:
        image = read_pillow(path, indices=indices)
    _check_values(path, image)
    return image


def _check_exists(path: Path) -> None:
    """Refuse what is not a file that can be opened."""
    if not path.is_file():
        raise InputError(f"{path}: {'not a file' if path.exists() else 'no such file'}.")
    try:
        path.open("rb").close()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); ask for the right to read it."
        ) from error


def _check_values(path: Path, image: Image) -> None:
    """Refuse an image without voxels, with values that are no numbers, or without a sensible spacing."""
    if image.array.size == 0:
        raise InputError(f"{path}: empty image of shape {image.shape}.")
    if not all(np.isfinite(value) and value > 0 for value in image.spacing):
        raise InputError(f"{path}: spacing {image.spacing} mm must be above 0; mend the header.")
    if image.array.dtype.kind == "f" and not np.isfinite(image.array).all():
        num_nan = int(np.isnan(image.array).sum())
        num_infinite = int(np.isinf(image.array).sum())
        raise InputError(describe_not_finite(path, num_nan, num_infinite, image.array.size))


def _check_channels(paths: Sequence[Path], images: Sequence[Image]) -> None:
    """Refuse channel files that hold several channels or lie on different grids."""
    faults = []
    for path, image in zip(paths, images, strict=True):
        if image.num_channels != 1:
            faults.append(f"{path} holds {image.num_channels} channels, and is one of {len(paths)} files")
        differences = compare_geometry(images[0], image)
        if differences:
            faults.append(f"{paths[0]} and {path.name} differ in {', '.join(differences)}")
    if faults:
        raise InputError(f"{'; '.join(faults)}; resample the channels of a case to one grid.")
