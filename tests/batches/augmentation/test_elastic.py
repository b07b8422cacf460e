"""Elastic deformation, compared with its definition."""

import numpy as np
import pytest
import torch

from scanseg.batches.augmentation import Warps, draw_warps, warped_coordinates
from scanseg.batches.augmentation.elastic import Deformation, displacements_of
from scanseg.batches.augmentation.spatial import rotation
from scanseg.specs import AffineTransform

CPU = torch.device("cpu")
SINGLE_PROCESS = {"rotation_probability": 0, "scale_probability": 0}


def deformation(*, sigma=2.0, magnitudes=(1.0, 2.0, 3.0), seed=0):
    return Deformation((sigma,) * 3, magnitudes, seed)


def test_largest_displacement_along_each_axis_is_as_drawn():
    steps = displacements_of(deformation(), size=(9, 12, 10), device=CPU)

    assert steps.abs().amax((1, 2, 3)).tolist() == pytest.approx([1, 2, 3])
    assert not torch.equal(steps[0] * 2, steps[1])


@pytest.mark.parametrize("sigma", [1.5, 3.0])
def test_displacements_correlate_as_blurred_noise(sigma):
    """White noise blurred by a Gaussian correlates by exp(-d^2 / 4 sigma^2) over a distance d."""
    size = (64, 64, 64)
    found = []
    for seed in range(4):
        steps = displacements_of(deformation(sigma=sigma, seed=seed), size=size, device=CPU)[1]
        steps = steps - steps.mean()
        along = [(steps * steps.roll(d, axis)).mean() for axis in range(3) for d in range(7)]
        found.append((torch.stack(along).reshape(3, 7) / steps.square().mean()).numpy())

    expected = np.exp(-np.square(np.arange(7)) / (4 * sigma**2))
    # Mean of four fields with some hundred independent regions each. Measured: at most 0.03.
    assert np.abs(np.mean(found, axis=0) - expected).max() < 0.06


def test_displacements_precede_the_linear_map():
    matrix, bent = rotation(np.deg2rad([20, -30, 5])) * 1.2, deformation()
    corners, size = np.array([[10, 20, 30]]), (5, 6, 7)

    def read(given, here):
        warps = Warps(np.array([0]), given[None], np.zeros((1, 3)), (here,))
        return warped_coordinates(warps, corners, size=size, device=CPU)[0]

    moved = torch.einsum(
        "ij,jzyx->izyx", torch.from_numpy(matrix), displacements_of(bent, size=size, device=CPU).double()
    )
    torch.testing.assert_close(read(matrix, bent), read(matrix, None) + moved.float(), rtol=1e-5, atol=1e-4)


def test_all_slices_of_flat_patches_have_equal_displacements():
    spec = AffineTransform(**SINGLE_PROCESS, elastic_probability=1, in_plane=True)
    size = (6, 16, 16)
    warps = draw_warps(spec, batch_size=3, size=size, rng=np.random.default_rng(0))
    read = warped_coordinates(warps, np.zeros((3, 3)), size=size, device=CPU)

    assert torch.equal(read[:, 0], torch.arange(6.0)[None, :, None, None].expand(3, *size))
    assert torch.equal(read[:, 1:], read[:, 1:, :1].expand(-1, -1, 6, -1, -1))
    assert (read[:, 1] != torch.arange(16.0)[:, None]).any()


def test_no_position_lies_beyond_the_reach():
    spec = AffineTransform(
        rotation_probability=1, scale_probability=1, elastic_probability=1, elastic_magnitude_range=(3, 8)
    )
    size, corners = (8, 10, 12), np.zeros((20, 3))
    warps = draw_warps(spec, batch_size=20, size=size, rng=np.random.default_rng(0))
    lowest, highest = warps.reach(corners, size=size)
    read = warped_coordinates(warps, corners, size=size, device=CPU).flatten(2).numpy()

    assert (read.min(2) >= lowest - 1e-3).all()
    assert (read.max(2) <= highest + 1e-3).all()


def test_probability_of_a_deformation():
    numbers = {"batch_size": 400, "size": (8, 8, 8)}
    off = draw_warps(AffineTransform(), **numbers, rng=np.random.default_rng(0))
    on = draw_warps(
        AffineTransform(**SINGLE_PROCESS, elastic_probability=0.3), **numbers, rng=np.random.default_rng(0)
    )

    assert not any(off.deformations)
    assert 0.2 < len(on.patches) / 400 < 0.4
    assert all(on.deformations)
