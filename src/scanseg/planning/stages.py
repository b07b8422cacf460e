"""Resolutions of a data set: full, and low for large volumes."""

from dataclasses import dataclass, replace

import numpy as np

from scanseg.planning.patches import PatchPlan, choose_patch
from scanseg.planning.spacing import TargetGrid, choose_grid
from scanseg.specs import Fingerprint

_SMALL_PART = 0.25
"""Minimum fraction of the median case in a patch. Smaller patches have too little context."""
_STEP = 1.03
"""Factor by which the spacing grows in the search for a low resolution."""
_COARSE_RATIO = 2.0
"""Ratio to the coarsest spacing above which only the finer axes grow."""
_LEAST_GAIN = 2.0
"""Minimum ratio of voxels at full resolution to voxels at a useful low resolution."""


@dataclass(frozen=True)
class Stage:
    """One resolution with its patches."""

    grid: TargetGrid
    """Grid of the network's input."""
    patch: PatchPlan
    """Patch, stages and batch size."""


@dataclass(frozen=True)
class Stages:
    """Resolutions of a data set."""

    full: Stage
    """Full resolution."""
    low: Stage | None
    """Low resolution. `None`: a patch at full resolution covers enough of a case."""


def choose_stages(fingerprint: Fingerprint, *, num_outputs: int) -> Stages:
    """Choose resolutions and patches for 3D networks by nnU-Net's rules.

    If a patch at full resolution covers less than a quarter of the median case, the spacing grows in steps of 3 % until
    a patch covers a quarter. First only fine axes grow, until no axis is more than twice as coarse as another.

    Args:
        fingerprint: Spacings and shapes of the cases.
        num_outputs: Number of outputs of the network.
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
    is_useful = stage is not full and median.prod() / num_voxels >= _LEAST_GAIN
    return Stages(full, stage if is_useful else None)


def _stage_at(
    spacing: np.ndarray, shape: np.ndarray, *, fingerprint: Fingerprint, like: TargetGrid, num_outputs: int
) -> Stage:
    """Return the resolution of a spacing.

    Args:
        spacing: Millimetres per voxel along z, y, x.
        shape: Voxels of the median case along z, y, x, not rounded.
        fingerprint: Fingerprint of the data set.
        like: Grid at full resolution.
        num_outputs: Number of outputs of the network.
    """
    z, y, x = (float(size) for size in spacing)
    rounded = np.maximum(np.round(shape), 1)
    grid = replace(
        like,
        spacing=(z, y, x),
        median_shape=(float(rounded[0]), float(rounded[1]), float(rounded[2])),
        num_voxels=float(shape.prod()) * len(fingerprint.cases),
    )
    patch = choose_patch(grid.spacing, grid.median_shape, num_outputs=num_outputs, num_voxels=grid.num_voxels)
    return Stage(grid, patch)
