"""Write label maps and probabilities, whole or not at all."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer

from scanseg.errors import InputError
from scanseg.files import write_text, written_whole
from scanseg.imaging.formats import DECODERS, DETACHED_ENDINGS, LOSSY_ENDINGS, file_ending
from scanseg.imaging.image import Image
from scanseg.imaging.itk import write_itk
from scanseg.imaging.raster import companion_path, write_pillow, write_tiff
from scanseg.imaging.reading import HIGHEST_LABEL


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
    ending = file_ending(path)
    _check_label_map(path, label_map, like)
    labels = label_map.astype(np.uint8, copy=False)
    decoder = DECODERS[ending]
    if ending in LOSSY_ENDINGS or ending in DETACHED_ENDINGS:
        raise InputError(f"{path}: label maps are not written as {ending}; use .nii.gz, .nrrd, .mha or .png.")
    if decoder == "itk":
        _write(path, lambda target: write_itk(target, labels, like))
    elif decoder == "tiff":
        if any(spacing != 1 for spacing in like.spacing):
            write_text(companion_path(path), json.dumps({"spacing": like.spacing}) + "\n")
        _write(path, lambda target: write_tiff(target, labels))
    elif labels.ndim == 2:
        _write(path, lambda target: write_pillow(target, labels))
    else:
        raise InputError(f"{path}: {ending} cannot hold three axes; use .nii.gz, .nrrd, .mha or .tif.")


def write_image(path: Path, image: Image) -> None:
    """Write one channel of a medical image with its geometry.

    The file appears under its name only once it is complete; one that is there is replaced.

    Args:
        path: The file, ending in `.nii.gz`, `.nii`, `.nrrd` or `.mha`.
        image: The image, of one channel.

    Raises:
        InputError: The ending is another, there are more channels, or the file cannot be written.
    """
    ending = file_ending(path)
    if DECODERS[ending] != "itk" or ending in DETACHED_ENDINGS:
        raise InputError(f"{path}: images are not written as {ending}; use .nii.gz, .nrrd or .mha.")
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


def _check_label_map(path: Path, label_map: np.ndarray, like: Image) -> None:
    """Refuse what cannot be a label map of this image."""
    if label_map.shape != like.shape:
        raise InputError(
            f"{path}: a label map of shape {label_map.shape} for an image of shape {like.shape}."
        )
    if label_map.dtype.kind not in "ui":
        raise InputError(f"{path}: a label map of type {label_map.dtype}; labels must be integers.")
    if label_map.size and (label_map.min() < 0 or label_map.max() > HIGHEST_LABEL):
        raise InputError(
            f"{path}: labels from {label_map.min()} to {label_map.max()}; they must be from 0 to {HIGHEST_LABEL}."
        )


def _write(path: Path, write: Callable[[Path], None]) -> None:
    """Write under a temporary name with the same ending, then rename."""
    try:
        with written_whole(path) as temporary:
            write(temporary)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}).") from error
