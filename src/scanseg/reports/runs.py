"""Runs of voxels along the last axis of a mask.

Counts over runs cost less than counts over voxels, also for masks of many small parts.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Bool, Int64
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

_VOXELS_PER_RUN = 64
"""Voxels per run below which the pairs of adjacent runs may need more memory than a map of the components."""


@dataclass(frozen=True, eq=False)
class Runs:
    """Runs of a mask in array order.

    Positions are in the flat mask after padding by one voxel on each side.
    """

    mask: Bool[np.ndarray, "*spatial"]
    starts: Int64[np.ndarray, " run"]
    ends: Int64[np.ndarray, " run"]
    """Positions behind the last voxels."""

    @classmethod
    def of(cls, mask: Bool[np.ndarray, "*spatial"]) -> "Runs":
        """Find the runs of a mask.

        Args:
            mask: Mask of two or three axes.
        """
        flat = np.pad(mask, 1).reshape(-1)
        changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
        return cls(mask, changes[::2], changes[1::2])

    @property
    def num_voxels(self) -> int:
        """Number of voxels of the mask."""
        return int((self.ends - self.starts).sum())

    def count_voxels(self, axis: int) -> Int64[np.ndarray, " index"]:
        """Count the voxels at each index of an axis.

        Args:
            axis: The axis.
        """
        size = self.mask.shape[axis] + 2
        firsts = np.unravel_index(self.starts, self._padded_shape)[axis]
        if axis < self.mask.ndim - 1:
            counts = np.bincount(firsts, weights=self.ends - self.starts, minlength=size).astype(np.int64)
        else:
            behind = np.unravel_index(self.ends, self._padded_shape)[axis]
            counts = np.cumsum(np.bincount(firsts, minlength=size) - np.bincount(behind, minlength=size))
        return counts[1:-1]

    def count_components(self) -> int:
        """Count the connected parts of the mask, through faces, edges and corners."""
        num_runs = len(self.starts)
        if num_runs * _VOXELS_PER_RUN > self.mask.size:
            return int(ndimage.label(self.mask, np.ones((3,) * self.mask.ndim, bool))[1])
        pairs = [self._adjacent(offset) for offset in self._previous_lines()]
        rows, columns = (np.concatenate(each) for each in zip(*pairs, strict=True))
        graph = coo_array((np.ones(len(rows), bool), (rows, columns)), shape=(num_runs, num_runs))
        return int(connected_components(graph, directed=False)[0])

    @property
    def _padded_shape(self) -> tuple[int, ...]:
        return tuple(size + 2 for size in self.mask.shape)

    def _previous_lines(self) -> Iterator[int]:
        """Yield the offset of each neighbouring line before a line."""
        strides = [int(np.prod(self._padded_shape[axis + 1 :])) for axis in range(self.mask.ndim - 1)]
        for steps in product((-1, 0, 1), repeat=self.mask.ndim - 1):
            offset = sum(step * stride for step, stride in zip(steps, strides, strict=True))
            if offset < 0:
                yield offset

    def _adjacent(self, offset: int) -> tuple[Int64[np.ndarray, " pair"], Int64[np.ndarray, " pair"]]:
        """Return pairs of touching runs in neighbouring lines.

        Args:
            offset: Position of the neighbouring line relative to the run's own.
        """
        first = np.searchsorted(self.ends, self.starts + offset, side="left")
        behind = np.searchsorted(self.starts, self.ends + offset, side="right")
        counts = behind - first
        runs = np.repeat(np.arange(len(counts)), counts)
        places = np.arange(len(runs)) - np.repeat(np.cumsum(counts) - counts, counts)
        return runs, np.repeat(first, counts) + places
