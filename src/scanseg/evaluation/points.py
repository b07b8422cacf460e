"""Points of a grid, found in slabs of a mask."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64

_SLAB_VOXELS = 1 << 20
"""Voxels of a slab. Its arrays stay in the processor's cache."""


@dataclass(frozen=True, eq=False)
class Points:
    """Different points of a grid."""

    positions: Int64[np.ndarray, " point"]
    """Positions in the flat grid, ascending."""
    shape: tuple[int, ...]
    """Shape of the grid."""

    def __len__(self) -> int:
        """Return the number of points."""
        return len(self.positions)

    def coordinates(self) -> Int64[np.ndarray, "axis point"]:
        """Compute the coordinates of the points."""
        return np.stack(np.unravel_index(self.positions, self.shape))

    def as_mask(self) -> Bool[np.ndarray, "*spatial"]:
        """Return the mask of the points."""
        mask = np.zeros(self.shape, bool)
        mask.reshape(-1)[self.positions] = True
        return mask


@dataclass(frozen=True, eq=False)
class Slab:
    """Consecutive rows of a mask, padded by one voxel."""

    mask: Bool[np.ndarray, "*slab"]
    first: tuple[int, ...]
    """Coordinates of the first voxel in the whole mask padded by one voxel."""

    def positions(
        self, places: Int64[np.ndarray, " point"], *, within: Sequence[int], shape: Sequence[int]
    ) -> Int64[np.ndarray, " point"]:
        """Convert positions in the slab to positions in the grid.

        Args:
            places: Positions in the flat array.
            within: Shape of the array, whose first element belongs to the first voxel of the slab.
            shape: Shape of the grid, whose first element belongs to the first voxel of the padded mask.
        """
        coordinates = np.unravel_index(places, tuple(within))
        moved = tuple(each + start for each, start in zip(coordinates, self.first, strict=True))
        return np.ravel_multi_index(moved, tuple(shape))


def padded_slabs(mask: Bool[np.ndarray, "*spatial"], *, overlap: int) -> Iterator[Slab]:
    """Divide a mask into padded slabs.

    The mask is cropped to the box of its voxels and padded by one voxel before.

    Args:
        mask: Mask with at least one voxel.
        overlap: Rows that neighbouring slabs share.
    """
    box = []
    for axis in range(mask.ndim):
        found = np.flatnonzero(mask.any(axis=tuple(each for each in range(mask.ndim) if each != axis)))
        box.append(slice(int(found[0]), int(found[-1]) + 1))
    cropped = mask[tuple(box)]
    num_rows = len(cropped) + 2
    size = max(1, _SLAB_VOXELS // cropped[0].size)
    for start in range(0, num_rows - overlap, size):
        stop = min(start + size + overlap, num_rows)
        beyond = (int(start == 0), int(stop == num_rows))
        rows = cropped[max(start - 1, 0) : stop - 1]
        padded = np.pad(rows, (beyond, *[(1, 1)] * (mask.ndim - 1)))
        yield Slab(padded, (box[0].start + start, *(part.start for part in box[1:])))
