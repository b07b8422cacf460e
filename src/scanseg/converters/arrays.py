"""Arrays in `.npz` and HDF5 files as images. Pickles are never loaded."""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from scanseg.errors import InputError
from scanseg.imaging import Image


def read_npz(path: Path, keys: Sequence[str]) -> list[np.ndarray]:
    """Read arrays of an `.npz` file.

    Args:
        path: File to read.
        keys: Names of the arrays.

    Raises:
        InputError: The file is damaged, lacks an array, or holds pickled objects.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            missing = [key for key in keys if key not in content]
            if missing:
                raise InputError(
                    f"{path}: expected arrays {', '.join(missing)}, got {', '.join(content) or 'none'}."
                )
            return [content[key] for key in keys]
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path}: expected plain arrays, the file is damaged or pickled ({error})."
        ) from error


def read_hdf5(path: Path, keys: Sequence[str]) -> list[np.ndarray]:
    """Read arrays of an HDF5 file.

    Args:
        path: File to read.
        keys: Names of the arrays.

    Raises:
        InputError: h5py is not installed, or the file is damaged or lacks an array.
    """
    try:
        import h5py
    except ImportError as error:
        raise InputError(f'{path}: HDF5 files need h5py: pip install "scanseg[h5]"') from error
    try:
        with h5py.File(path, "r") as content:
            missing = [key for key in keys if key not in content]
            if missing:
                raise InputError(
                    f"{path}: expected arrays {', '.join(missing)}, got {', '.join(content) or 'none'}."
                )
            return [np.asarray(content[key][()]) for key in keys]
    except OSError as error:
        raise InputError(f"{path}: no HDF5 file, or damaged ({error}).") from error


def unplaced_image(array: np.ndarray) -> Image:
    """Return an array as an image of spacing 1 at origin 0.

    Args:
        array: Intensities or labels of one channel, (z, y, x) or (y, x).
    """
    return Image(
        array=array[np.newaxis],
        spacing=(1.0,) * array.ndim,
        origin=(0.0,) * array.ndim,
        direction=tuple(np.eye(array.ndim).ravel().tolist()),
    )


def stack_slices(pairs: Sequence[tuple[np.ndarray, np.ndarray]], paths: Sequence[Path]) -> list[np.ndarray]:
    """Stack the images and label maps of slices to two volumes.

    Args:
        pairs: Image and label map (y, x) of each slice, in the order of z.
        paths: Files of the slices, for messages.

    Returns:
        The image and the label map (z, y, x).

    Raises:
        InputError: The slices, or the image and the label map of a slice, differ in shape.
    """
    shape = pairs[0][0].shape
    wrong = [
        f"{path}: expected shape {shape} as in {paths[0].name}, got image {image.shape} and label {label.shape}"
        for path, (image, label) in zip(paths, pairs, strict=True)
        if image.ndim != 2 or image.shape != shape or label.shape != shape
    ]
    if wrong:
        raise InputError("; ".join(wrong))
    return [np.stack(arrays) for arrays in zip(*pairs, strict=True)]
