"""Stores and batches for a second stage, which sees the labels that a first one predicted.

Both label maps of a case lie in one array of 16 bits, `label + 256 * predicted`: they are cut out, warped and mirrored
as one, and taken apart in the batch.
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
from scanseg.imaging import resample_label_map
from scanseg.messages import counted, listed
from scanseg.preprocessing import (
    CASES_FOLDER,
    IMAGE_FILE,
    INDEX_FILE,
    LABEL_MAP_FILE,
    PACKING_BASE,
    REFERENCE_FILE,
    Store,
    crop_from_source,
    lock_store,
    read_array,
    separates_z,
    write_array,
)
from scanseg.runtime import RunContext, map_cases
from scanseg.specs import CascadeSpec, CaseGeometry, Document, Plan, PreprocessingSpec

_SOURCES_FILE = "sources.json"


def to_grid(
    label_map: UInt8[np.ndarray, "*source"], geometry: CaseGeometry, preprocessing: PreprocessingSpec
) -> UInt8[np.ndarray, "z y x"]:
    """Bring a predicted label map from the source's grid to that of the network.

    Args:
        label_map: The label map.
        geometry: Where the case lies.
        preprocessing: How it is preprocessed.

    Raises:
        InputError: The label map has another shape than the case.
    """
    if label_map.shape != tuple(geometry.source_shape):
        raise InputError(
            f"predicted label map of shape {label_map.shape} for a case of {geometry.source_shape}."
        )
    return resample_label_map(
        np.ascontiguousarray(crop_from_source(label_map, geometry)),
        geometry.shape,
        order=preprocessing.label_order,
        separate_z=separates_z(geometry, preprocessing),
    )


def one_hot(
    predicted: Int[Tensor, "batch *axes"], values: tuple[int, ...]
) -> Float[Tensor, "batch value *axes"]:
    """Return one channel for each value.

    Args:
        predicted: Label maps.
        values: The values.
    """
    return torch.stack([predicted == value for value in values], dim=1).float()


@dataclass(frozen=True)
class PredictedLabels:
    """What becomes of the predicted labels of a batch."""

    values: tuple[int, ...]
    """Values that are seen, a channel each."""
    spec: CascadeSpec


def predicted_labels_of(plan: Plan) -> PredictedLabels | None:
    """Return what becomes of predicted labels under a plan; None: there are none."""
    return None if plan.cascade is None else PredictedLabels(plan.dataset.label_values, plan.cascade)


def unpack_labels(
    images: Float[Tensor, "batch channel z y x"],
    packed: Int16[Tensor, "batch z y x"],
    predicted: PredictedLabels,
    *,
    numbers: list[int] | None,
    first: int = 0,
) -> tuple[Float[Tensor, "batch input z y x"], UInt8[Tensor, "batch z y x"]]:
    """Take label maps apart; the predicted ones become channels.

    Args:
        images: The images.
        packed: Both label maps of each.
        predicted: What becomes of the predicted ones.
        numbers: Seeds of their changes; None: they stay as they are.
        first: Number of the first patch in its batch.
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
    """Make of a store another whose label maps hold the predictions of a first stage too.

    Images and references are linked, not copied, where the file system can. One that is there is used as it is, unless
    a prediction or a stored case has changed since (in size or date). Processes that want the same store build it one
    after the other.

    Args:
        store: The store.
        predictions: For each of its cases the array of the predicted label map, on the source's grid.
        first_stage: The study that predicted.
        folder: Folder of the other store.
        context: Worker processes and progress.

    Raises:
        InputError: Cases have no prediction, or one of another shape.
    """
    wanted = store.index.model_copy(update={"first_stage": first_stage})
    missing = [case.case for case in store.index.cases if case.case not in predictions]
    with lock_store(folder):
        there = Store.open(folder) if (folder / INDEX_FILE).is_file() else None
        if (
            there is not None
            and there.index == wanted
            and (missing or _is_current(folder, store, predictions))
        ):
            return there
        if missing:
            raise InputError(
                f"{first_stage}: no prediction of {len(missing)} of {counted(len(store.index.cases), 'case')} "
                f"({listed(missing)}); the first stage must be a scanseg crossval of the same data set, all of its "
                f"folds done."
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
    """What a store was made of: sizes in bytes and dates in nanoseconds of the files of each case."""

    cases: dict[str, tuple[tuple[int, int], ...]]


def _describe_sources(store: Store, predictions: Mapping[str, Path]) -> _Sources:
    """Look at the files of which a store is made."""
    files = {case.case: (predictions[case.case], *store.array_files(case)) for case in store.index.cases}
    return _Sources(
        cases={
            name: tuple((path.stat().st_size, path.stat().st_mtime_ns) for path in paths)
            for name, paths in files.items()
        }
    )


def _is_current(folder: Path, store: Store, predictions: Mapping[str, Path]) -> bool:
    """Whether a store was made of files as they are now."""
    path = folder / _SOURCES_FILE
    return path.is_file() and _Sources.read(path) == _describe_sources(store, predictions)


@dataclass(frozen=True)
class _Task:
    """A case to pack."""

    name: str
    geometry: CaseGeometry
    prediction: Path


def _pack_case(task: _Task, *, source: Path, folder: Path, preprocessing: PreprocessingSpec) -> None:
    """Write the arrays of a case."""
    there, here = (base / CASES_FOLDER / task.name for base in (source, folder))
    here.mkdir(parents=True)
    try:
        predicted = to_grid(read_array(task.prediction), task.geometry, preprocessing)
    except InputError as error:
        raise InputError(f"case {task.name}: {error}") from error
    label_map = read_array(there / LABEL_MAP_FILE)
    write_array(
        here / LABEL_MAP_FILE,
        label_map.astype(np.int16) + np.int16(PACKING_BASE) * predicted.astype(np.int16),
    )
    for name in (IMAGE_FILE, REFERENCE_FILE):
        try:
            os.link(there / name, here / name)
        except OSError:
            shutil.copyfile(there / name, here / name)
