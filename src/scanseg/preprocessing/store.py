"""Stores: folders of preprocessed cases as compressed arrays.

    store.json                  the index, written last
    cases/CASE/image.b2nd       float16 (channel, z, y, x)
    cases/CASE/label_map.b2nd   uint8 (z, y, x)
    cases/CASE/reference.b2nd   uint8, the label map on the source grid
    cases/CASE/case.json        the entry of the case in the index, and its source files

Arrays can be read in part.
"""

import hashlib
import re
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from jaxtyping import Float16, UInt8

from scanseg.errors import InputError, refuse_faults
from scanseg.preprocessing.compressed import read_array
from scanseg.specs import PreprocessingSpec, SourceFile, StoredCase, StoreIndex

INDEX_FILE = "store.json"
UNFINISHED_FILE = "unfinished.json"
CASES_FOLDER = "cases"
IMAGE_FILE = "image.b2nd"
LABEL_MAP_FILE = "label_map.b2nd"
REFERENCE_FILE = "reference.b2nd"
RECORD_FILE = "case.json"

PACKING_BASE = 256
"""Factor of the predicted label in a store for a second stage.

Label maps there hold `label + 256 * predicted label`.
"""

_HASH_DIGITS = 8
_MOST_NAME_CHARACTERS = 100


class Store:
    """A finished store, open for reading.

    Attributes:
        folder: Folder of the store.
        index: Contents of the store without its arrays.
    """

    def __init__(self, folder: Path, index: StoreIndex) -> None:
        self.folder = folder
        self.index = index

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open a finished store.

        Args:
            folder: Folder of the store.

        Raises:
            InputError: The store is missing or unfinished, or lacks arrays.
        """
        if not (folder / INDEX_FILE).is_file():
            if (folder / UNFINISHED_FILE).is_file():
                raise InputError(f"{folder}: unfinished store. Preprocess again to complete it.")
            raise InputError(f"{folder}: no store (no {INDEX_FILE}). Preprocess the data set first.")
        index = StoreIndex.read(folder / INDEX_FILE)
        faults = [
            f"case {stored.case}: {path} is missing. Preprocess again to complete the store."
            for stored in index.cases
            for name in (IMAGE_FILE, LABEL_MAP_FILE, REFERENCE_FILE)
            if not (path := folder / CASES_FOLDER / stored.case / name).is_file()
        ]
        refuse_faults(folder, faults)
        return cls(folder, index)

    def case(self, name: str) -> StoredCase:
        """Return a case by its name.

        Args:
            name: Name of the case.

        Raises:
            InputError: The store has no such case.
        """
        stored = self._cases.get(name)
        if stored is None:
            raise InputError(
                f"{self.folder}: no case {name} among the {len(self._cases)} cases of the store."
            )
        return stored

    def case_digest(self, case: StoredCase) -> str:
        """Return a checksum of a case and its source files.

        Args:
            case: A case of this store.

        Raises:
            InputError: A file of the case is missing.
        """
        content = hashlib.sha256(case.to_json().encode())
        try:
            if self._path(case, RECORD_FILE).is_file():
                content.update(self._path(case, RECORD_FILE).read_bytes())
            else:  # the store of a second stage
                for path in (*self.array_files(case), self._path(case, REFERENCE_FILE)):
                    content.update(SourceFile.of(path).to_json().encode())
        except OSError as error:
            raise InputError(f"{error.filename}: cannot be read ({error.strerror}).") from error
        return content.hexdigest()

    def array_files(self, case: StoredCase) -> tuple[Path, Path]:
        """Return the image file and the label map file of a case.

        Processes can read parts of them.

        Args:
            case: A case of this store.
        """
        return self._path(case, IMAGE_FILE), self._path(case, LABEL_MAP_FILE)

    def read_image(self, case: StoredCase) -> Float16[np.ndarray, "channel z y x"]:
        """Read the whole preprocessed image.

        Args:
            case: A case of this store.

        Raises:
            InputError: The array is missing or damaged.
        """
        shape = (self.index.preprocessing.num_channels, *case.geometry.shape)
        return read_array(self._path(case, IMAGE_FILE), shape=shape)

    def read_label_map(self, case: StoredCase) -> UInt8[np.ndarray, "z y x"]:
        """Read the whole preprocessed label map.

        Args:
            case: A case of this store.

        Raises:
            InputError: The array is missing or damaged.
        """
        return read_array(self._path(case, LABEL_MAP_FILE), shape=case.geometry.shape)

    def read_predicted(self, case: StoredCase) -> UInt8[np.ndarray, "z y x"] | None:
        """Read the prediction of the first stage on the network's grid.

        Args:
            case: A case of this store.

        Returns:
            Label map (z, y, x). `None`: the store is not for a second stage.

        Raises:
            InputError: The array is missing or damaged.
        """
        if self.index.first_stage is None:
            return None
        return (self.read_label_map(case) // PACKING_BASE).astype(np.uint8)

    def read_reference(self, case: StoredCase) -> UInt8[np.ndarray, "*source"]:
        """Read the annotated label map on the source grid.

        Args:
            case: A case of this store.

        Returns:
            Label map (z, y, x) or (y, x).

        Raises:
            InputError: The array is missing or damaged.
        """
        return read_array(self._path(case, REFERENCE_FILE), shape=case.geometry.source_shape)

    @cached_property
    def _cases(self) -> dict[str, StoredCase]:
        """Entries of the index by the name of the case."""
        return {stored.case: stored for stored in self.index.cases}

    def _path(self, case: StoredCase, name: str) -> Path:
        """Return the path of a file of a case."""
        return self.folder / CASES_FOLDER / case.case / name


def store_name(dataset_name: str, preprocessing: PreprocessingSpec, *, source: str | None) -> str:
    """Return the folder name of a store.

    It consists of the data set's name and a short hash of source and preprocessing.

    Args:
        dataset_name: Name of the data set. Characters that folder names should not hold become `-`.
        preprocessing: Preprocessing of its cases.
        source: Path of the raw data set in its plan, existing or not. `None`: unknown.
    """
    # Plans without an orientation keep the stores that were made before there was one.
    left_out = {"orientation"} if preprocessing.orientation is None else None
    content = preprocessing.model_dump_json(exclude=left_out) + ("" if source is None else f"\n{source}")
    digest = hashlib.sha256(content.encode()).hexdigest()[:_HASH_DIGITS]
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", dataset_name).strip("-.")[:_MOST_NAME_CHARACTERS]
    return f"{name or 'dataset'}-{digest}"
