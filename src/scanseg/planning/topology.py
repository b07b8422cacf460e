"""Stages of a U-Net for a patch: strides, kernels and patch size."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

MIN_MAP_SIZE = 4
"""Minimum number of voxels along an axis after halving."""
_MIN_STAGES = 2
"""Minimum number of stages. Patches of a few voxels get them too."""
_MIN_DEEPEST_VOXELS = 2
"""Minimum number of voxels at the lowest resolution, because norms act on them."""


@dataclass(frozen=True)
class Topology:
    """Stages of a network, from the highest resolution."""

    patch_size: tuple[int, ...]
    """Voxels of the patch along each axis, multiples of the total stride."""
    strides: tuple[tuple[int, ...], ...]
    """Stride of each stage along each axis."""
    kernel_sizes: tuple[tuple[int, ...], ...]
    """Kernel size of each stage along each axis."""

    @property
    def total_stride(self) -> tuple[int, ...]:
        """Product of the strides along each axis."""
        return tuple(math.prod(axis) for axis in zip(*self.strides, strict=True))


def choose_topology(spacing: Sequence[float], patch_size: Sequence[float]) -> Topology:
    """Choose strides and kernels that make voxels isotropic stage by stage.

    Each stage halves the large axes whose spacing is within a factor of 2 of the finest one. An axis has kernel size 1
    while it is at least twice as coarse as the finest axis. A patch with no large axis still gets two stages, and is
    enlarged if the second one needs it.

    Args:
        spacing: Millimetres per voxel along the patch's axes.
        patch_size: Voxels along the same axes before rounding, possibly fractional.
    """
    num_axes = len(patch_size)
    sizes, spacings = [float(size) for size in patch_size], list(spacing)
    kernel = [1] * num_axes
    strides, kernels = [(1,) * num_axes], []
    while halved := _axes_to_halve(sizes, spacings):
        kernel = [
            3 if size == 3 or spacings[axis] / min(spacings) < 2 else 1 for axis, size in enumerate(kernel)
        ]
        kernels.append(tuple(kernel))
        strides.append(tuple(2 if axis in halved else 1 for axis in range(num_axes)))
        for axis in halved:
            spacings[axis] *= 2
            sizes[axis] = math.ceil(sizes[axis] / 2)
    kernels.append((3,) * num_axes)
    total_stride = [math.prod(axis) for axis in zip(*strides, strict=True)]
    rounded = tuple(
        math.ceil(size / stride) * stride for size, stride in zip(patch_size, total_stride, strict=True)
    )
    return add_stages(Topology(rounded, tuple(strides), tuple(kernels)), num_stages=_MIN_STAGES)


def add_stages(topology: Topology, *, num_stages: int) -> Topology:
    """Add stages to a topology that has too few for a network.

    Each further stage halves the axes with at least half of the voxels of the longest one. The patch grows to multiples
    of the new total stride.

    Args:
        topology: Stages by the rules.
        num_stages: Minimum number of stages.

    Returns:
        The same topology if it has enough stages.
    """
    if len(topology.strides) >= num_stages:
        return topology
    strides, kernels = list(topology.strides), list(topology.kernel_sizes)
    sizes = [size // stride for size, stride in zip(topology.patch_size, topology.total_stride, strict=True)]
    while len(strides) < num_stages:
        stride = tuple(2 if 2 * size >= max(sizes) else 1 for size in sizes)
        strides.append(stride)
        kernels.append((3,) * len(sizes))
        sizes = [math.ceil(size / step) for size, step in zip(sizes, stride, strict=True)]
    if math.prod(sizes) < _MIN_DEEPEST_VOXELS:
        sizes[-1] = _MIN_DEEPEST_VOXELS
    grown = replace(topology, strides=tuple(strides), kernel_sizes=tuple(kernels))
    patch = tuple(size * stride for size, stride in zip(sizes, grown.total_stride, strict=True))
    return replace(grown, patch_size=patch)


def _axes_to_halve(sizes: Sequence[float], spacings: Sequence[float]) -> list[int]:
    """Return the axes that the next stage halves."""
    large = [axis for axis, size in enumerate(sizes) if size >= 2 * MIN_MAP_SIZE]
    if not large:
        return []
    finest = min(spacings[axis] for axis in large)
    halved = [axis for axis in large if spacings[axis] / finest < 2]
    if len(halved) == 1 and sizes[halved[0]] < 3 * MIN_MAP_SIZE:
        return []
    return halved
