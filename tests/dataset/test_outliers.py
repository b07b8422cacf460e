"""Cases that are far from the others get a warning, and usual variation gets none."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanseg.dataset import check_dataset, open_dataset
from scanseg.dataset.outliers import CaseMeasurements, ChannelRange, find_outliers
from scanseg.runtime import RunContext


def cases(spacings, shapes=None, ranges=None):
    shapes = shapes or [(20, 22, 16)] * len(spacings)
    ranges = ranges or [(0.0, 100.0)] * len(spacings)
    return [
        CaseMeasurements(f"c{number}", spacing, shape, (ChannelRange(*bounds),))
        for number, (spacing, shape, bounds) in enumerate(zip(spacings, shapes, ranges, strict=True))
    ]


@pytest.mark.parametrize(
    ("spacing", "hint"),
    [
        ((6.0, 6.0, 6.0), ""),
        ((1.0, 1.0, 3.0), ""),
        ((0.3, 1.0, 1.0), ""),
        ((1000.0, 1000.0, 1000.0), " (perhaps in micrometres)"),
        ((0.001, 0.001, 0.001), " (perhaps in metres)"),
        ((0.1, 0.1, 0.1), " (perhaps in centimetres)"),
    ],
)
@pytest.mark.parametrize("num_cases", [3, 6, 40])
def test_one_far_spacing_is_named(spacing, hint, num_cases):
    (warning,) = find_outliers(cases([spacing] + [(1.0, 1.0, 1.0)] * (num_cases - 1)), ["MRI"])
    named = " x ".join(f"{size:.3g}" if size < 1000 else f"{size:g}" for size in spacing)
    assert f"got c0 {named}{hint}. Check the header" in warning
    assert "spacing (z, y, x)" in warning
    assert "expected about 1 x 1 x 1 mm" in warning


def test_two_cases_of_different_units_are_both_named():
    (warning,) = find_outliers(cases([(1.0, 1.0, 1.0), (1000.0, 1000.0, 1000.0)]), ["MRI"])
    assert "c0 1 x 1 x 1" in warning
    assert "c1 1000 x 1000 x 1000" in warning


def test_half_of_the_cases_in_another_unit_are_reported():
    (warning,) = find_outliers(cases([(1.0,) * 3] * 3 + [(1000.0,) * 3] * 3), ["MRI"])
    assert warning.startswith("6 cases: spacing")


@pytest.mark.parametrize(
    "spacings",
    [
        [(5.0, 1.0, 1.0)] * 8,
        [(1.0, 1.0, 1.0)] * 4 + [(5.0, 1.0, 1.0)] * 4,  # two protocols
        [(thickness, 0.7, 0.7) for thickness in np.linspace(1, 10, 20)],
        [(1.0, 1.0, 1.0), (2.0, 1.0, 1.0), (1.5, 1.0, 1.0)],
        [(7.7, 1.25, 1.25)],
    ],
)
def test_usual_variation_gets_no_warning(spacings):
    assert find_outliers(cases(spacings), ["MRI"]) == []


@settings(max_examples=50, deadline=None)
@given(
    thickness=st.floats(0.5, 10),
    spread=st.floats(1, 2),
    num_cases=st.integers(2, 40),
    seed=st.integers(0, 999),
)
def test_anisotropic_sets_with_a_small_spread_get_no_warning(thickness, spread, num_cases, seed):
    factors = np.random.default_rng(seed).uniform(1, spread, (num_cases, 3))
    spacings = [tuple(float(f) for f in row * (thickness, 0.8, 0.8)) for row in factors]
    assert find_outliers(cases(spacings), ["MRI"]) == []


@settings(max_examples=50, deadline=None)
@given(
    factor=st.sampled_from([0.001, 0.01, 0.1, 10.0, 100.0, 1000.0]),
    spread=st.floats(1, 1.5),
    num_cases=st.integers(3, 40),
    seed=st.integers(0, 999),
)
def test_one_wrong_unit_among_similar_cases_is_found(factor, spread, num_cases, seed):
    factors = np.random.default_rng(seed).uniform(1, spread, (num_cases, 3))
    spacings = [tuple(float(f) for f in row) for row in factors]
    spacings[-1] = tuple(factor * size for size in spacings[-1])
    (warning,) = find_outliers(cases(spacings), ["MRI"])
    assert f"c{num_cases - 1} " in warning
    assert warning.startswith("1 case:")


@pytest.mark.parametrize("shape", [(1, 22, 16), (20, 22, 1), (400, 22, 16), (20, 2, 16), (20, 22, 800)])
def test_a_far_size_is_named(shape):
    shapes = [shape] + [(20, 22 + number, 16) for number in range(5)]
    (warning,) = find_outliers(cases([(1.0,) * 3] * 6, shapes), ["MRI"])
    assert f"c0 {' x '.join(map(str, shape))}. Check the files" in warning


@pytest.mark.parametrize("bounds", [(0.0, 3000.0), (0.0, 4095.0), (-1.0, 1.0), (0.0, 255.0), (24.0, 2500.0)])
def test_ct_without_offset_is_named(bounds):
    ranges = [bounds] + [(-1024.0, 1500.0 + 100 * number) for number in range(5)]
    (warning,) = find_outliers(cases([(1.0,) * 3] * 6, ranges=ranges), ["CT"])
    assert "intensities of channel CT" in warning
    assert f"c0 {bounds[0]:g} to {bounds[1]:g}" in warning
    assert "Hounsfield" in warning


@pytest.mark.parametrize(
    ("channel", "ranges"),
    [
        ("CT", [(-3024.0, 3071.0)] + [(-1024.0, 1500.0)] * 5),
        ("CT", [(0.0, 4095.0)] * 6),
        ("CT", [(-150.0, 300.0), (-160.0, 900.0), (-1000.0, 900.0)]),
        ("MRI", [(0.0, 1.0)] + [(0.0, 4000.0)] * 5),  # each image is normalized by itself
        ("R", [(0.0, 255.0), (10.0, 200.0), (0.0, 90.0)]),
    ],
)
def test_usual_intensities_get_no_warning(channel, ranges):
    assert find_outliers(cases([(1.0,) * 3] * len(ranges), ranges=ranges), [channel]) == []


def test_a_colour_image_from_0_to_1_among_8_bits_is_named():
    ranges = [(0.0, 255.0)] * 5 + [(0.0, 1.0)]
    (warning,) = find_outliers(cases([(1.0, 1.0)] * 6, [(20, 22)] * 6, ranges), ["red"])
    assert "c5 0 to 1" in warning


def test_spacings_are_compared_in_one_orientation(make_dataset, volume_writer):
    folder = make_dataset(4)
    image = np.random.default_rng(0).integers(1, 500, (10, 12, 5)).astype(np.int16)
    label_map = np.zeros((10, 12, 5), np.uint8)
    label_map[2:5, 2:5, 2:4] = 1
    turned = (0, 0, 1, 0, 1, 0, 1, 0, 0)  # x and z exchanged
    grid = {"spacing": (0.75, 0.5, 3.0), "direction": turned}
    volume_writer(folder / "imagesTr/case_3_0000.nii.gz", image, **grid)
    volume_writer(folder / "labelsTr/case_3.nii.gz", label_map, **grid)
    report = check_dataset(open_dataset(folder), context=RunContext(num_workers=0))
    assert not [warning for warning in report.warnings if "spacing" in warning]


@pytest.mark.parametrize("name", ["hippocampus", "acdc", "chaos-mr", "brats2015"])
def test_real_data_get_no_warning(shared_data, name):
    dataset = open_dataset(shared_data / name)
    cases = dataset.cases if len(dataset.cases) < 20 else dataset.cases[::10]
    few = type(dataset)(dataset.path.parent, dataset.spec, cases)
    assert check_dataset(few, context=RunContext(num_workers=0)).warnings == ()
