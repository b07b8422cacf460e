import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from scanseg.imaging import resample_image, resample_label_map

SIZES = st.integers(1, 9)
SHAPES = st.tuples(SIZES, SIZES, SIZES)


def zoomed(array, shape, order):
    """Compute skimage.transform.resize(mode="edge", anti_aliasing=False): scipy's zoom, clipped."""
    zoom = np.divide(shape, array.shape)
    result = ndimage.zoom(array.astype(float), zoom, order=order, mode="nearest", grid_mode=True)
    return np.clip(result, array.min(), array.max())


@settings(max_examples=40, deadline=None)
@given(old=SHAPES, new=SHAPES, order=st.sampled_from([1, 3]), seed=st.integers(0, 99))
def test_agrees_with_the_definition_voxel_by_voxel(old, new, order, seed):
    array = np.random.default_rng(seed).normal(size=(2, *old)).astype(np.float32)
    result = resample_image(array, new, order=order, separate_z=False)
    assert result.dtype == np.float32
    for channel, expected in zip(result, array, strict=True):
        # float32 sums: measured 1e-6
        np.testing.assert_allclose(channel, zoomed(expected, new, order), atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(old=SHAPES, new=SHAPES, order=st.sampled_from([1, 3]), seed=st.integers(0, 99))
def test_separate_z_is_in_plane_interpolation_then_the_nearest_slice(old, new, order, seed):
    """As in nnU-Net: slices by resize, then map_coordinates of order 0 along z."""
    array = np.random.default_rng(seed).normal(size=old).astype(np.float32)
    slices = np.stack([zoomed(plane, new[1:], order) for plane in array])
    z = old[0] / new[0] * (np.arange(new[0]) + 0.5) - 0.5
    coordinates = np.meshgrid(z, np.arange(new[1]), np.arange(new[2]), indexing="ij")
    expected = ndimage.map_coordinates(slices, np.array(coordinates), order=0, mode="nearest")
    result = resample_image(array[None], new, order=order, separate_z=True)[0]
    np.testing.assert_allclose(result, expected, atol=1e-5)  # float32 sums: measured 1e-6


def test_borders_of_the_grids_are_in_the_same_place():
    line = np.array([0.0, 1.0]).reshape(1, 1, 1, 2)
    doubled = resample_image(line, (1, 1, 4), order=1, separate_z=False)
    np.testing.assert_allclose(doubled.ravel(), [0, 0.25, 0.75, 1])
    halved = resample_image(doubled, (1, 1, 2), order=1, separate_z=False)
    np.testing.assert_allclose(halved.ravel(), [0.125, 0.875])


def test_nearest_takes_the_voxel_under_the_centre():
    line = np.arange(6).reshape(1, 1, 1, 6)
    assert resample_image(line, (1, 1, 3), order=0, separate_z=False).ravel().tolist() == [1, 3, 5]
    assert resample_image(line[..., :2], (1, 1, 5), order=0, separate_z=False).ravel().tolist() == [
        0,
        0,
        1,
        1,
        1,
    ]


def test_cubic_does_not_leave_the_range_of_its_input():
    step = np.zeros((1, 1, 8, 8))
    step[..., 4:] = 1
    result = resample_image(step, (1, 20, 20), order=3, separate_z=True)
    assert result.min() == 0
    assert result.max() == 1


def test_arrays_of_the_wanted_shape_are_returned_unchanged(rng):
    array = rng.normal(size=(1, 2, 3, 4)).astype(np.float32)
    assert resample_image(array, (2, 3, 4), order=3, separate_z=False) is array
    labels = rng.integers(0, 4, (2, 3, 4), dtype=np.uint8)
    assert resample_label_map(labels, (2, 3, 4), order=1, separate_z=False) is labels


def dense_labels(label_map, shape):
    """Interpolate every label linearly over the whole grid. Of equal weights the higher label wins."""
    labels = np.unique(label_map)
    weights = np.stack([zoomed((label_map == label).astype(float), shape, 1) for label in labels])
    heaviest = weights > weights.max(axis=0) - 1e-5
    return labels[len(labels) - 1 - np.argmax(heaviest[::-1], axis=0)]


@settings(max_examples=60, deadline=None)
@given(old=SHAPES, new=SHAPES, seed=st.integers(0, 99), num_labels=st.integers(1, 5))
@example(old=(5, 7, 9), new=(6, 2, 8), seed=7, num_labels=4)  # two labels of weight 0.328125
def test_label_maps_agree_with_the_definition(old, new, seed, num_labels):
    label_map = np.random.default_rng(seed).integers(0, num_labels, old, dtype=np.uint8)
    result = resample_label_map(label_map, new, order=1, separate_z=False)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, dense_labels(label_map, new))


def test_label_maps_agree_with_nnunet_where_two_labels_meet(rng):
    label_map = (ndimage.gaussian_filter(rng.normal(size=(12, 20, 22)), 2) > 0).astype(np.uint8) * 3
    shape = (17, 31, 15)
    nnunet = np.where(zoomed((label_map == 3).astype(float), shape, 1) >= 0.5, 3, 0)
    result = resample_label_map(label_map, shape, order=1, separate_z=False)
    assert (result != nnunet).mean() < 1e-3  # only ties within rounding


@settings(max_examples=30, deadline=None)
@given(old=SHAPES, new=SHAPES, seed=st.integers(0, 99))
def test_separate_z_label_maps(old, new, seed):
    label_map = np.random.default_rng(seed).integers(0, 3, old, dtype=np.uint8)
    result = resample_label_map(label_map, new, order=1, separate_z=True)
    slices = np.stack([dense_labels(plane, new[1:]) for plane in label_map])
    z = np.clip(np.floor(old[0] / new[0] * (np.arange(new[0]) + 0.5) - 0.5 + 0.5), 0, old[0] - 1).astype(int)
    np.testing.assert_array_equal(result, slices[z])


@pytest.mark.parametrize("separate_z", [False, True])
@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64])
def test_type_is_kept_and_a_round_trip_keeps_large_structures(order, separate_z, dtype):
    label_map = np.zeros((6, 12, 12), dtype=dtype)
    label_map[2:4, 2:8, 3:9] = 200 if dtype == np.uint8 else 7
    up = resample_label_map(label_map, (12, 24, 24), order=order, separate_z=separate_z)
    assert up.dtype == dtype
    back = resample_label_map(up, label_map.shape, order=order, separate_z=separate_z)
    np.testing.assert_array_equal(back, label_map)
