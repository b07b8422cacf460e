"""Arrays in `.npz` and HDF5 files as images; pickles are never loaded."""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from scanseg.errors import InputError
from scanseg.imaging import Image


def read_npz(path: Path, keys: Sequence[str]) -> list[np.ndarray]:
    """Read arrays of an `.npz` file.

    Args:
        path: The file.
        keys: Their names.

    Raises:
        InputError: The file is damaged, lacks an array, or holds pickled objects.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            missing = [key for key in keys if key not in content]
            if missing:
                raise InputError(
                    f"{path}: no array {', '.join(missing)}; it holds {', '.join(content) or 'nothing'}."
                )
            return [content[key] for key in keys]
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: damaged, or not made of plain arrays ({error}).") from error


def read_hdf5(path: Path, keys: Sequence[str]) -> list[np.ndarray]:
    """Read arrays of an HDF5 file.

    Args:
        path: The file.
        keys: Their names.

    Raises:
        InputError: h5py is not installed, the file is damaged, or lacks an array.
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
                    f"{path}: no array {', '.join(missing)}; it holds {', '.join(content) or 'nothing'}."
                )
            return [np.asarray(content[key][()]) for key in keys]
    except OSError as error:
        raise InputError(f"{path}: not an HDF5 file, or damaged ({error}).") from error


def unplaced_image(array: np.ndarray) -> Image:
    """Give an array of one channel, (z, y, x) or (y, x), a spacing of 1 and no place.

    Args:
        array: Intensities or labels.
    """
    return Image(
        array=array[np.newaxis],
        spacing=(1.0,) * array.ndim,
        origin=(0.0,) * array.ndim,
        direction=tuple(np.eye(array.ndim).ravel().tolist()),
    )


def stack_slices(pairs: Sequence[tuple[np.ndarray, np.ndarray]], paths: Sequence[Path]) -> list[np.ndarray]:
    """Stack images and labels of slices to two volumes.

    Args:
        pairs: Image and label of each slice, in the order of z.
        paths: Their files, for messages.

    Raises:
        InputError: The slices differ in shape, or an image in shape from its label.
    """
    shape = pairs[0][0].shape
    wrong = [
        f"{path}: image {image.shape} and label {label.shape}, where {paths[0].name} has {shape}"
        for path, (image, label) in zip(paths, pairs, strict=True)
        if image.ndim != 2 or image.shape != shape or label.shape != shape
    ]
    if wrong:
        raise InputError("; ".join(wrong))
    return [np.stack(arrays) for arrays in zip(*pairs, strict=True)]
