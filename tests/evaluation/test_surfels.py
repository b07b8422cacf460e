import itertools

import numpy as np
import pytest

from scanseg.evaluation.surfels import CORNERS, surfel_codes, surfel_sizes

# Area at spacing 1 of the surfel for one code of each of the 14 classes that turning, mirroring and exchanging inside
# and outside leave, from the table of DeepMind's surface-distance (all 256 codes agree with it at any spacing).
DEEPMIND_AREAS = {
    0: 0.0,
    1: 0.21650635,
    3: 0.70710678,
    6: 0.43301270,
    7: 1.14951905,
    15: 1.0,
    22: 0.64951905,
    23: 1.29903811,
    24: 0.43301270,
    25: 0.92361313,
    27: 1.57313218,
    30: 1.36602540,
    60: 1.41421356,
    105: 0.86602540,
}


def code_of(corners):
    return sum(1 << (7 - CORNERS.index(corner)) for corner in corners)


def symmetries():
    for order in itertools.permutations(range(3)):
        for flips in itertools.product((0, 1), repeat=3):
            yield lambda corner, order=order, flips=flips: tuple(
                corner[a] ^ f for a, f in zip(order, flips, strict=True)
            )


@pytest.mark.parametrize(("code", "area"), DEEPMIND_AREAS.items())
def test_areas_equal_deepminds_table(code, area):
    sizes = surfel_sizes((1, 1, 1))
    inside = [corner for i, corner in enumerate(CORNERS) if code >> (7 - i) & 1]
    for move in symmetries():
        moved = code_of(move(corner) for corner in inside)
        assert sizes[moved] == pytest.approx(area, abs=1e-8)
        assert sizes[255 - moved] == pytest.approx(area, abs=1e-8)


def test_the_classes_above_are_all():
    sizes = surfel_sizes((1, 1, 1))
    assert sorted({round(float(size), 6) for size in sizes}) == sorted(
        {round(a, 6) for a in DEEPMIND_AREAS.values()}
    )


def test_areas_follow_the_spacing():
    sizes = surfel_sizes((3, 2, 0.5))
    across_z = code_of(corner for corner in CORNERS if corner[0] == 0)
    across_x = code_of(corner for corner in CORNERS if corner[2] == 0)
    assert sizes[across_z] == pytest.approx(2 * 0.5)
    assert sizes[across_x] == pytest.approx(3 * 2)
    # A corner is cut off by a triangle between the middles of three edges.
    a, b, c = np.diag([1.5, 1.0, 0.25])
    assert sizes[1] == pytest.approx(np.linalg.norm(np.cross(b - a, c - a)) / 2)


def test_lengths_in_two_dimensions():
    sizes = surfel_sizes((3.0, 4.0))
    assert sizes[[0b0000, 0b1111]].tolist() == [0, 0]
    assert sizes[[0b0011, 0b1100]].tolist() == [4, 4]
    assert sizes[[0b0101, 0b1010]].tolist() == [3, 3]
    assert sizes[[0b0001, 0b0010, 0b0100, 0b1000, 0b1110]].tolist() == [2.5] * 5
    assert sizes[[0b0110, 0b1001]].tolist() == [5, 5]


def test_a_voxel_has_eight_neighbourhoods_with_one_corner_each():
    codes = surfel_codes(np.pad(np.ones((1, 1, 1), bool), 1))
    assert codes.shape == (2, 2, 2)
    assert codes.ravel().tolist() == [1, 2, 4, 8, 16, 32, 64, 128]


def test_codes_place_corners_as_documented(rng):
    mask = rng.random((3, 4, 5)) < 0.5
    padded = np.pad(mask, 1)
    codes = surfel_codes(padded)
    for z, y, x in np.ndindex(codes.shape):
        assert codes[z, y, x] == code_of(c for c in CORNERS if padded[z + c[0], y + c[1], x + c[2]])


@pytest.mark.parametrize("spacing", [(1, 1, 1), (2.5, 1, 0.7)])
def test_surface_of_a_large_ball_is_near_the_formula(spacing):
    radius = 20.0
    axes = [np.arange(-radius - 3, radius + 3, size) for size in spacing]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    ball = z**2 + y**2 + x**2 < radius**2
    area = surfel_sizes(spacing)[surfel_codes(np.pad(ball, 1))].sum()
    # A stepped surface is larger than a smooth one; measured 1.08 and 1.17.
    assert 1.0 < area / (4 * np.pi * radius**2) < 1.2
