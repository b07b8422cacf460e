"""The stages of a data set: full resolution, and a low one where a patch shows little of a case."""

from dataclasses import dataclass, replace

import numpy as np

from scanseg.planning.patches import PatchPlan, choose_patch
from scanseg.planning.spacing import TargetGrid, choose_grid
from scanseg.specs import Fingerprint

_SMALL_PART = 0.25
"""A patch that holds less of the median case than this sees too little around what it segments."""
_STEP = 1.03
"""Factor by which spacing grows in search of a low resolution."""
_COARSE_RATIO = 2.0
"""Axes finer than the coarsest by more than this grow alone."""
_LEAST_GAIN = 2.0
"""A low resolution with more voxels than the full one divided by this is not worth a stage."""


@dataclass(frozen=True)
class Stage:
    """One resolution, and the patches that fit there."""

    grid: TargetGrid
    patch: PatchPlan


@dataclass(frozen=True)
class Stages:
    """The resolutions at which volumes of a data set are segmented."""

    full: Stage
    low: Stage | None
    """None: a patch at full resolution shows enough of a case."""


def choose_stages(fingerprint: Fingerprint, *, num_outputs: int) -> Stages:
    """Choose resolutions and patches for 3D networks, as nnU-Net does.

    Where a patch at full resolution holds less than a quarter of the median case, the spacing grows by steps of 3 %,
    that of the fine axes first until no axis is more than twice as coarse as another, until a patch holds a quarter.

    Args:
        fingerprint: Spacings and shapes of the cases.
        num_outputs: Outputs of the network.
    """
    grid = choose_grid(fingerprint)
    full = Stage(
        grid,
        choose_patch(grid.spacing, grid.median_shape, num_outputs=num_outputs, num_voxels=grid.num_voxels),
    )
    stage, spacing, median = full, np.array(grid.spacing), np.array(grid.median_shape)
    num_voxels = median.prod()
    while np.prod(stage.patch.topology.patch_size) / num_voxels < _SMALL_PART:
        finer = spacing.max() / spacing > _COARSE_RATIO
        spacing = spacing * np.where(finer | ~finer.any(), _STEP, 1.0)
        shape = np.array(grid.spacing) / spacing * median
        num_voxels = shape.prod()
        stage = _stage_at(spacing, shape, fingerprint=fingerprint, like=grid, num_outputs=num_outputs)
    is_worth_it = stage is not full and median.prod() / num_voxels >= _LEAST_GAIN
    return Stages(full, stage if is_worth_it else None)


def _stage_at(
    spacing: np.ndarray, shape: np.ndarray, *, fingerprint: Fingerprint, like: TargetGrid, num_outputs: int
) -> Stage:
    """Return the stage of a spacing."""
    z, y, x = (float(size) for size in spacing)
    rounded = np.round(shape)
    grid = replace(
        like,
        spacing=(z, y, x),
        median_shape=(float(rounded[0]), float(rounded[1]), float(rounded[2])),
        num_voxels=float(shape.prod()) * len(fingerprint.cases),
    )
    patch = choose_patch(grid.spacing, grid.median_shape, num_outputs=num_outputs, num_voxels=grid.num_voxels)
    return Stage(grid, patch)
