"""Axis codes of volumes, and the way from one orientation to another."""

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanseg.imaging import Image, axis_codes, direction_of, find_reorientation, left_right_axis

ALL = ["".join(letters) for order in permutations(("RL", "AP", "SI")) for letters in product(*order)]


def image_of(direction, shape=(3, 4, 5)):
    return Image(
        np.zeros((1, *shape)), spacing=(1.0,) * 3, origin=(0.0,) * 3, direction=tuple(np.ravel(direction))
    )


def test_there_are_48_orientations():
    assert len(set(ALL)) == 48


@pytest.mark.parametrize("codes", ALL)
def test_axis_aligned_codes_are_those_of_nibabel(codes):
    nibabel = pytest.importorskip("nibabel", reason="nibabel is not installed")
    image = image_of(direction_of(codes))
    affine = np.diag([-1, -1, 1]) @ np.reshape(image.direction, (3, 3))  # from ITK's LPS to NIfTI's RAS

    assert axis_codes(image) == codes
    assert "".join(nibabel.aff2axcodes(np.block([[affine, np.zeros((3, 1))], [0, 0, 0, 1]]))) == codes


@given(st.sampled_from(ALL), st.tuples(*[st.floats(-40, 40)] * 3))
def test_oblique_axes_have_the_codes_of_the_nearest(codes, degrees):
    first, second, third = np.deg2rad(np.array(degrees) / 3)
    turn = np.eye(3)
    for angle, (row, column) in zip((first, second, third), ((0, 1), (0, 2), (1, 2)), strict=True):
        step = np.eye(3)
        step[row, row] = step[column, column] = np.cos(angle)
        step[row, column], step[column, row] = -np.sin(angle), np.sin(angle)
        turn = turn @ step

    assert axis_codes(image_of(turn @ np.reshape(direction_of(codes), (3, 3)))) == codes


@given(st.sampled_from(ALL), st.sampled_from(ALL))
def test_reorientation_moves_each_voxel_to_its_place(source, target):
    position = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}
    sizes = {0: 3, 1: 4, 2: 5}

    def volume(codes):
        """Number each voxel by its place in R, A, S."""
        places = np.arange(3 * 4 * 5).reshape(3, 4, 5)
        array = places.transpose([position[letter] for letter in codes])
        array = array[tuple(slice(None, None, 1 if letter in "RAS" else -1) for letter in codes)]
        assert array.shape == tuple(sizes[position[letter]] for letter in codes)
        return array.T  # z, y, x

    order, flips = find_reorientation(source, target)
    moved = volume(source).transpose(order)
    moved = moved[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]

    np.testing.assert_array_equal(moved, volume(target))


def test_pictures_have_no_orientation():
    picture = Image(
        np.zeros((1, 4, 5)), spacing=(1.0, 1.0), origin=(0.0, 0.0), direction=(1.0, 0.0, 0.0, 1.0)
    )
    assert axis_codes(picture) is None


@pytest.mark.parametrize(("codes", "axis"), [("RAS", 2), ("LPS", 2), ("ARS", 1), ("SAR", 0), (None, 2)])
def test_the_axis_from_left_to_right(codes, axis):
    assert left_right_axis(codes) == axis
