"""Rotation, scaling, shearing and translation of patches.

Each patch has one linear map of coordinates, which follows its elastic deformation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from scanseg.batches.augmentation.elastic import Deformation, displacements_of, draw_deformation
from scanseg.batches.transfer import to_device
from scanseg.specs import AffineTransform


@dataclass(frozen=True, eq=False)
class Warps:
    """Warped patches of a batch and their maps of coordinates."""

    patches: np.ndarray
    """Numbers of these patches in the batch, (patch,)."""
    matrices: np.ndarray
    """Linear map of offsets from a patch's centre to offsets in the case, in voxels, (patch, 3, 3), axes z, y, x."""
    shifts: np.ndarray
    """Translation of the centre in voxels along z, y, x, (patch, 3)."""
    deformations: tuple[Deformation | None, ...]
    """Elastic deformation of each patch, before its linear map. `None`: no deformation."""

    def within(self, part: slice) -> "Warps":
        """Return the warps of a part of the batch.

        Args:
            part: Range of patches. They are numbered from 0 in the result.
        """
        chosen = (self.patches >= part.start) & (self.patches < part.stop)
        return Warps(
            self.patches[chosen] - part.start,
            self.matrices[chosen],
            self.shifts[chosen],
            tuple(self.deformations[number] for number in np.flatnonzero(chosen)),
        )

    @classmethod
    def join(cls, batches: "Sequence[Warps]", *, batch_size: int) -> "Warps":
        """Return the warps of several batches of equal size.

        Args:
            batches: Warps of each batch. Their patches are numbered consecutively in the result.
            batch_size: Patches per batch.
        """
        return cls(
            np.concatenate([number * batch_size + each.patches for number, each in enumerate(batches)]),
            np.concatenate([each.matrices for each in batches]),
            np.concatenate([each.shifts for each in batches]),
            tuple(chain.from_iterable(each.deformations for each in batches)),
        )

    def reach(self, corners: np.ndarray, *, size: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return the lowest and highest position that each warped patch reads.

        Args:
            corners: First voxel of each warped patch before warping along z, y, x, (patch, 3).
            size: Voxels of a patch along z, y, x.

        Returns:
            Lowest and highest positions along z, y, x, each (patch, 3).
        """
        middle = (np.array(size) - 1) / 2
        steps = np.array([each.magnitudes if each else (0.0,) * 3 for each in self.deformations]).reshape(
            -1, 3
        )
        extent = (np.abs(self.matrices) @ (middle + steps)[..., None])[..., 0]
        centres = corners + middle + self.shifts
        return centres - extent, centres + extent


def draw_warps(
    spec: AffineTransform, *, batch_size: int, size: Sequence[int], rng: np.random.Generator
) -> Warps:
    """Draw the warps of a batch.

    Args:
        spec: Probabilities and ranges.
        batch_size: Patches per batch.
        size: Voxels of a patch along z, y, x. One voxel along z means 2D: warps are in-plane.
        rng: Source of randomness.
    """
    in_plane = spec.in_plane or size[0] == 1
    matrices = np.tile(np.eye(3), (batch_size, 1, 1))
    shifts = np.zeros((batch_size, 3))
    deformations: list[Deformation | None] = [None] * batch_size
    for patch in range(batch_size):
        if rng.random() >= spec.probability:
            continue
        if rng.random() < spec.rotation_probability:
            angles = np.deg2rad(rng.uniform(*spec.rotation_degrees_range, size=3))
            matrices[patch] = rotation(angles * [1, 0, 0] if in_plane else angles)
        if rng.random() < spec.scale_probability:
            scale = rng.uniform(*spec.scale_range)
            matrices[patch] = matrices[patch] @ np.diag([1.0 if in_plane else scale, scale, scale])
        if rng.random() < spec.shear_probability:
            matrices[patch] = matrices[patch] @ _shear(
                np.deg2rad(rng.uniform(*spec.shear_degrees_range, size=2))
            )
        if rng.random() < spec.translation_probability:
            shifts[patch, 1:] = rng.uniform(*spec.translation_range, size=2) * size[1:]
        deformations[patch] = draw_deformation(spec, size=size, in_plane=in_plane, rng=rng)
    deformed = np.array([each is not None for each in deformations])
    changed = (matrices != np.eye(3)).any(axis=(1, 2)) | shifts.any(axis=1) | deformed
    patches = np.flatnonzero(changed)
    return Warps(
        patches, matrices[patches], shifts[patches], tuple(deformations[number] for number in patches)
    )


def rotation(angles: np.ndarray) -> np.ndarray:
    """Return the product of rotations about z, y and x.

    Args:
        angles: Angles in radians about z, y, x.

    Returns:
        Matrix (3, 3) with axes z, y, x.
    """
    (cz, cy, cx), (sz, sy, sx) = np.cos(angles), np.sin(angles)
    about_z = np.array([[1, 0, 0], [0, cz, -sz], [0, sz, cz]])
    about_y = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    about_x = np.array([[cx, -sx, 0], [sx, cx, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def _shear(angles: np.ndarray) -> np.ndarray:
    """Return the matrix that shears y along x and x along y.

    Args:
        angles: Two angles in radians.
    """
    return np.array([[1, 0, 0], [0, 1, np.tan(angles[0])], [0, np.tan(angles[1]), 1]])


def warped_coordinates(
    warps: Warps, corners: np.ndarray, *, size: Sequence[int], device: torch.device
) -> Float[Tensor, "patch 3 z y x"]:
    """Return the positions of the voxels of warped patches.

    Args:
        warps: The warps.
        corners: First voxel of each warped patch before warping along z, y, x, (patch, 3).
        size: Voxels of a patch along z, y, x.
        device: Device of the result.

    Returns:
        Position of each voxel in its case, in voxels along z, y, x.
    """
    middle = (np.array(size) - 1) / 2
    numbers = [warps.matrices, corners + middle + warps.shifts]
    numbers += [np.arange(size[axis]) - middle[axis] for axis in range(3)]
    sent = to_device(*(each.astype(np.float32) for each in numbers), device=device)
    matrices, centres = (each[..., None, None, None] for each in sent[:2])
    offsets = [each.view(1, *(1,) * axis, -1, *(1,) * (2 - axis)) for axis, each in enumerate(sent[2:])]
    if any(warps.deformations):
        steps = _displacements(warps.deformations, size=size, device=device)
        offsets = [offset + steps[:, axis] for axis, offset in enumerate(offsets)]
    # No matrix product: a GPU may round it to TF32, an error of 0.05 voxels in a large patch.
    return sum((matrices[:, :, axis] * offsets[axis][:, None] for axis in range(3)), start=centres)


def _displacements(
    deformations: Sequence[Deformation | None], *, size: Sequence[int], device: torch.device
) -> Float[Tensor, "patch 3 z y x"]:
    """Return the displacements of every patch, 0 without a deformation."""
    still = torch.zeros((), device=device).expand(3, *size)
    return torch.stack(
        [displacements_of(each, size=size, device=device) if each else still for each in deformations]
    )
