"""Read images and label maps of any known format."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from scanseg.errors import InputError, UsageError
from scanseg.imaging.dicom.reading import read_series, read_series_geometry
from scanseg.imaging.dicom.recognition import split_series_path
from scanseg.imaging.formats import LOSSY_ENDINGS, Decoder, decoder_of, file_ending
from scanseg.imaging.image import Image, compare_geometry
from scanseg.imaging.itk import count_itk_channels, read_itk, read_itk_geometry
from scanseg.imaging.nifti import count_nifti_channels, read_nifti, read_nifti_geometry
from scanseg.imaging.pictures import count_pillow_channels, read_pillow
from scanseg.imaging.raster import count_tiff_channels, read_tiff
from scanseg.messages import counted

HIGHEST_LABEL = 255
"""Highest value of a label map."""
HIGHEST_INSTANCE = 2**31 - 1
"""Highest number of an instance map."""


def read_image(paths: str | Path | Sequence[str | Path], *, num_channels: int | None = None) -> Image:
    """Read an image from one file, or from one file per channel.

    One file may hold several channels: a colour raster, a vector image, or a NIfTI file of four axes (the last is
    the channel). Voxels keep the type of the file. Orientation tags of JPEG, PNG and TIFF files are applied: the array
    is the displayed picture. A DICOM series has one channel.

    Args:
        paths: One file, or one file for each channel in order. A DICOM series is a folder, a zip file, or one of them
            with `/UID`.
        num_channels: Number of channels of the data set. If it is 1, the planes of TIFF files that may be slices or
            colours are slices. `None`: unknown.

    Returns:
        The image of shape (channel, z, y, x) or (channel, y, x), with its geometry.

    Raises:
        InputError: A file is missing, damaged, not an image, empty, holds NaN or infinities, does not have two or
            three spatial axes, has an alpha channel that varies, or the files do not lie on one grid.
        UsageError: `paths` is not a path or a list of paths.
    """
    files = _files_of(paths)
    images = [_read_file(file, indices=False, num_channels=num_channels) for file in files]
    if len(images) == 1:
        return images[0]
    _check_channels(files, images)
    return replace(
        images[0],
        array=np.concatenate([image.array for image in images]),
        warnings=tuple(warning for image in images for warning in image.warnings),
    )


def read_label_map(path: Path) -> Image:
    """Read a label map: integers from 0 to 255.

    Args:
        path: The file. Floats are accepted if all of them are whole, several channels if they are equal.

    Returns:
        The label map as uint8 of shape (1, z, y, x) or (1, y, x), with its geometry.

    Raises:
        InputError: As for `read_image`, or values are not whole, negative or above 255, the channels differ, or the
            format loses values.
    """
    image = _read_whole_numbers(path, kind="label")
    array = image.array
    if array.min() < 0 or array.max() > HIGHEST_LABEL:
        raise InputError(
            f"{path}: expected label values from 0 to {HIGHEST_LABEL}, got values from {array.min():g} to "
            f"{array.max():g}. Renumber the labels."
        )
    return replace(image, array=array.astype(np.uint8))


def read_instance_map(path: Path) -> Image:
    """Read an instance map: one number for each instance, 0 elsewhere.

    Args:
        path: The file. Floats are accepted if all of them are whole, several channels if they are equal.

    Returns:
        The instance map as int32 of shape (1, z, y, x) or (1, y, x), with its geometry.

    Raises:
        InputError: As for `read_image`, or values are not whole, negative or above 2^31 - 1, the channels differ, or
            the format loses values.
    """
    image = _read_whole_numbers(path, kind="instance")
    array = image.array
    if array.min() < 0 or array.max() > HIGHEST_INSTANCE:
        raise InputError(
            f"{path}: expected instance numbers from 0 to {HIGHEST_INSTANCE}, got numbers from {array.min():g} to "
            f"{array.max():g}. Renumber the instances."
        )
    return replace(image, array=array.astype(np.int32))


def read_stored_values(path: Path) -> Image:
    """Read a file of labels of any form with its stored values.

    Palette indices are not replaced by colours. Channels may differ, as in colour masks.

    Args:
        path: The file.

    Returns:
        The values of shape (channel, z, y, x) or (channel, y, x), with their geometry.

    Raises:
        InputError: As for `read_image`.
    """
    return _read_file(path, indices=file_ending(path) not in LOSSY_ENDINGS)


def _read_whole_numbers(path: Path, *, kind: str) -> Image:
    """Read a map of whole numbers.

    The result has one channel and the type of the file.
    """
    if file_ending(path) in LOSSY_ENDINGS:
        raise InputError(f"{path}: JPEG changes values and cannot hold a {kind} map. Save it as PNG.")
    image = _read_file(path, indices=True)
    array = image.array[:1]
    if image.num_channels > 1 and not (image.array == array).all():
        hint = " `scanseg data convert folder` converts colours." if kind == "label" else ""
        raise InputError(
            f"{path}: the {kind} map has {image.num_channels} channels that differ. Save one integer per voxel.{hint}"
        )
    if array.dtype.kind == "f" and not (array == np.rint(array)).all():
        wrong = array[array != np.rint(array)]
        raise InputError(
            f"{path}: {counted(wrong.size, f'{kind} value')} not whole, such as {wrong.flat[0]}. "
            f"Save {kind}s as integers, without interpolation."
        )
    return replace(image, array=array)


def count_channels(path: Path) -> int:
    """Count the channels of an image file from its header.

    Args:
        path: The file.

    Raises:
        InputError: The file cannot be read.
    """
    decoder = _existing_decoder(path)
    if decoder == "dicom":
        return 1
    if decoder == "nifti":
        return count_nifti_channels(path)
    if decoder == "itk":
        return count_itk_channels(path)
    return count_tiff_channels(path) if decoder == "tiff" else count_pillow_channels(path)


def read_geometry(paths: Sequence[Path]) -> Image | None:
    """Read the headers of the files of an image.

    Args:
        paths: One file, or one file for each channel.

    Returns:
        The image with the geometry of the first file and the warnings of all files. Its voxels are zeros that take no
        memory. `None`: the format has no header with a geometry.

    Raises:
        InputError: A header cannot be read.
    """
    readers = {"nifti": read_nifti_geometry, "itk": read_itk_geometry, "dicom": read_series_geometry}
    decoders = [decoder_of(path) for path in paths]
    if not paths or not set(decoders) <= readers.keys():
        return None
    images = []
    for path, decoder in zip(paths, decoders, strict=True):
        if decoder != "dicom":
            _check_exists(path)
        images.append(readers[decoder](path))
    num_channels = sum(image.num_channels for image in images)
    return replace(
        images[0],
        array=np.broadcast_to(images[0].array[:1], (num_channels, *images[0].shape)),
        warnings=tuple(warning for image in images for warning in image.warnings),
    )


def _files_of(paths: object) -> list[Path]:
    """Return the paths as a list.

    Raises:
        InputError: The list is empty.
        UsageError: The argument is of another type, such as an image of another library.
    """
    if isinstance(paths, str | Path):
        return [Path(paths)]
    if not isinstance(paths, list | tuple) or not all(isinstance(path, str | Path) for path in paths):
        kind = f"{type(paths).__module__}.{type(paths).__qualname__}".removeprefix("builtins.")
        raise UsageError(
            f"image: expected a path or a list of paths, got {kind}. Give its file, or the files of its channels in a "
            "list. A model also predicts from a NumPy array with its spacing."
        )
    if not paths:
        raise InputError("image: expected at least one file, got an empty list.")
    return [Path(path) for path in paths]


def _read_file(path: Path, *, indices: bool, num_channels: int | None = None) -> Image:
    """Read one file and check its values and spacing."""
    decoder = _existing_decoder(path)
    if decoder == "dicom":
        image = read_series(path)
    elif decoder == "nifti":
        image = read_nifti(path)
    elif decoder == "itk":
        image = read_itk(path)
    elif decoder == "tiff":
        image = read_tiff(path, indices=indices, num_channels=num_channels)
    else:
        image = read_pillow(path, indices=indices)
    check_values(path, image)
    return image


def _existing_decoder(path: Path) -> Decoder:
    """Return the decoder of a file that exists, or of a series.

    Raises:
        InputError: The file is missing, cannot be read, or has no known ending.
    """
    if split_series_path(path) is None:
        _check_exists(path)
    return decoder_of(path)


def _check_exists(path: Path) -> None:
    """Raise an error unless the path is a readable file."""
    if not path.is_file():
        raise InputError(f"{path}: {'not a file' if path.exists() else 'no such file'}.")
    try:
        path.open("rb").close()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}). Ask for permission to read it."
        ) from error


def check_values(path: Path, image: Image) -> None:
    """Check that an image has voxels, finite values and positive spacing.

    Args:
        path: Its file, or its name for messages.
        image: The image.

    Raises:
        InputError: It has none of one of them.
    """
    if image.array.size == 0:
        raise InputError(f"{path}: expected at least one voxel, got shape {image.shape}.")
    if not all(np.isfinite(value) and value > 0 for value in image.spacing):
        raise InputError(f"{path}: expected spacings above 0 mm, got {image.spacing}. Fix the header.")
    if image.array.dtype.kind == "f" and not np.isfinite(image.array).all():
        num_nan = int(np.isnan(image.array).sum())
        num_infinite = int(np.isinf(image.array).sum())
        raise InputError(_describe_not_finite(path, num_nan, num_infinite, image.array.size))


def _describe_not_finite(path: Path, num_nan: int, num_infinite: int, num_voxels: int) -> str:
    """Return the error message for voxels that are NaN or infinite."""
    counts = " and ".join(
        f"{counted(number, 'voxel')} {'is' if number == 1 else 'are'} {kind}"
        for number, kind in ((num_nan, "NaN"), (num_infinite, "infinite"))
        if number
    )
    return f"{path}: {counts}, of {num_voxels}. Replace them by a number (often 0)."


def _check_channels(paths: Sequence[Path], images: Sequence[Image]) -> None:
    """Check that files hold one channel each, on equal grids."""
    faults = []
    for path, image in zip(paths, images, strict=True):
        if image.num_channels != 1:
            faults.append(
                f"{path} is one of {len(paths)} files but holds {image.num_channels} channels instead of 1"
            )
        differences = compare_geometry(images[0], image)
        if differences:
            faults.append(f"{paths[0]} and {path.name} differ in {', '.join(differences)}")
    if faults:
        raise InputError(f"{'; '.join(faults)}. Resample the channels of a case to one grid.")
