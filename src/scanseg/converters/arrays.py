"""Arrays in `.npz` and HDF5 files as images. Pickles are never loaded."""

import zipfile
import zlib
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np

from scanseg.converters.sources import Sample
from scanseg.errors import InputError
from scanseg.imaging import Image
from scanseg.messages import listed

_NPZ_ERRORS = (
    *(OSError, EOFError, ValueError, LookupError, NotImplementedError, RuntimeError),
    *(MemoryError, OverflowError, zipfile.BadZipFile, zlib.error),
)
"""Errors of NumPy and of archives that are damaged, encrypted or compressed by an unknown method."""
_HDF5_ERRORS = (OSError, LookupError, RuntimeError, ValueError, TypeError, MemoryError)
"""Errors of h5py for damaged files, broken links and unknown compressions."""


def read_npz(path: Path, keys: Sequence[str]) -> list[np.ndarray]:
    """Read arrays of an `.npz` file.

    Args:
        path: File to read.
        keys: Names of the arrays.

    Raises:
        InputError: The file is damaged, lacks an array, or holds pickled objects.
    """
    try:
        with path.open("rb") as stream:
            content = np.load(stream, allow_pickle=False)
            if not isinstance(content, np.lib.npyio.NpzFile):
                raise InputError(
                    f"{path}: expected an .npz file of several arrays, got one array. Save it by numpy.savez."
                )
            _check_keys(path, content.keys(), keys)
            return [_numeric(path, key, content[key]) for key in keys]
    except _NPZ_ERRORS as error:
        raise InputError(
            f"{path}: expected plain arrays, the file is damaged or pickled ({error}). Copy or download it again."
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
            _check_keys(path, content.keys(), keys)
            groups = [key for key in keys if not isinstance(content[key], h5py.Dataset)]
            if groups:
                raise InputError(
                    f"{path}: expected arrays, got groups {', '.join(groups)}. Download it again."
                )
            return [_numeric(path, key, content[key][()]) for key in keys]
    except _HDF5_ERRORS as error:
        raise InputError(f"{path}: no HDF5 file, or damaged ({error}). Copy or download it again.") from error


def _check_keys(path: Path, found: Iterable[str], expected: Iterable[str]) -> None:
    """Check that a file holds arrays of all names."""
    names = list(found)
    missing = [key for key in expected if key not in names]
    if missing:
        raise InputError(
            f"{path}: expected arrays {', '.join(missing)}, got {listed(names) or 'none'}. Check the source."
        )


def _numeric(path: Path, name: str, values: object) -> np.ndarray:
    """Return an array of real numbers."""
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise InputError(f"{path}: expected real numbers in {name}, got {array.dtype}. Check the source.")
    return array


def stack_slices(paths: Sequence[Path], keys: Sequence[str]) -> list[np.ndarray]:
    """Read slices from `.npz` files, and stack them to two volumes.

    Args:
        paths: Files of the slices in the order of z.
        keys: Names of the image and the label map (y, x).

    Returns:
        The image and the label map (z, y, x).

    Raises:
        InputError: A file cannot be used, or the slices, or the image and the label map of a slice, differ in shape.
    """
    pairs = [read_npz(path, keys) for path in paths]
    shape = pairs[0][0].shape
    wrong = [
        f"{path}: expected shape {shape} as in {paths[0].name}, got image {image.shape} and label {label.shape}"
        for path, (image, label) in zip(paths, pairs, strict=True)
        if image.ndim != 2 or image.shape != shape or label.shape != shape
    ]
    if wrong:
        raise InputError("; ".join(wrong))
    return [np.stack(arrays) for arrays in zip(*pairs, strict=True)]


def find_missing_slices(numbers: Collection[int]) -> list[int]:
    """Return the missing numbers of slices, which are counted from 0.

    Args:
        numbers: Numbers of the slices of one case.
    """
    return sorted(set(range(max(numbers) + 1)) - set(numbers))


def volume_sample(image: np.ndarray, labels: np.ndarray, *, path: Path) -> Sample:
    """Return a volume and its labels with a spacing of 1.

    Args:
        image: Intensities (z, y, x).
        labels: Label map (z, y, x).
        path: File of the arrays, for messages.

    Raises:
        InputError: The shapes differ, or labels are not whole.
    """
    if image.ndim != 3 or labels.shape != image.shape:
        raise InputError(
            f"{path}: expected volumes of equal shape, got image {image.shape} and label {labels.shape}. Check the "
            "source."
        )
    if (labels != np.rint(labels)).any():
        raise InputError(f"{path}: expected whole numbers as labels, got fractions. Check the source.")
    return Sample(_unplaced_image(image.astype(np.float32)), _unplaced_image(labels.astype(np.int32)))


def _unplaced_image(array: np.ndarray) -> Image:
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
