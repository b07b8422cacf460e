"""Training cases that stay on disk: of each patch the part of its case that it needs is read from the store.

Processes read ahead of the training, whole batches each, since decompression does not let other threads run. What is
held at a time is a few batches, whatever the size of the data set.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count, islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from scanseg.batches.in_memory import Boxes, InMemoryCases, join_boxes, locate_voxels
from scanseg.errors import InputError, ScansegError
from scanseg.preprocessing import Store, open_array
from scanseg.runtime import RunContext, Ticket, WorkerEndedError, WorkerPool, map_cases
from scanseg.specs import DatasetSpec

_SPARE_BATCHES = 2
"""Batches that are read beside those in the workers' hands."""


@dataclass(frozen=True)
class _ArrayFiles:
    """Where the arrays of a case lie, and its number."""

    name: str
    number: int
    image: Path
    label_map: Path


@dataclass(frozen=True, eq=False)
class DiskCases:
    """Cases on disk, of which only the places of labels are held in memory."""

    names: tuple[str, ...]
    shapes_host: np.ndarray
    locations: tuple[dict[str, np.ndarray], ...]
    annotated: tuple[np.ndarray, ...] | None
    background_value: Float[Tensor, " channel"]
    device: torch.device
    """Where the patches are wanted."""
    _files: tuple[_ArrayFiles, ...]
    _pool: WorkerPool | None
    _depth: int
    _waiting: "dict[int, Ticket[list[_Part]]]" = field(default_factory=dict)
    """Batches that are being read, by their iteration."""

    def fetch(
        self, iteration: int, boxes_of: Callable[[int], Boxes], *, following: Iterable[int] | None = None
    ) -> InMemoryCases:
        """Return the boxes of a batch as if each were a case, and have the next batches read meanwhile.

        Args:
            iteration: Number of the batch.
            boxes_of: Gives the boxes of the batch of an iteration; the same at every call.
            following: Iterations that will be asked for next, in this order; None: they count on.

        Raises:
            InputError: An array is missing or damaged.
            ScansegError: A worker was ended from outside, or had no memory left.
        """
        if self._pool is None:
            return self._join(_read_boxes(self._tasks(boxes_of(iteration))))
        later = count(iteration + 1) if following is None else following
        ahead = dict.fromkeys((iteration, *islice(later, self._depth - 1)))
        for other in [number for number in self._waiting if number not in ahead]:
            del self._waiting[other]
        try:
            for number in ahead:
                if number not in self._waiting:
                    tasks = self._tasks(boxes_of(number))
                    self._waiting[number] = self._pool.submit(_read_boxes, tasks)
            parts = self._pool.take(self._waiting.pop(iteration))
        except WorkerEndedError as error:
            raise ScansegError(
                "a process that reads training patches was ended from outside; most often memory ran out: use fewer "
                "workers (--num-workers), and go on with --resume"
            ) from error
        except MemoryError as error:
            raise ScansegError(
                f"the memory of the host does not suffice for the processes that read training patches ({error}): use "
                f"fewer workers (--num-workers), and go on with --resume"
            ) from error
        return self._join(parts)

    def close(self) -> None:
        """End the processes that read."""
        if self._pool is not None:
            self._pool.close()

    def _tasks(self, boxes: Boxes) -> "list[_Task]":
        return [
            _Task(self._files[case], tuple(map(slice, low.tolist(), high.tolist())))
            for case, low, high in zip(boxes.cases, boxes.low, boxes.high, strict=True)
        ]

    def _join(self, parts: "Sequence[_Part]") -> InMemoryCases:
        """Put boxes one behind the other, as cases in memory are."""
        shapes = np.array([part.label_map.shape for part in parts], dtype=np.int64)
        images = np.concatenate([part.image.reshape(len(part.image), -1) for part in parts], axis=1)
        label_maps = np.concatenate([part.label_map.ravel() for part in parts])
        return join_boxes(
            torch.from_numpy(images),
            torch.from_numpy(label_maps),
            shapes=shapes,
            background_value=self.background_value,
            device=self.device,
        )


@dataclass(frozen=True)
class _Task:
    """A box to read."""

    files: _ArrayFiles
    box: tuple[slice, ...]


@dataclass(frozen=True, eq=False)
class _Part:
    """What was read."""

    image: np.ndarray
    label_map: np.ndarray


def open_cases(store: Store, cases: Sequence[str], *, seed: int, context: RunContext) -> DiskCases:
    """Open cases of a store for reading patches; their label maps are read once to find their labels.

    Args:
        store: The store.
        cases: Names of the cases; at least one.
        seed: Decides which foreground voxels of large structures are remembered.
        context: Device, worker processes and progress.
    """
    if not cases:
        raise ValueError("no cases to open")
    files = tuple(
        _ArrayFiles(name, number, *store.array_files(store.case(name))) for number, name in enumerate(cases)
    )
    places = map_cases(
        partial(_locate, dataset=store.index.dataset, seed=seed),
        files,
        context=context,
        task="loading",
    )
    annotated = [where for _, where in places if where is not None]
    return DiskCases(
        names=tuple(cases),
        shapes_host=np.array([store.case(name).geometry.shape for name in cases], dtype=np.int64),
        locations=tuple(locations for locations, _ in places),
        annotated=tuple(annotated) or None,
        background_value=torch.tensor(
            store.index.preprocessing.background_value, device=context.torch_device
        ),
        device=context.torch_device,
        _files=files,
        _pool=WorkerPool(context.workers) if context.workers else None,
        _depth=context.workers + _SPARE_BATCHES,
    )


def _locate(
    files: _ArrayFiles, *, dataset: DatasetSpec, seed: int
) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """Find the labels of a case, as where cases are held in memory."""
    label_map = _read(files.label_map, ...).astype(np.uint8)
    return locate_voxels(label_map, dataset, rng=np.random.default_rng([seed, files.number]))


def _read_boxes(tasks: Sequence[_Task]) -> list[_Part]:
    """Read the boxes of a batch."""
    return [
        _Part(_read(task.files.image, (slice(None), *task.box)), _read(task.files.label_map, task.box))
        for task in tasks
    ]


def _read(path: Path, box: object) -> np.ndarray:
    """Read a part of an array."""
    opened = open_array(path)
    try:
        part: np.ndarray = opened[box]
    except (RuntimeError, ValueError, OSError) as error:
        raise InputError(f"{path}: damaged ({error}); delete the store and build it anew.") from error
    return part
