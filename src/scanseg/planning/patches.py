"""Patch and batch size for nnU-Net's memory budget, which counts the feature values of its plain U-Net."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scanseg.planning.topology import Topology, choose_topology

BASE_FEATURES = 32
_BLOCKS = 2
_REFERENCE_GB = 8.0
_MIN_BATCH = 2
_MAX_COVERED = 0.05
"""Part of the data set's voxels that one batch may hold at most."""


@dataclass(frozen=True)
class _Reference:
    """Values that fill `_REFERENCE_GB` of a GPU, as nnU-Net's authors measured them."""

    voxels: float
    """Feature values of a plain U-Net at the reference batch size."""
    batch_size: int
    first_patch_voxels: int
    """Voxels of the patch from which the search starts."""
    max_features: int


_REFERENCES = {2: _Reference(85e6, 12, 2048**2, 512), 3: _Reference(560e6, 2, 256**3, 320)}


@dataclass(frozen=True)
class PatchPlan:
    """What fits."""

    topology: Topology
    features: tuple[int, ...]
    batch_size: int


def choose_patch(
    spacing: Sequence[float],
    median_shape: Sequence[float],
    *,
    num_outputs: int,
    num_voxels: float,
    memory_gb: float = _REFERENCE_GB,
) -> PatchPlan:
    """Choose the largest patch, shaped like the median case, that fits; then the batch that fills what is left.

    Args:
        spacing: Millimetres per voxel along the patch's axes.
        median_shape: Voxels of the median case along them.
        num_outputs: Outputs of the network.
        num_voxels: Voxels of the whole data set.
        memory_gb: Memory that training may take; the estimate is that of nnU-Net's plain U-Net.
    """
    reference = _REFERENCES[len(spacing)]
    budget = reference.voxels * memory_gb / _REFERENCE_GB
    topology = choose_topology(spacing, _first_patch(spacing, median_shape, reference.first_patch_voxels))

    def estimate() -> float:
        features = stage_features(len(topology.strides), max_features=reference.max_features)
        return _feature_values(topology, features, num_outputs=num_outputs)

    while estimate() * _MIN_BATCH / reference.batch_size > budget:
        patch = list(topology.patch_size)
        largest = max(range(len(patch)), key=lambda axis: (patch[axis] / median_shape[axis], axis))
        smaller = list(patch)
        smaller[largest] -= topology.total_stride[largest]
        patch[largest] -= choose_topology(spacing, smaller).total_stride[largest]
        topology = choose_topology(spacing, patch)
    covering = round(num_voxels * _MAX_COVERED / math.prod(topology.patch_size))
    fitting = round(budget / estimate() * reference.batch_size)
    return PatchPlan(
        topology=topology,
        features=stage_features(len(topology.strides), max_features=reference.max_features),
        batch_size=max(min(fitting, covering), _MIN_BATCH),
    )


def stage_features(num_stages: int, *, max_features: int) -> tuple[int, ...]:
    """Return the features of each stage: doubled from stage to stage up to a bound."""
    return tuple(min(BASE_FEATURES * 2**stage, max_features) for stage in range(num_stages))


def _first_patch(spacing: Sequence[float], median_shape: Sequence[float], voxels: int) -> list[float]:
    """Return a patch of equal extent in mm along every axis, but not larger than the median case.

    A median of two cases may be half a voxel; it is rounded where strides are, as nnU-Net does.
    """
    per_mm = [1 / value for value in spacing]
    scale = (voxels / math.prod(per_mm)) ** (1 / len(per_mm))
    return [min(round(axis * scale), median) for axis, median in zip(per_mm, median_shape, strict=True)]


def _feature_values(topology: Topology, features: Sequence[int], *, num_outputs: int) -> float:
    """Count the feature values that a plain U-Net computes for one patch; logits at full resolution alone."""
    sizes, size = [], list(topology.patch_size)
    for stride in topology.strides:
        size = [voxels // step for voxels, step in zip(size, stride, strict=True)]
        sizes.append(math.prod(size))
    encoder = sum(_BLOCKS * count * voxels for count, voxels in zip(features, sizes, strict=True))
    decoder = sum(
        (_BLOCKS + 1) * count * voxels for count, voxels in zip(features[:-1], sizes[:-1], strict=True)
    )
    return float(encoder + decoder + num_outputs * sizes[0])
