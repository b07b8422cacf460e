import numpy as np
import pytest
from scipy import ndimage

from scanseg.errors import InputError
from scanseg.imaging import Image, read_image, read_label_map
from scanseg.imaging.cropping import find_nonzero_box, find_nonzero_mask
from scanseg.preprocessing.case import preprocess_case, preprocess_image
from scanseg.specs import (
    CTNormalization,
    NoNormalization,
    PreprocessingSpec,
    RescaleNormalization,
    ZScoreNormalization,
)


def as_image(array, spacing=None):
    num_axes = array.ndim - 1
    return Image(array, spacing or (1.0,) * num_axes, (0.0,) * num_axes, tuple(np.eye(num_axes).ravel()))


def preprocess(array, normalization, **fields):
    spec = PreprocessingSpec(normalizations=(normalization,) * len(array), **fields)
    return preprocess_image(as_image(array), spec)


def test_steps_by_hand(rng):
    """Compare with permuting, cropping, normalizing and resampling, in this order."""
    array = np.zeros((1, 10, 6, 8), dtype=np.int16)
    array[0, 2:6, 1:5, 2:8] = rng.integers(1, 900, (4, 4, 6))
    spec = PreprocessingSpec(
        axis_order=(1, 0, 2), normalizations=(ZScoreNormalization(),), spacing=(2.0, 1.0, 0.5)
    )
    result, geometry = preprocess_image(as_image(array, spacing=(0.5, 2.0, 1.0)), spec)
    assert geometry.crop_start == (1, 2, 2)
    assert geometry.crop_shape == (4, 4, 6)
    assert geometry.shape == result.shape[1:] == (4, 2, 12)
    crop = array[0, 2:6, 1:5, 2:8].transpose(1, 0, 2).astype(np.float64)
    crop = (crop - crop.mean()) / crop.std()
    # spacing (2, 0.5, 1) is anisotropic (4 > 3): slice by slice, z unchanged; cubic within the slice's range
    for before, after in zip(crop, result[0], strict=True):
        expected = ndimage.zoom(before, (0.5, 2), order=3, mode="nearest", grid_mode=True)
        np.testing.assert_allclose(after, np.clip(expected, before.min(), before.max()), atol=1e-5)


def test_pictures_become_one_slice_that_is_never_resampled_along_z(rng):
    array = rng.integers(1, 255, (3, 6, 8), dtype=np.uint8)
    for spacing in ((1.0, 0.5, 0.5), (999.0, 0.5, 0.5), (None, 0.5, 0.5)):
        result, geometry = preprocess(array, NoNormalization(), spacing=spacing)
        assert result.shape == (3, 1, 12, 16)
        assert geometry.num_axes == 2
        assert geometry.source_shape == (6, 8)


def test_slices_are_resized_and_their_number_kept(rng):
    array = rng.integers(1, 255, (1, 5, 6, 8)).astype(np.float32)
    result, geometry = preprocess(array, NoNormalization(), slice_size=(24, 16), crop_to_nonzero=False)
    assert result.shape == (1, 5, 24, 16)
    expected = ndimage.zoom(array[0, 3], (4, 2), order=3, mode="nearest", grid_mode=True)
    np.testing.assert_allclose(
        result[0, 3], np.clip(expected, array[0, 3].min(), array[0, 3].max()), rtol=1e-5
    )
    assert geometry.crop_shape == (5, 6, 8)


def test_target_spacing_may_leave_z(rng):
    image = as_image(rng.normal(size=(1, 5, 6, 8)), spacing=(7.7, 1.0, 1.0))
    spec = PreprocessingSpec(normalizations=(NoNormalization(),), spacing=(None, 0.5, 2.0))
    assert preprocess_image(image, spec)[1].shape == (5, 12, 4)


def test_at_least_one_voxel_remains(rng):
    result, _ = preprocess(rng.normal(size=(1, 2, 3, 4)), NoNormalization(), spacing=(100.0, 100.0, 100.0))
    assert result.shape == (1, 1, 1, 1)


def test_ct_is_clipped_and_scaled():
    array = np.array([-2000, -100, 0, 100, 2000], dtype=np.int16).reshape(1, 1, 1, 5)
    normalization = CTNormalization(lower=-100, upper=100, mean=10, standard_deviation=20)
    result, _ = preprocess(array, normalization, crop_to_nonzero=False)
    np.testing.assert_allclose(result.ravel(), [-5.5, -5.5, -0.5, 4.5, 4.5])


def test_zscore_of_the_nonzero_part_leaves_the_rest_zero(rng):
    array = np.zeros((2, 4, 9, 9), dtype=np.float32)
    array[0, :, 2:7, 2:7] = rng.uniform(1, 9, (4, 5, 5))
    array[1, :, 2:6, 2:6] = rng.uniform(1, 9, (4, 4, 4))
    result, _ = preprocess(array, ZScoreNormalization(nonzero_only=True), crop_to_nonzero=False)
    inside = np.zeros((4, 9, 9), dtype=bool)
    inside[:, 2:7, 2:7] = True
    for before, after in zip(array, result, strict=True):
        values = before[inside].astype(np.float64)
        np.testing.assert_allclose(after[inside], (values - values.mean()) / values.std(), atol=1e-5)
        assert not after[~inside].any()


@pytest.mark.parametrize("nonzero_only", [True, False])
@pytest.mark.parametrize("value", [0, 7])
def test_constant_image_becomes_zero(value, nonzero_only):
    array = np.full((1, 3, 4, 5), value, dtype=np.int16)
    result, geometry = preprocess(array, ZScoreNormalization(nonzero_only=nonzero_only))
    assert geometry.crop_shape == (3, 4, 5)
    assert not result.any()


def test_rescale():
    array = np.array([1, 2, 3, 5], dtype=np.int16).reshape(1, 1, 1, 4)
    result, _ = preprocess(array, RescaleNormalization(low=-1, high=1))
    np.testing.assert_allclose(result.ravel(), [-1, -0.5, 0, 1])
    result, _ = preprocess(array, RescaleNormalization(lower=2, upper=4))
    np.testing.assert_allclose(result.ravel(), [0, 0, 0.5, 1])
    result, _ = preprocess(array * 0 + 3, RescaleNormalization(low=-1, high=1))
    np.testing.assert_allclose(result.ravel(), -1)


@pytest.mark.parametrize("unit", [1e-9, 1e-20, 1e-35])
@pytest.mark.parametrize(
    "normalization",
    [ZScoreNormalization(), ZScoreNormalization(nonzero_only=True), RescaleNormalization(low=-1, high=1)],
    ids=["zscore", "nonzero", "rescale"],
)
def test_maps_in_small_units_keep_their_contrast(rng, normalization, unit):
    """Diffusion coefficients in m2/s are about 1e-9."""
    array = rng.uniform(1, 9, (1, 4, 5, 6))
    expected, _ = preprocess(array, normalization)
    result, _ = preprocess(array * unit, normalization)
    np.testing.assert_allclose(result, expected, atol=1e-5)
    assert not preprocess(0 * array + unit, normalization)[0].std()


def test_numbers_beyond_float32_are_refused(rng):
    array = rng.uniform(1, 9, (1, 4, 5, 6))
    array[0, 1, 2, 3] = -1e300
    for normalization in (ZScoreNormalization(), NoNormalization()):
        with pytest.raises(
            InputError, match=r"intensities: expected at most 3\.4e\+38 \(float32\), got 1e\+300"
        ):
            preprocess(array, normalization)


def test_other_numbers_of_channels_and_shapes_are_refused(rng):
    spec = PreprocessingSpec(normalizations=(NoNormalization(), NoNormalization()))
    with pytest.raises(InputError, match="image: expected 2 channels, got 1"):
        preprocess_image(as_image(rng.normal(size=(1, 2, 3, 4))), spec)
    with pytest.raises(InputError, match=r"expected shape \(2, 3, 4\) of the image, got \(2, 3, 5\)"):
        preprocess_case(as_image(rng.normal(size=(2, 2, 3, 4))), np.zeros((2, 3, 5), int), spec)
    labels = np.arange(24).reshape(2, 3, 4) // 23 * 256
    with pytest.raises(InputError, match="got 0 to 256"):
        preprocess_case(as_image(rng.normal(size=(2, 2, 3, 4))), labels, spec)
    with pytest.raises(InputError, match="moves the z axis"):
        preprocess_image(
            as_image(rng.normal(size=(2, 3, 4))),
            PreprocessingSpec(normalizations=spec.normalizations, axis_order=(1, 0, 2)),
        )


def test_arguments_are_not_written_into(rng):
    array = rng.integers(0, 9, (1, 4, 5, 6)).astype(np.float32)
    labels = rng.integers(0, 3, (4, 5, 6)).astype(np.uint8)
    before, labels_before = array.copy(), labels.copy()
    spec = PreprocessingSpec(
        normalizations=(ZScoreNormalization(nonzero_only=True),), spacing=(1.0, 0.7, 0.7)
    )
    case = preprocess_case(as_image(array), labels, spec)
    case.image[...] = 0
    np.testing.assert_array_equal(array, before)
    np.testing.assert_array_equal(labels, labels_before)


def test_nonzero_box_and_part(rng):
    array = np.zeros((2, 6, 7, 8))
    array[0, 1:5, 2:6, 1:6] = 1
    array[0, 2, 3, 3] = 0
    array[1, 4, 6, 7] = -1
    assert find_nonzero_box(array) == ((1, 2, 1), (4, 5, 7))
    assert find_nonzero_box(array * 0) == ((0, 0, 0), (6, 7, 8))
    part = find_nonzero_mask(array)
    assert part[2, 3, 3]
    for _ in range(20):
        noise = rng.uniform(size=(1, 6, 7, 8)) < 0.6
        np.testing.assert_array_equal(find_nonzero_mask(noise), ndimage.binary_fill_holes(noise[0]))


def test_real_data_at_another_spacing_keeps_its_labels(shared_data):
    folder = shared_data / "chaos-mr"
    image = read_image(folder / "imagesTr/chaos_01_0000.nii.gz")
    label_map = read_label_map(folder / "labelsTr/chaos_01.nii.gz").array[0]
    spec = PreprocessingSpec(normalizations=(ZScoreNormalization(),), spacing=(7.7, 1.0, 1.0))
    case = preprocess_case(image, label_map, spec)
    assert case.image.mean() == pytest.approx(0, abs=0.01)
    assert case.image.std() == pytest.approx(1, abs=0.02)
    for label in range(5):
        volumes = (case.label_map == label).sum() * 7.7, (label_map == label).sum() * 7.7 * 1.25**2
        if label:
            assert volumes[0] == pytest.approx(volumes[1], rel=0.01)
