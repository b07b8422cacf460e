"""Construction of a store from a data set.

The folder of a case is filled under a temporary name and renamed once it is complete. `unfinished.json` holds the
planned index until all cases are complete. Then `store.json` replaces it.
"""

import os
import shutil
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

import numpy as np
from filelock import FileLock

from scanseg.dataset import RawCase, RawDataset, check_values, count_values, measure_ranges, read_case
from scanseg.errors import InputError, refuse_faults
from scanseg.files import is_unused, make_folder, temporary_path, write_text
from scanseg.messages import listed
from scanseg.preprocessing.case import preprocess_case
from scanseg.preprocessing.compressed import open_array, write_array
from scanseg.preprocessing.normalization import find_range_faults
from scanseg.preprocessing.store import (
    CASES_FOLDER,
    IMAGE_FILE,
    INDEX_FILE,
    LABEL_MAP_FILE,
    RECORD_FILE,
    REFERENCE_FILE,
    UNFINISHED_FILE,
    Store,
)
from scanseg.runtime import RunContext, map_cases
from scanseg.specs import DatasetSpec, Document, PreprocessingSpec, SourceFile, Splits, StoredCase, StoreIndex

_LARGEST_HALF = float(np.finfo(np.float16).max)


class _CaseRecord(Document):
    """Record of a stored case, written with its arrays."""

    stored: StoredCase
    sources: tuple[SourceFile, ...]


def build_store(
    dataset: RawDataset,
    *,
    preprocessing: PreprocessingSpec,
    splits: Splits,
    folder: Path,
    context: RunContext,
) -> Store:
    """Preprocess all cases of a data set into a store.

    A finished store of the same content is reused, and an interrupted one is completed. Cases whose source files have
    changed in size or date are preprocessed again. Changed folds replace those of the index. Processes that need the
    same store wait for each other.

    Args:
        dataset: Data set to preprocess.
        preprocessing: Preprocessing of its cases.
        splits: Folds for the index of the store.
        folder: Folder of the store. It is created if it is missing.
        context: Worker processes and progress.

    Raises:
        InputError: A case cannot be preprocessed or holds unknown label values, or the folder holds other files or a
            store of another data set or preprocessing.
    """
    if not dataset.cases:
        raise InputError(f"{dataset.path}: no cases to store. Add images and label maps.")
    wanted = StoreIndex(dataset=dataset.spec, preprocessing=preprocessing, splits=splits, cases=())
    folder.parent.mkdir(parents=True, exist_ok=True)
    with lock_store(folder):
        _claim_folder(folder, wanted)
        records = {
            case.name: _read_record(folder, case, num_channels=preprocessing.num_channels)
            for case in dataset.cases
        }
        for stored in _read_finished(folder):
            if records.get(stored.case) not in (None, stored):
                records[stored.case] = None  # a damaged record
        missing = [case for case in dataset.cases if records[case.name] is None]
        if missing:
            _mark_unfinished(folder)
            made = map_cases(
                partial(_store_case, spec=dataset.spec, preprocessing=preprocessing, folder=folder),
                missing,
                context=context,
                task="preprocessing",
            )
            records |= {stored.case: stored for stored in made}
        cases = tuple(stored for stored in records.values() if stored is not None)
        index = wanted.model_copy(update={"cases": cases})
        _remove_other_cases(folder, set(records))
        if not (folder / INDEX_FILE).is_file() or StoreIndex.read(folder / INDEX_FILE) != index:
            write_text(folder / INDEX_FILE, index.to_json())
        (folder / UNFINISHED_FILE).unlink(missing_ok=True)
        return Store(folder, index)


def lock_store(folder: Path) -> AbstractContextManager[object]:
    """Return a context that excludes other processes from building a store.

    It waits for them on entry, such as for the training of another fold.

    Args:
        folder: Folder of the store.
    """
    if not os.access(folder.parent, os.W_OK):
        return nullcontext()  # a store in a read-only folder is never built
    return FileLock(folder.with_name(f".{folder.name}.lock"))


def _claim_folder(folder: Path, wanted: StoreIndex) -> None:
    """Create the folder with the planned index, unless it has other contents.

    Raises:
        InputError: The folder holds other files, or a store of another data set or preprocessing.
    """
    make_folder(folder)
    present = [folder / name for name in (INDEX_FILE, UNFINISHED_FILE) if (folder / name).is_file()]
    if not present and not is_unused(folder):
        others = sorted(path.name for path in folder.iterdir())
        raise InputError(
            f"{folder}: expected a store or an empty folder, got {listed(others)}. Choose another folder."
        )
    for path in present:
        found = _read_index(path)
        differing = [
            name for name in ("dataset", "preprocessing") if getattr(found, name) != getattr(wanted, name)
        ]
        if differing:
            fields = "; ".join(
                _differences(getattr(found, name), getattr(wanted, name)) for name in differing
            )
            raise InputError(
                f"{folder}: holds a store of another {' and '.join(differing)} ({fields}). Choose another folder, or "
                "delete this one."
            )
    if folder / INDEX_FILE not in present:
        write_text(folder / UNFINISHED_FILE, wanted.to_json())
    (folder / CASES_FOLDER).mkdir(exist_ok=True)


def _read_finished(folder: Path) -> tuple[StoredCase, ...]:
    """Return the cases of a finished store, or none."""
    path = folder / INDEX_FILE
    return _read_index(path).cases if path.is_file() else ()


def _mark_unfinished(folder: Path) -> None:
    """Make a finished store an unfinished one, before its cases are replaced."""
    if (folder / INDEX_FILE).is_file():
        (folder / INDEX_FILE).replace(folder / UNFINISHED_FILE)


def _read_index(path: Path) -> StoreIndex:
    """Read the index of a store.

    Raises:
        InputError: The file is damaged.
    """
    try:
        return StoreIndex.read(path)
    except InputError as error:
        raise InputError(f"{error} Delete the folder {path.parent} to build the store again.") from error


def _differences(found: Document, wanted: Document) -> str:
    """Return the fields in which two documents differ, with both values."""
    return ", ".join(
        f"{name}: expected {getattr(wanted, name)!r}, got {value!r}"
        for name, value in found
        if value != getattr(wanted, name)
    )


def _read_record(folder: Path, case: RawCase, *, num_channels: int) -> StoredCase | None:
    """Return a stored case if it is up to date.

    Its source files are unchanged, its record can be read, and its arrays have the recorded shapes.
    """
    place = folder / CASES_FOLDER / case.name
    if not (place / RECORD_FILE).is_file():
        return None
    try:
        record = _CaseRecord.read(place / RECORD_FILE)
        geometry = record.stored.geometry
        open_array(place / IMAGE_FILE, shape=(num_channels, *geometry.shape))
        open_array(place / LABEL_MAP_FILE, shape=geometry.shape)
        open_array(place / REFERENCE_FILE, shape=geometry.source_shape)
    except InputError:
        return None
    is_current = record.stored.case == case.name and record.sources == _describe_sources(case)
    return record.stored if is_current else None


def _describe_sources(case: RawCase) -> tuple[SourceFile, ...]:
    """Return the name, size and date of the files of a case."""
    return tuple(map(SourceFile.of, case.files))


def _store_case(
    case: RawCase, *, spec: DatasetSpec, preprocessing: PreprocessingSpec, folder: Path
) -> StoredCase:
    """Preprocess a case and write its folder."""
    sources = _describe_sources(case)
    image, label_map = read_case(case, num_channels=spec.num_channels)
    refuse_faults(f"case {case.name}", check_values(case, count_values(label_map.array), spec))
    ranges = measure_ranges(image.array)
    faults = find_range_faults(ranges, preprocessing.normalizations, spec.channel_names)
    refuse_faults(f"case {case.name}", faults)
    try:
        preprocessed = preprocess_case(image, label_map.array[0], preprocessing)
        array = _to_half(preprocessed.image)
    except InputError as error:
        raise InputError(f"case {case.name}: {error}") from error
    stored = StoredCase(
        case=case.name,
        geometry=preprocessed.geometry,
        label_values=tuple(int(value) for value in np.unique(preprocessed.label_map)),
    )
    target = folder / CASES_FOLDER / case.name
    temporary = temporary_path(target)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        write_array(temporary / IMAGE_FILE, array)
        write_array(temporary / LABEL_MAP_FILE, preprocessed.label_map)
        write_array(temporary / REFERENCE_FILE, label_map.array[0])
        write_text(temporary / RECORD_FILE, _CaseRecord(stored=stored, sources=sources).to_json())
        if target.exists():
            shutil.rmtree(target)
        temporary.replace(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return stored


def _to_half(array: np.ndarray) -> np.ndarray:
    """Convert an image to half precision.

    Raises:
        InputError: Intensities exceed the range of half precision, or are NaN.
    """
    largest = float(np.abs(array).max())
    if not largest <= _LARGEST_HALF:  # also NaN
        raise InputError(
            f"expected intensities up to {_LARGEST_HALF:g} (half precision) after preprocessing, got {largest:g}. "
            "Choose a normalization other than none, or rescale."
        )
    return array.astype(np.float16)


def _remove_other_cases(folder: Path, names: set[str]) -> None:
    """Remove cases that left the data set, and folders of interrupted runs."""
    for path in (folder / CASES_FOLDER).iterdir():
        if path.is_dir() and path.name not in names:
            shutil.rmtree(path)
