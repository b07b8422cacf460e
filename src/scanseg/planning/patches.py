"""Patch and batch size within nnU-Net's memory budget.

The budget counts the feature values of nnU-Net's plain U-Net.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scanseg.planning.topology import Topology, choose_topology

BASE_FEATURES = 32
"""Features of stage 0."""
_BLOCKS = 2
"""Convolutions per stage."""
_REFERENCE_GB = 8.0
"""GPU memory in GB of nnU-Net's reference."""
_MIN_BATCH = 2
"""Minimum batch size."""
_MAX_COVERED = 0.05
"""Maximum fraction of the data set's voxels in one batch."""


@dataclass(frozen=True)
class _Reference:
    """nnU-Net's reference values for a GPU of `_REFERENCE_GB`."""

    voxels: float
    """Feature values of a plain U-Net at the reference batch size."""
    batch_size: int
    """Reference batch size."""
    first_patch_voxels: int
    """Voxels of the patch at the start of the search."""
    max_features: int
    """Maximum number of features per stage."""


_REFERENCES = {2: _Reference(85e6, 12, 2048**2, 512), 3: _Reference(560e6, 2, 256**3, 320)}


@dataclass(frozen=True)
class PatchPlan:
    """Patch, stages and batch size that fit into memory."""

    topology: Topology
    """Patch size, strides and kernels."""
    features: tuple[int, ...]
    """Features of each stage."""
    batch_size: int
    """Patches per step."""


def choose_patch(
    spacing: Sequence[float],
    median_shape: Sequence[float],
    *,
    num_outputs: int,
    num_voxels: float,
    memory_gb: float = _REFERENCE_GB,
) -> PatchPlan:
    """Choose the largest patch that fits into memory, then the batch size.

    The patch has about the aspect ratio of the median case.

    Args:
        spacing: Millimetres per voxel along the patch's axes.
        median_shape: Voxels of the median case along the same axes.
        num_outputs: Number of outputs of the network.
        num_voxels: Voxels of the whole data set.
        memory_gb: Memory for the training in GB, estimated for nnU-Net's plain U-Net.
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


def stage_features(
    num_stages: int, *, max_features: int, first_features: int = BASE_FEATURES
) -> tuple[int, ...]:
    """Return the features of each stage, doubled up to a maximum.

    Args:
        num_stages: Number of stages.
        max_features: Maximum number of features.
        first_features: Features of the first stage.
    """
    return tuple(min(first_features * 2**stage, max_features) for stage in range(num_stages))


def _first_patch(spacing: Sequence[float], median_shape: Sequence[float], voxels: int) -> list[float]:
    """Return a patch of equal extent along every axis.

    The extent is equal in mm, within the median case. A median of two cases may be a half-integer. It is rounded
    together with the strides, as in nnU-Net.
    """
    per_mm = [1 / value for value in spacing]
    scale = (voxels / math.prod(per_mm)) ** (1 / len(per_mm))
    return [min(round(axis * scale), median) for axis, median in zip(per_mm, median_shape, strict=True)]


def _feature_values(topology: Topology, features: Sequence[int], *, num_outputs: int) -> float:
    """Count the feature values of a plain U-Net for one patch.

    Only the logits at full resolution are counted.
    """
    sizes, size = [], list(topology.patch_size)
    for stride in topology.strides:
        size = [voxels // step for voxels, step in zip(size, stride, strict=True)]
        sizes.append(math.prod(size))
    encoder = sum(_BLOCKS * count * voxels for count, voxels in zip(features, sizes, strict=True))
    decoder = sum(
        (_BLOCKS + 1) * count * voxels for count, voxels in zip(features[:-1], sizes[:-1], strict=True)
    )
    return float(encoder + decoder + num_outputs * sizes[0])
