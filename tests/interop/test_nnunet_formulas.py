"""Sizes and windows follow nnU-Net's formulas to the last bit, also at half voxels."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from scanseg.inference.windows import window_starts
from scanseg.preprocessing import preprocess_image
from scanseg.specs import PreprocessingSpec, ZScoreNormalization
from tests.factories import image_of


def nnunet_starts(size, patch):
    """The first voxel of each window, as in nnU-Net's `compute_steps_for_sliding_window` with a step of a half."""
    num_steps = int(np.ceil((size - patch) / (patch * 0.5))) + 1
    step = (size - patch) / (num_steps - 1) if num_steps > 1 else 99999999999
    return [(int(np.round(step * number)),) for number in range(num_steps)]


@given(st.integers(2, 300), st.integers(0, 900))
@settings(max_examples=300, deadline=None)
def test_windows_are_at_the_same_positions(patch, room):
    assert window_starts((patch + room,), patch_size=(patch,), overlap=0.5) == nnunet_starts(
        patch + room, patch
    )


def test_half_voxels_of_windows():
    # 35 / 6 * 3 is 17.5 exactly, or rounded to a neighbour: the rounding depends on the order of the operations.
    pairs = [(patch, room) for patch in range(2, 40) for room in range(1, 200)]
    other_order = 0
    for patch, room in pairs:
        expected = nnunet_starts(patch + room, patch)
        steps = max(1, len(expected) - 1)
        other_order += [(round(room * number / steps),) for number in range(len(expected))] != expected
        assert window_starts((patch + room,), patch_size=(patch,), overlap=0.5) == expected
    assert other_order > 0


def test_half_voxels_of_target_sizes():
    sources, sizes = (0.9, 0.3, 1.1, 0.7, 1.3), range(3, 12)
    rounded_otherwise = 0
    for source in sources:
        for target in (0.6, 0.2, 1.0, 1.4):
            preprocessing = PreprocessingSpec(
                normalizations=(ZScoreNormalization(),), spacing=(1.0, 1.0, target), crop_to_nonzero=False
            )
            for size in sizes:
                image = image_of(np.ones((1, 1, 1, size), dtype=np.float32), spacing=(1.0, 1.0, source))
                expected = round(source / target * size)  # nnU-Net's `compute_new_shape`
                _, geometry = preprocess_image(image, preprocessing)
                assert geometry.shape[2] == max(1, expected)
                rounded_otherwise += expected != round(size * source / target)
    assert rounded_otherwise > 0  # the order of the operations matters
