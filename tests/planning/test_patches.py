"""Planned patches compared with nnU-Net's public plans."""

import math

import pytest

from scanseg.planning.patches import choose_patch, stage_features


@pytest.mark.parametrize(
    ("spacing", "median_shape", "outputs", "cases", "patch", "batch", "strides"),
    [
        # Task04 hippocampus, 3d_fullres
        ((1, 1, 1), (36, 50, 35), 3, 260, (40, 56, 40), 9, [(1, 1, 1)] + [(2, 2, 2)] * 3),
        # Task05 prostate, 3d_fullres: thick slices
        (
            (3.6, 0.625, 0.625),
            (20, 320, 319),
            3,
            32,
            (20, 320, 256),
            2,
            [(1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2), (1, 2, 2)],
        ),
        # Task03 liver, 3d_fullres: large CT
        ((1, 0.767, 0.767), (482, 512, 512), 3, 131, (128, 128, 128), 2, [(1, 1, 1)] + [(2, 2, 2)] * 5),
    ],
    ids=["hippocampus", "prostate", "liver"],
)
def test_patches_equal_those_of_nnunet(spacing, median_shape, outputs, cases, patch, batch, strides):
    voxels = cases * median_shape[0] * median_shape[1] * median_shape[2]

    plan = choose_patch(spacing, median_shape, num_outputs=outputs, num_voxels=voxels)

    assert plan.topology.patch_size == patch
    assert plan.batch_size == batch
    assert list(plan.topology.strides) == strides


def test_less_memory_gives_a_smaller_patch():
    def plan(memory_gb):
        return choose_patch((1, 1, 1), (256, 256, 256), num_outputs=2, num_voxels=1e9, memory_gb=memory_gb)

    assert math.prod(plan(4.0).topology.patch_size) < math.prod(plan(8.0).topology.patch_size)


def test_features_double_up_to_a_maximum():
    assert stage_features(6, max_features=320) == (32, 64, 128, 256, 320, 320)
