"""The store: preprocessed cases as compressed arrays that can be read in part."""

from pathlib import Path
from typing import Any, Self

import numpy as np
from jaxtyping import Float16, UInt8

from scanseg.data.raw import RawDataset
from scanseg.progress import ProgressListener, ignore_progress
from scanseg.specs import PreprocessingSpec, Splits, StoredCase, StoreIndex


class Store:
    """A finished store, open for reading."""

    def __init__(self, folder: Path, index: StoreIndex) -> None:
        self.folder = folder
        self.index = index

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open a finished store.

        Args:
            folder: Folder of the store.

        Raises:
            InputError: There is no store, it is unfinished, or arrays are missing.
        """
        raise NotImplementedError

    def case(self, name: str) -> StoredCase:
        """Return a case by its name.

        Args:
            name: Name of the case.

        Raises:
            InputError: The store has no such case.
        """
        raise NotImplementedError

    def open_image(self, case: StoredCase) -> Any:
        """Return the image as a `blosc2.NDArray` float16 (channel, z, y, x): slicing it reads that part."""
        raise NotImplementedError

    def open_label_map(self, case: StoredCase) -> Any:
        """Return the label map as a `blosc2.NDArray` uint8 (z, y, x): slicing it reads that part."""
        raise NotImplementedError

    def read_image(self, case: StoredCase) -> Float16[np.ndarray, "channel z y x"]:
        """Read the whole preprocessed image."""
        raise NotImplementedError

    def read_label_map(self, case: StoredCase) -> UInt8[np.ndarray, "z y x"]:
        """Read the whole preprocessed label map."""
        raise NotImplementedError

    def read_reference(self, case: StoredCase) -> UInt8[np.ndarray, "*source"]:
        """Read the label map on the source's grid, of shape (z, y, x) or (y, x), as it was annotated."""
        raise NotImplementedError


def store_name(dataset_name: str, preprocessing: PreprocessingSpec) -> str:
    """Return a folder name for a store: the data set's name and a short hash of the preprocessing.

    Args:
        dataset_name: Name of the data set.
        preprocessing: How its cases are preprocessed.
    """
    raise NotImplementedError


def build_store(
    dataset: RawDataset,
    *,
    preprocessing: PreprocessingSpec,
    splits: Splits,
    folder: Path,
    num_workers: int,
    listen: ProgressListener = ignore_progress,
) -> Store:
    """Preprocess all cases of a data set into a store.

    A finished store of the same content is used as it is, an interrupted one is completed, and cases whose source
    files have changed since are made anew.

    Args:
        dataset: The data set.
        preprocessing: How its cases are preprocessed.
        splits: The folds that the store's index carries.
        folder: Folder of the store; made where it is not there.
        num_workers: Processes that preprocess; 0 does it in this one.
        listen: Hears of each case that is done.

    Raises:
        InputError: A case cannot be preprocessed, or the folder holds something else or a store of another
            data set or preprocessing.
    """
    raise NotImplementedError
