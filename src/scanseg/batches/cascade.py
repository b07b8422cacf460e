"""Stores and batches of a second stage with first-stage labels.

Both label maps of a case are packed into one 16-bit array, `label + 256 * predicted`. They are cropped, warped and
mirrored together, and unpacked in the batch.
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, Int16, UInt8
from torch import Tensor

from scanseg.batches.augmentation import perturb_labels
from scanseg.errors import InputError
from scanseg.files import write_text
from scanseg.messages import counted, listed
from scanseg.preprocessing import (
    CASES_FOLDER,
    IMAGE_FILE,
    INDEX_FILE,
    LABEL_MAP_FILE,
    PACKING_BASE,
    REFERENCE_FILE,
    Store,
    lock_store,
    read_array,
    to_grid,
    write_array,
)
from scanseg.runtime import RunContext, map_cases
from scanseg.specs import CascadeSpec, CaseGeometry, Document, Plan, PreprocessingSpec

_SOURCES_FILE = "sources.json"
"""File name of the sizes and dates of the source files."""


def one_hot(
    predicted: Int[Tensor, "batch *axes"], values: tuple[int, ...]
) -> Float[Tensor, "batch value *axes"]:
    """Return one channel of zeros and ones per label value.

    Args:
        predicted: Label maps.
        values: Label value of each channel.
    """
    return torch.stack([predicted == value for value in values], dim=1).float()


@dataclass(frozen=True)
class PredictedLabels:
    """Settings of first-stage labels as input channels."""

    values: tuple[int, ...]
    """Label value of each channel."""
    spec: CascadeSpec
    """Random changes of the labels in training."""


def predicted_labels_of(plan: Plan) -> PredictedLabels | None:
    """Return the settings of first-stage labels. `None`: no cascade.

    Args:
        plan: Plan of the training.
    """
    return None if plan.cascade is None else PredictedLabels(plan.dataset.label_values, plan.cascade)


def unpack_labels(
    images: Float[Tensor, "batch channel z y x"],
    packed: Int16[Tensor, "batch z y x"],
    predicted: PredictedLabels,
    *,
    numbers: list[int] | None,
    first: int = 0,
) -> tuple[Float[Tensor, "batch input z y x"], UInt8[Tensor, "batch z y x"]]:
    """Unpack label maps, and append first-stage labels to the images.

    Args:
        images: Images of the patches.
        packed: Packed label maps of the patches.
        predicted: Settings of the first-stage labels.
        numbers: Seeds of random changes. `None`: no changes.
        first: Number of the first patch in its whole batch.

    Returns:
        Images with one more channel per label value, and label maps.
    """
    channels = one_hot(packed // PACKING_BASE, predicted.values)
    if numbers is not None:
        changed = [
            perturb_labels(patch, predicted.spec, rng=np.random.default_rng([*numbers, first + number]))
            for number, patch in enumerate(channels)
        ]
        channels = torch.stack(changed)
    return torch.cat((images, channels), dim=1), (packed % PACKING_BASE).to(torch.uint8)


def build_cascade_store(
    store: Store, predictions: Mapping[str, Path], *, first_stage: str, folder: Path, context: RunContext
) -> Store:
    """Build a store whose label maps include first-stage labels.

    Images and references are linked if the file system supports it, and copied otherwise. An existing store is reused
    unless the size or date of a prediction or a stored case has changed. Predictions that are not on this machine are
    not checked. A lock makes processes build the same store one after the other.

    Args:
        store: Store without first-stage labels.
        predictions: Array file of the predicted label map on the source grid, per case.
        first_stage: Folder of the cross-validation that predicted.
        folder: Folder of the new store.
        context: Worker processes and progress.

    Raises:
        InputError: A case has no prediction, or one of another shape.
    """
    wanted = store.index.model_copy(update={"first_stage": first_stage})
    missing = [case.case for case in store.index.cases if case.case not in predictions]
    with lock_store(folder):
        existing = Store.open(folder) if (folder / INDEX_FILE).is_file() else None
        if existing is not None and existing.index == wanted and _is_current(folder, store, predictions):
            return existing
        if missing:
            raise InputError(
                f"{first_stage}: no prediction of {len(missing)} of {counted(len(store.index.cases), 'case')} "
                f"({listed(missing)}). Use a scanseg crossval of the same data set, with all folds finished, as first "
                f"stage."
            )
        shutil.rmtree(folder, ignore_errors=True)
        sources = _describe_sources(store, predictions)
        tasks = [_Task(case.case, case.geometry, predictions[case.case]) for case in store.index.cases]
        map_cases(
            partial(_pack_case, source=store.folder, folder=folder, preprocessing=store.index.preprocessing),
            tasks,
            context=context,
            task="preparing the cascade",
        )
        write_text(folder / _SOURCES_FILE, sources.to_json())
        write_text(folder / INDEX_FILE, wanted.to_json())
    return Store(folder, wanted)


class _Sources(Document):
    """Source files of a store with sizes and dates."""

    cases: dict[str, tuple[tuple[int, int], ...]]
    """Size in bytes and date in nanoseconds of each file of a case, by the name of the case."""


def _describe_sources(store: Store, predictions: Mapping[str, Path]) -> _Sources:
    """Return the sizes and dates of source files, or zeros if missing."""

    def describe(path: Path | None) -> tuple[int, int]:
        status = None if path is None else path.stat()
        return (0, 0) if status is None else (status.st_size, status.st_mtime_ns)

    files = {case.case: (predictions.get(case.case), *store.array_files(case)) for case in store.index.cases}
    return _Sources(cases={name: tuple(map(describe, paths)) for name, paths in files.items()})


def _is_current(folder: Path, store: Store, predictions: Mapping[str, Path]) -> bool:
    """Return whether the source files of a store are unchanged.

    If some predictions are missing, the sizes of the stored arrays are compared.
    """
    path = folder / _SOURCES_FILE
    is_complete = all(case.case in predictions for case in store.index.cases)
    if not path.is_file():
        return not is_complete
    try:
        recorded = _Sources.read(path).cases
    except InputError:
        return False
    current = _describe_sources(store, predictions).cases
    if is_complete or recorded.keys() != current.keys():
        return recorded == current
    # On a machine without the predictions, copies of the store may have other dates.
    return all(
        [size for size, _ in recorded[name][1:]] == [size for size, _ in current[name][1:]]
        for name in current
    )


@dataclass(frozen=True)
class _Task:
    """A case to pack."""

    name: str
    """Name of the case."""
    geometry: CaseGeometry
    """Geometry of the network's grid in the source."""
    prediction: Path
    """Array file of the predicted label map."""


def _pack_case(task: _Task, *, source: Path, folder: Path, preprocessing: PreprocessingSpec) -> None:
    """Write the arrays of a case into the new store.

    Args:
        task: The case.
        source: Folder of the store without first-stage labels.
        folder: Folder of the new store.
        preprocessing: Preprocessing of the case.

    Raises:
        InputError: The prediction has another shape than the source.
    """
    old, new = (base / CASES_FOLDER / task.name for base in (source, folder))
    new.mkdir(parents=True)
    try:
        predicted = to_grid(read_array(task.prediction), task.geometry, preprocessing)
    except InputError as error:
        raise InputError(f"case {task.name}: {error}") from error
    label_map = read_array(old / LABEL_MAP_FILE, shape=task.geometry.shape)
    write_array(
        new / LABEL_MAP_FILE,
        label_map.astype(np.int16) + np.int16(PACKING_BASE) * predicted.astype(np.int16),
    )
    for name in (IMAGE_FILE, REFERENCE_FILE):
        try:
            os.link(old / name, new / name)
        except OSError:
            shutil.copyfile(old / name, new / name)
