"""Training cases on disk. Only the boxes of patches are read.

Worker processes read whole batches ahead of the training. Threads would not help, since decompression blocks other
threads. Only a few batches are in memory at a time, for any size of the data set.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count, islice

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from scanseg.batches.box_reading import ArrayFiles, Box, BoxTask, locate_case, read_boxes
from scanseg.batches.in_memory import Boxes, InMemoryCases, join_boxes
from scanseg.errors import ScansegError
from scanseg.preprocessing import Store
from scanseg.runtime import RunContext, Ticket, WorkerEndedError, WorkerPool, map_cases

_SPARE_BATCHES = 2
"""Batches read ahead in addition to one per worker."""


@dataclass(frozen=True, eq=False)
class DiskCases:
    """Cases on disk, with locations of labels in memory."""

    names: tuple[str, ...]
    """Names of the cases."""
    shapes_host: np.ndarray
    """Voxels of each case along z, y, x, (case, 3)."""
    locations: tuple[dict[str, np.ndarray], ...]
    """Flat indices of some voxels per label name, for each case. Absent labels have no entry."""
    annotated: tuple[np.ndarray, ...] | None
    """Flat indices of some annotated voxels of each case. `None`: no ignore label exists."""
    background_value: Float[Tensor, " channel"]
    """Intensity of each channel outside a case."""
    device: torch.device
    """Device of the patches."""
    _files: tuple[ArrayFiles, ...]
    """Array files of each case."""
    _pool: WorkerPool | None
    """Processes that read. `None`: this process reads."""
    _depth: int
    """Number of batches that are requested at a time."""
    _waiting: "dict[int, Ticket[list[Box]]]" = field(default_factory=dict)
    """Requested batches by iteration."""

    def fetch(
        self, iteration: int, boxes_of: Callable[[int], Boxes], *, following: Iterable[int] | None = None
    ) -> InMemoryCases:
        """Return the boxes of a batch, and request the next batches.

        Args:
            iteration: Number of the batch.
            boxes_of: Returns the boxes of the batch of an iteration, the same at every call.
            following: Iterations of the next batches in order. `None`: the numbers after `iteration`.

        Returns:
            Each box as a case of its own.

        Raises:
            InputError: An array is missing or damaged.
            ScansegError: A worker was ended from outside, or memory ran out.
        """
        if self._pool is None:
            return self._join(read_boxes(self._tasks(boxes_of(iteration))))
        later = count(iteration + 1) if following is None else following
        ahead = dict.fromkeys((iteration, *islice(later, self._depth - 1)))
        for other in [number for number in self._waiting if number not in ahead]:
            del self._waiting[other]
        try:
            for number in ahead:
                if number not in self._waiting:
                    tasks = self._tasks(boxes_of(number))
                    self._waiting[number] = self._pool.submit(read_boxes, tasks)
            parts = self._pool.take(self._waiting.pop(iteration))
        except WorkerEndedError as error:
            raise ScansegError(
                "a process that reads training patches was ended from outside, probably for lack of memory. Use fewer "
                "workers (--num-workers), and continue with --resume."
            ) from error
        except MemoryError as error:
            raise ScansegError(
                f"not enough memory on the host for the processes that read training patches ({error}). Use fewer "
                f"workers (--num-workers), and continue with --resume."
            ) from error
        return self._join(parts)

    def close(self) -> None:
        """End the worker processes."""
        if self._pool is not None:
            self._pool.close()

    def _tasks(self, boxes: Boxes) -> list[BoxTask]:
        """Return the boxes with their array files."""
        return [
            BoxTask(self._files[case], tuple(map(slice, low.tolist(), high.tolist())))
            for case, low, high in zip(boxes.cases, boxes.low, boxes.high, strict=True)
        ]

    def _join(self, parts: Sequence[Box]) -> InMemoryCases:
        """Concatenate boxes as cases in memory."""
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


def open_cases(store: Store, cases: Sequence[str], *, seed: int, context: RunContext) -> DiskCases:
    """Open cases of a store for reading patches.

    Their label maps are read once to locate labels.

    Args:
        store: Store of the cases.
        cases: Names of the cases, at least one.
        seed: Seed of the choice of voxels that are kept of large structures.
        context: Device, worker processes and progress.
    """
    if not cases:
        raise ValueError("cases: expected at least one, got none")
    files = tuple(
        ArrayFiles(name, number, *store.array_files(stored), stored.geometry.shape)
        for number, name in enumerate(cases)
        for stored in (store.case(name),)
    )
    located = map_cases(
        partial(
            locate_case,
            dataset=store.index.dataset,
            num_channels=store.index.preprocessing.num_channels,
            seed=seed,
        ),
        files,
        context=context,
        task="loading",
    )
    annotated = [voxels for _, voxels in located if voxels is not None]
    return DiskCases(
        names=tuple(cases),
        shapes_host=np.array([store.case(name).geometry.shape for name in cases], dtype=np.int64),
        locations=tuple(locations for locations, _ in located),
        annotated=tuple(annotated) or None,
        background_value=torch.tensor(
            store.index.preprocessing.background_value, device=context.torch_device
        ),
        device=context.torch_device,
        _files=files,
        _pool=WorkerPool(context.workers) if context.workers else None,
        _depth=context.workers + _SPARE_BATCHES,
    )
