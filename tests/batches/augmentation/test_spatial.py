"""Warps: coordinates compared with geometry calculated by hand."""

import numpy as np
import pytest
import torch

from scanseg.batches.augmentation import Warps, draw_warps, warped_coordinates
from scanseg.batches.augmentation.spatial import rotation
from scanseg.specs import AffineTransform

CPU = torch.device("cpu")


def coordinates(matrix, shift=(0, 0, 0), size=(5, 5, 5)):
    warps = Warps(np.array([0]), np.array(matrix)[None], np.array([shift]), (None,))
    return warped_coordinates(warps, np.array([[10, 20, 30]]), size=size, device=CPU)[0]


def test_the_identity_reads_the_patch_itself():
    read = coordinates(np.eye(3))

    assert read[:, 0, 0, 0].tolist() == [10, 20, 30]
    assert read[:, 4, 3, 2].tolist() == [14, 23, 32]


def test_rotation_by_90_degrees_about_z():
    read = coordinates(rotation(np.deg2rad([90, 0, 0])))

    assert read[:, 2, 2, 2].tolist() == [12, 22, 32]
    assert read[:, 2, 2, 4].tolist() == pytest.approx([12, 20, 32], abs=1e-4)


@pytest.mark.parametrize("angles", [(10, 0, 0), (20, -30, 5)])
def test_rotations_keep_lengths_and_orientation(angles):
    matrix = rotation(np.deg2rad(angles))

    assert matrix @ matrix.T == pytest.approx(np.eye(3))
    assert np.linalg.det(matrix) == pytest.approx(1)


def test_translation_moves_all_voxels():
    assert coordinates(np.eye(3), shift=(0, 1.5, -2))[:, 0, 0, 0].tolist() == [10, 21.5, 28]


def draw(size=(8, 8, 8), number=400, **fields):
    spec = AffineTransform(**{"rotation_probability": 0, "scale_probability": 0} | fields)
    return draw_warps(spec, batch_size=number, size=size, rng=np.random.default_rng(0))


def test_probabilities_of_warps():
    assert len(draw().patches) == 0
    assert len(draw(rotation_probability=0.2).patches) == pytest.approx(80, abs=25)
    assert len(draw(rotation_probability=1.0, probability=0.5).patches) == pytest.approx(200, abs=40)


def test_scales_are_in_range_and_equal_on_all_axes():
    scales = np.array([np.diag(m) for m in draw(scale_probability=1.0, scale_range=(0.7, 1.4)).matrices])

    assert (scales[:, 0] == scales[:, 1]).all()
    assert (scales[:, 0] == scales[:, 2]).all()
    assert 0.7 <= scales.min() < 0.75
    assert 1.35 < scales.max() <= 1.4


@pytest.mark.parametrize("fields", [{"in_plane": True}, {"size": (1, 8, 8)}])
def test_flat_patches_are_warped_in_plane(fields):
    warps = draw(
        rotation_probability=1.0,
        scale_probability=1.0,
        shear_probability=1.0,
        shear_degrees_range=(-10, 10),
        **fields,
    )

    assert (warps.matrices[:, 0] == [1, 0, 0]).all()
    assert (warps.matrices[:, 1:, 0] == 0).all()


def test_translations_are_fractions_of_the_patch():
    shifts = draw(size=(1, 10, 20), translation_probability=1.0, translation_range=(-0.2, 0.2)).shifts

    assert np.abs(shifts).max(axis=0) == pytest.approx([0, 2, 4], abs=0.1)
