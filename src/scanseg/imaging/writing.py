"""Write label maps and probabilities, whole or not at all."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer

from scanseg.errors import InputError, reason_of
from scanseg.files import write_text, written_whole
from scanseg.imaging.formats import DECODERS, DETACHED_ENDINGS, LOSSY_ENDINGS, file_ending
from scanseg.imaging.image import Image
from scanseg.imaging.itk import write_itk
from scanseg.imaging.raster import companion_path, write_pillow, write_tiff
from scanseg.imaging.reading import HIGHEST_INSTANCE, HIGHEST_LABEL
from scanseg.messages import counted

HIGHEST_UINT16 = 65535


def write_label_map(path: Path, label_map: Integer[np.ndarray, "*spatial"], *, like: Image) -> None:
    """Write a label map as uint8, on the grid of an image.

    The file appears under its name only once it is complete; one that is there is replaced. Spacing other
    than 1 goes into a JSON file beside a TIFF file; PNG and BMP files have none.

    Args:
        path: The file; its ending chooses the format.
        label_map: Labels from 0 to 255, of shape (z, y, x) or (y, x).
        like: The image whose shape, spacing, origin and direction the label map has.

    Raises:
        InputError: The ending is not one that can hold a label map without loss, shape or values do not
            fit, or the file cannot be written.
    """
    _check_integers(path, label_map, like, highest=HIGHEST_LABEL, what="label")
    _write_integers(path, label_map.astype(np.uint8, copy=False), like)


def write_instance_map(path: Path, instances: Integer[np.ndarray, "*spatial"], *, like: Image) -> None:
    """Write an instance map on the grid of an image, as uint16, or int32 where there are more than 65535 instances.

    Args:
        path: The file; its ending chooses the format.
        instances: Numbers of objects, 0 for none, of shape (z, y, x) or (y, x).
        like: The image whose shape, spacing, origin and direction the map has.

    Raises:
        InputError: As `write_label_map`, with whole numbers up to 65535 in a picture, else 2^31 - 1.
    """
    is_picture = DECODERS[file_ending(path)] == "pillow"
    _check_integers(
        path, instances, like, highest=HIGHEST_UINT16 if is_picture else HIGHEST_INSTANCE, what="instance"
    )
    dtype = np.int32 if instances.max(initial=0) > HIGHEST_UINT16 else np.uint16
    _write_integers(path, instances.astype(dtype, copy=False), like)


def write_image(path: Path, image: Image) -> None:
    """Write one channel of a medical image with its geometry, or a grey or colour picture of 8 bits.

    The file appears under its name only once it is complete; one that is there is replaced.

    Args:
        path: The file, ending in `.nii.gz`, `.nii`, `.nrrd` or `.mha`, or in `.png`.
        image: The image, of one channel; for `.png` of one or three channels of uint8 and two axes.

    Raises:
        InputError: The ending is another, the image does not fit it, or the file cannot be written.
    """
    ending = file_ending(path)
    if ending == ".png":
        if image.array.dtype != np.uint8 or image.num_channels not in (1, 3) or image.num_axes != 2:
            raise InputError(
                f"{path}: an image of {counted(image.num_channels, 'channel')} of {image.array.dtype} and "
                f"{image.num_axes} axes; "
                "pictures have 1 or 3 channels of uint8 and 2 axes."
            )
        pixels = image.array[0] if image.num_channels == 1 else np.moveaxis(image.array, 0, -1)
        _write(path, lambda target: write_pillow(target, np.ascontiguousarray(pixels)))
        return
    if DECODERS[ending] != "itk" or ending in DETACHED_ENDINGS:
        raise InputError(f"{path}: images are not written as {ending}; use .nii.gz, .nrrd, .mha or .png.")
    if image.num_channels != 1:
        raise InputError(f"{path}: an image of {image.num_channels} channels; write a file for each.")
    _write(path, lambda target: write_itk(target, image.array[0], image))


def write_probabilities(
    path: Path, probabilities: Float[np.ndarray, "output *spatial"], *, like: Image
) -> None:
    """Write probabilities as a compressed `.npz` with the one array `probabilities`, in float16.

    The file appears under its name only once it is complete; one that is there is replaced.

    Args:
        path: The file, ending in `.npz`.
        probabilities: Values in [0, 1] of shape (output, z, y, x) or (output, y, x), on the source grid.
        like: The image whose shape the probabilities have.

    Raises:
        InputError: The ending is not `.npz`, the shape is not that of the image, or the file cannot be
            written.
    """
    if path.suffix != ".npz":
        raise InputError(f"{path}: probabilities are written as .npz; change the ending.")
    if probabilities.shape[1:] != like.shape:
        raise InputError(
            f"{path}: probabilities of shape {probabilities.shape[1:]} for an image of {like.shape}."
        )
    values = probabilities.astype(np.float16, copy=False)
    _write(path, lambda target: np.savez_compressed(target, probabilities=values))


def _check_integers(path: Path, numbers: np.ndarray, like: Image, *, highest: int, what: str) -> None:
    """Refuse what cannot be a map of labels or instances of this image."""
    if numbers.shape != like.shape:
        raise InputError(
            f"{path}: {_article(what)} map of shape {numbers.shape} for an image of shape {like.shape}."
        )
    if numbers.dtype.kind not in "ui":
        raise InputError(f"{path}: {_article(what)} map of type {numbers.dtype}; {what}s must be integers.")
    if numbers.size and (numbers.min() < 0 or numbers.max() > highest):
        raise InputError(
            f"{path}: {what}s from {numbers.min()} to {numbers.max()}; they must be from 0 to {highest}."
        )


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _write_integers(path: Path, numbers: np.ndarray, like: Image) -> None:
    """Write a map of labels or instances in the format of the file's ending."""
    ending = file_ending(path)
    decoder = DECODERS[ending]
    if ending in LOSSY_ENDINGS or ending in DETACHED_ENDINGS:
        raise InputError(f"{path}: label maps are not written as {ending}; use .nii.gz, .nrrd, .mha or .png.")
    if decoder == "itk":
        _write(path, lambda target: write_itk(target, numbers, like))
    elif decoder == "tiff":
        if any(spacing != 1 for spacing in like.spacing):
            write_text(companion_path(path), json.dumps({"spacing": like.spacing}) + "\n")
        _write(path, lambda target: write_tiff(target, numbers))
    elif numbers.ndim == 2:
        _write(path, lambda target: write_pillow(target, numbers))
    else:
        raise InputError(f"{path}: {ending} cannot hold three axes; use .nii.gz, .nrrd, .mha or .tif.")


def _write(path: Path, write: Callable[[Path], None]) -> None:
    """Write under a temporary name with the same ending, then rename."""
    try:
        with written_whole(path) as temporary:
            write(temporary)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({reason_of(error)}).") from error
