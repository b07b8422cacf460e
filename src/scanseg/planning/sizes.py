"""Sizes of plans: small (CPU), medium (small GPU) and full."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np

from scanseg.errors import UsageError
from scanseg.planning.patches import PatchPlan, stage_features
from scanseg.planning.stages import Stage
from scanseg.planning.topology import choose_topology
from scanseg.specs import NetworkSpec, PlanSize, TrainingSpec

_STEP = 1.03
"""Factor by which the spacing grows in the search for a coarser grid."""
_COARSE_RATIO = 2.0
"""Ratio to the coarsest spacing above which only the finer axes grow."""


@dataclass(frozen=True)
class _Limits:
    """Largest values of a size. Smaller values of a recipe are kept."""

    features: int
    """Features of the first stage."""
    max_features: int
    """Features of any stage."""
    patch_voxels: Mapping[int, int]
    """Voxels of a patch, by its number of axes."""
    median_patches: float
    """Patches along each axis of the median case. Larger cases are resampled to a coarser grid."""
    batch_size: Mapping[int, int]
    """Patches in a batch, by their number of axes."""
    slice_size: int
    """Size of resized slices."""
    epochs: int
    """Epochs."""
    iterations: int
    """Iterations per epoch."""
    validation_batches: int
    """Batches of patches to validate on."""
    fields: Mapping[str, Mapping[str, object]]
    """Fields of networks without planned features, by their kind."""


_LIMITS: dict[str, _Limits] = {
    "small": _Limits(
        features=8,
        max_features=128,
        patch_voxels={2: 128 * 128, 3: 32 * 32 * 32},
        median_patches=2.0,
        batch_size={2: 4, 3: 2},
        slice_size=128,
        epochs=100,
        iterations=50,
        validation_batches=5,
        fields={
            "msvm-unet": {"dims": (24, 48, 96, 192), "depths": (1, 1, 2, 1), "decoder_depth": 1},
            "segresnet": {"features": 8, "blocks_encoder": (1, 1, 1, 1)},
            "unetr": {"features": 8, "hidden_size": 96, "mlp_dim": 192, "num_heads": 4},
            "swin-unetr": {"features": 12, "depths": (2, 1, 1, 1), "window_size": 4},
        },
    ),
    "medium": _Limits(
        features=16,
        max_features=256,
        patch_voxels={2: 256 * 256, 3: 72 * 72 * 72},
        median_patches=3.0,
        batch_size={2: 8, 3: 2},
        slice_size=224,
        epochs=300,
        iterations=250,
        validation_batches=20,
        fields={
            "msvm-unet": {"dims": (48, 96, 192, 384), "depths": (2, 2, 4, 2)},
            "segresnet": {"features": 16},
            "unetr": {"features": 16, "hidden_size": 384, "mlp_dim": 1536, "num_heads": 6},
            "swin-unetr": {"features": 24},
        },
    ),
}


def check_size(size: str) -> None:
    """Check the name of a size.

    Raises:
        UsageError: The size is unknown.
    """
    if size not in get_args(PlanSize):
        raise UsageError(f"size {size!r}: expected one of {', '.join(get_args(PlanSize))}.")


def limit_stage(stage: Stage, *, size: PlanSize, num_axes: int, whole_case: bool = False) -> Stage:
    """Return a stage within the limits of a size.

    The patch gets the aspect ratio of the median case. If the median case is much larger than a patch, the spacing
    grows, first along axes that are finer than half of the coarsest one.

    Args:
        stage: Grid and patch of the recipe.
        size: Size of the plan.
        num_axes: Axes of the patch: 2 or 3.
        whole_case: Make the grid so coarse that a patch spans the whole median case.
    """
    if size == "full":
        return stage
    limits, grid = _LIMITS[size], stage.grid
    spacing, median = np.array(grid.spacing[-num_axes:]), np.array(grid.median_shape[-num_axes:])
    extent = spacing * median
    patches = 1.0 if whole_case else limits.median_patches
    while np.prod(median) > limits.patch_voxels[num_axes] * patches**num_axes:
        finer = spacing.max() / spacing > _COARSE_RATIO
        spacing = spacing * np.where(finer | ~finer.any(), _STEP, 1.0)
        median = np.maximum(extent / spacing, 1.0)
    shrink = min(1.0, (limits.patch_voxels[num_axes] / float(np.prod(median))) ** (1 / num_axes))
    planned = stage.patch.topology
    is_kept = shrink == 1.0 and math.prod(planned.patch_size) <= limits.patch_voxels[num_axes]
    topology = planned if is_kept else choose_topology(list(spacing), list(np.ceil(median * shrink)))
    features = stage_features(
        len(topology.strides), max_features=limits.max_features, first_features=limits.features
    )
    batch_size = min(limits.batch_size[num_axes], max(2, stage.patch.batch_size))
    scale = float(np.prod(median) / np.prod(grid.median_shape[-num_axes:]))
    grid = replace(
        grid,
        spacing=(*grid.spacing[: 3 - num_axes], *map(float, spacing)),  # type: ignore[arg-type]
        median_shape=(*grid.median_shape[: 3 - num_axes], *map(float, np.round(median))),  # type: ignore[arg-type]
        num_voxels=grid.num_voxels * scale,
    )
    return Stage(grid, PatchPlan(topology, features, batch_size))


def limit_network(network: NetworkSpec, *, size: PlanSize) -> NetworkSpec:
    """Return a network within the limits of a size.

    Networks with planned stages get their features from `limit_stage`.

    Args:
        network: Network of the recipe.
        size: Size of the plan.
    """
    if size == "full":
        return network
    fields = _LIMITS[size].fields.get(network.kind, {})
    return type(network).model_validate({**network.model_dump(), **fields})


def limit_slices(
    slice_size: tuple[int, int], batch_size: int, *, size: PlanSize
) -> tuple[tuple[int, int], int]:
    """Return slice and batch size within the limits of a size.

    Args:
        slice_size: Size of resized slices.
        batch_size: Slices in a batch.
        size: Size of the plan.
    """
    if size == "full":
        return slice_size, batch_size
    limits = _LIMITS[size]
    height, width = (min(length, limits.slice_size) for length in slice_size)
    return (height, width), min(batch_size, limits.batch_size[2])


def limit_training(training: TrainingSpec, *, size: PlanSize) -> TrainingSpec:
    """Return a training within the limits of a size.

    Args:
        training: Training of the recipe.
        size: Size of the plan.
    """
    if size == "full":
        return training
    limits, iterations = _LIMITS[size], training.iterations_per_epoch
    return training.model_copy(
        update={
            "epochs": min(training.epochs, limits.epochs),
            "iterations_per_epoch": None if iterations is None else min(iterations, limits.iterations),
            "validation_batches": min(training.validation_batches, limits.validation_batches),
        }
    )
