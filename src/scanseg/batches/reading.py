"""Patches of concatenated cases, at voxels or between them.

Indices that depend only on the positions of patches are computed on the host, in small tables per axis.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from scanseg.batches.transfer import to_device

_VALUES_AT_ONCE = 2**23
"""Voxels interpolated at a time. Each needs about 20 bytes, and 14 bytes per channel."""


@dataclass(frozen=True, eq=False)
class Layout:
    """Position of the case of each patch in the concatenated cases."""

    starts: np.ndarray
    """Flat index of the first voxel of the case, (batch,)."""
    shapes: np.ndarray
    """Voxels of the case along z, y, x, (batch, 3)."""
    background_value: Float[Tensor, " channel"]
    """Intensity of each channel outside a case."""

    @property
    def strides(self) -> np.ndarray:
        """Distance in flat indices of neighbours along z, y, x, (batch, 3)."""
        rows = self.shapes[:, 2]
        return np.stack([self.shapes[:, 1] * rows, rows, np.ones_like(rows)], axis=1)


def gather(
    images: Float[Tensor, "channel voxel"],
    label_maps: Int[Tensor, " voxel"],
    layout: Layout,
    *,
    corners: np.ndarray,
    size: Sequence[int],
) -> tuple[Float[Tensor, "batch channel z y x"], Int[Tensor, "batch z y x"]]:
    """Cut patches out of cases.

    Args:
        images: Intensities of all cases.
        label_maps: Labels of all cases.
        layout: Position of the case of each patch.
        corners: First voxel of each patch along z, y, x, (batch, 3). It may lie outside the case.
        size: Voxels of a patch along z, y, x.

    Returns:
        Images (float32) and label maps of the patches.
    """
    offsets, insides = [], []
    for axis in range(3):
        voxels = corners[:, axis, None] + np.arange(size[axis])
        limits = layout.shapes[:, axis, None]
        insides.append((voxels >= 0) & (voxels < limits))
        offsets.append(np.clip(voxels, 0, limits - 1) * layout.strides[:, axis, None])
    offsets[0] = offsets[0] + layout.starts[:, None]
    tables = to_device(*offsets, *insides, device=images.device)
    z, y, x, inside_z, inside_y, inside_x = (
        table.view(len(corners), *(-1 if axis == number % 3 else 1 for axis in range(3)))
        for number, table in enumerate(tables)
    )
    index, inside = z + y + x, inside_z & inside_y & inside_x
    intensities = _intensities(images, layout.background_value, index=index, inside=inside)
    return intensities.transpose(0, 1), label_maps[index] * inside


def interpolate(
    images: Float[Tensor, "channel voxel"],
    label_maps: Int[Tensor, " voxel"],
    layout: Layout,
    *,
    coordinates: Float[Tensor, "batch 3 z y x"],
    in_plane: bool,
) -> tuple[Float[Tensor, "batch channel z y x"], Int[Tensor, "batch z y x"]]:
    """Interpolate cases at any positions.

    Images are interpolated linearly, label maps by nearest neighbour.

    Args:
        images: Intensities of all cases.
        label_maps: Labels of all cases.
        layout: Position of the case of each patch.
        coordinates: Position of each voxel of a patch in its case, in voxels along z, y, x.
        in_plane: The z coordinates are integers, so neighbours along z are not read.

    Returns:
        Images (float32) and label maps of the patches.
    """
    corners = _Corners.around(layout, in_plane=in_plane, device=images.device)
    nearest = coordinates.round()
    inside = corners.inside(nearest).all(1)
    read_labels = label_maps[corners.index(nearest, inside=inside)] * inside
    low = torch.cat([nearest[:, :1], coordinates[:, 1:].floor()], dim=1) if in_plane else coordinates.floor()
    fraction = coordinates - low
    weight_z, weight_y, weight_x = torch.stack([1 - fraction, fraction]).unbind(2)
    inside_z, inside_y, inside_x = corners.inside(torch.stack([low, low + 1])).unbind(2)
    first = corners.unbounded_index(low)
    del nearest, inside, low, fraction
    # The outer axis counts (z, y) corners in order. The inner axis counts x corners.
    weights = weight_y if in_plane else (weight_z[:, None] * weight_y).flatten(0, 1)
    insides = inside_z[:1] & inside_y if in_plane else (inside_z[:, None] & inside_y).flatten(0, 1)
    at_once = max(1, _VALUES_AT_ONCE // (2 * first.numel()))
    total: list[Tensor] = []
    parts = zip(*(each.split(at_once) for each in (corners.steps, weights, insides)), strict=True)
    for some_steps, some_weights, some_insides in parts:
        inside = some_insides[:, None] & inside_x
        index = torch.where(inside, first + some_steps, corners.starts)
        read = _intensities(images, layout.background_value, index=index, inside=inside)
        read = read * (some_weights[:, None] * weight_x)
        total = [reduce(add, [*total, *read.flatten(1, 2).unbind(1)])]
    return total[0].transpose(0, 1), read_labels


@dataclass(frozen=True, eq=False)
class _Corners:
    """Tables for the neighbouring voxels of positions.

    A position has eight neighbours, or four in a plane. The tables broadcast over patches.
    """

    limits: Float[Tensor, "batch 3 1 1 1"]
    """Voxels of the case along z, y, x."""
    strides: Int[Tensor, "batch 3 1 1 1"]
    """Distance in flat indices of neighbours along z, y, x."""
    starts: Int[Tensor, "batch 1 1 1"]
    """Flat index of the first voxel of the case."""
    steps: Int[Tensor, "outer 2 batch 1 1 1"]
    """Flat offset from the lowest corner to each corner: (z, y) corners, then x corners."""

    @classmethod
    def around(cls, layout: Layout, *, in_plane: bool, device: torch.device) -> "_Corners":
        """Compute the tables and copy them to the device."""
        high = np.arange(2)
        outer = high[:, None] * layout.strides[:, 1]
        if not in_plane:
            outer = (high[:, None, None] * layout.strides[:, 0] + outer).reshape(4, -1)
        steps = outer[:, None] + high[:, None]
        numbers = (layout.shapes.astype(np.float32), layout.strides, layout.starts, steps)
        return cls(*(each[..., None, None, None] for each in to_device(*numbers, device=device)))

    def inside(self, voxels: Float[Tensor, "*corner batch 3 z y x"]) -> Bool[Tensor, "*corner batch 3 z y x"]:
        """Return per axis whether integer positions lie inside their case."""
        return (voxels >= 0) & (voxels < self.limits)

    def unbounded_index(self, voxels: Float[Tensor, "batch 3 z y x"]) -> Int[Tensor, "batch z y x"]:
        """Return the flat index of integer positions without a check of limits."""
        return (voxels.long() * self.strides).sum(1) + self.starts

    def index(
        self, voxels: Float[Tensor, "batch 3 z y x"], *, inside: Bool[Tensor, "batch z y x"]
    ) -> Int[Tensor, "batch z y x"]:
        """Return the flat index of integer positions.

        Positions outside get the index of the first voxel of the case.
        """
        return torch.where(inside, self.unbounded_index(voxels), self.starts)


def _intensities(
    images: Float[Tensor, "channel voxel"],
    background_value: Float[Tensor, " channel"],
    *,
    index: Int[Tensor, "*batch z y x"],
    inside: Bool[Tensor, "*batch z y x"],
) -> Float[Tensor, "channel *batch z y x"]:
    """Read voxels of every channel, with the background value outside."""
    return torch.where(inside, images[:, index].float(), background_value.view(-1, *(1,) * index.ndim))
