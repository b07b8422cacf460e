import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanseg.imaging import Image
from scanseg.preprocessing.case import preprocess_case
from scanseg.preprocessing.geometry import crop_from_source, lifted_spacing, place_in_source, separates_z
from scanseg.specs import CaseGeometry, NoNormalization, PreprocessingSpec

SIZES = st.integers(1, 7)
ORDERS = st.permutations((0, 1, 2)).map(tuple)


@st.composite
def geometries(draw):
    num_axes = draw(st.sampled_from([2, 3]))
    shape = tuple(draw(SIZES) for _ in range(num_axes))
    order = draw(ORDERS) if num_axes == 3 else draw(st.sampled_from([(0, 1, 2), (0, 2, 1)]))
    lifted = (1,) * (3 - num_axes) + shape
    start = tuple(draw(st.integers(0, lifted[axis] - 1)) for axis in order)
    size = tuple(draw(st.integers(1, lifted[axis] - first)) for axis, first in zip(order, start, strict=True))
    return CaseGeometry(
        num_axes=num_axes,
        source_shape=shape,
        source_spacing=tuple(float(2 + index) for index in range(num_axes)),
        axis_order=order,
        crop_start=start,
        crop_shape=size,
        shape=size,
    )


@settings(max_examples=100, deadline=None)
@given(geometry=geometries(), channels=st.sampled_from([(), (1,), (3,)]))
def test_placing_undoes_cropping_and_fills_the_rest(geometry, channels):
    source = np.random.default_rng(0).normal(size=(*channels, *geometry.source_shape))
    cropped = crop_from_source(source, geometry)
    assert cropped.shape == (*channels, *geometry.crop_shape)
    placed = place_in_source(cropped, geometry, fill=-9)
    assert placed.shape == source.shape
    assert placed.dtype == source.dtype
    kept = placed != -9
    np.testing.assert_array_equal(placed[kept], source[kept])
    assert kept.sum() == cropped.size
    np.testing.assert_array_equal(crop_from_source(placed, geometry), cropped)


@settings(max_examples=60, deadline=None)
@given(
    num_axes=st.sampled_from([2, 3]),
    data=st.data(),
    crop=st.booleans(),
    threshold=st.sampled_from([1.1, 3.0]),
    label_order=st.sampled_from([0, 1]),
    in_mm=st.booleans(),
)
def test_preprocessing_at_the_own_spacing_is_undone_exactly(
    num_axes, data, crop, threshold, label_order, in_mm
):
    shape = tuple(data.draw(SIZES) for _ in range(num_axes))
    spacing = tuple(data.draw(st.sampled_from([0.5, 1.0, 7.7])) for _ in range(num_axes))
    order = data.draw(ORDERS) if num_axes == 3 else (0, 1, 2)
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    array = (rng.normal(size=(2, *shape)) * (rng.uniform(size=shape) < 0.2)).astype(np.float32)
    label_map = rng.integers(0, 4, shape) * (array != 0).any(axis=0)
    image = Image(array, spacing, (0.0,) * num_axes, tuple(np.eye(num_axes).ravel()))
    lifted = (999.0,) * (3 - num_axes) + spacing
    preprocessing = PreprocessingSpec(
        axis_order=order,
        crop_to_nonzero=crop,
        normalizations=(NoNormalization(), NoNormalization()),
        spacing=tuple(lifted[axis] for axis in order) if in_mm else None,
        label_order=label_order,
        anisotropy_threshold=threshold,
    )
    case = preprocess_case(image, label_map, preprocessing)
    assert case.label_map.dtype == np.uint8
    assert case.image.shape[1:] == case.label_map.shape == case.geometry.shape
    np.testing.assert_array_equal(place_in_source(case.label_map, case.geometry), label_map)
    np.testing.assert_array_equal(place_in_source(case.image, case.geometry), array)


def test_arrays_of_other_shapes_are_refused():
    geometry = CaseGeometry(
        num_axes=2,
        source_shape=(4, 5),
        source_spacing=(1.0, 1.0),
        axis_order=(0, 1, 2),
        crop_start=(0, 1, 1),
        crop_shape=(1, 2, 3),
        shape=(1, 2, 3),
    )
    with pytest.raises(ValueError, match=r"\(5, 4\)"):
        crop_from_source(np.zeros((5, 4)), geometry)
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        place_in_source(np.zeros((2, 3)), geometry)


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ((5.0, 1.0, 1.0), (5.0, 1.0, 1.0), True),
        ((3.0, 1.0, 1.0), (3.0, 1.0, 1.0), False),  # not above the threshold
        ((1.0, 1.0, 1.0), (5.0, 1.0, 1.0), True),  # the target is anisotropic
        ((5.0, 1.0, 1.0), (1.0, 1.0, 1.0), True),  # the source is anisotropic
        ((1.0, 1.0, 5.0), (1.0, 1.0, 1.0), False),  # not along z
        ((5.0, 5.0, 1.0), (1.0, 1.0, 1.0), False),  # two thick axes
        ((5.0, 1.0, 1.0), (None, 1.0, 1.0), True),  # z is kept
        ((5.0, 1.0, 1.0), None, False),  # nothing is resampled
    ],
)
def test_conditions_for_resampling_slice_by_slice(source, target, expected):
    geometry = CaseGeometry(
        num_axes=3,
        source_shape=(4, 4, 4),
        source_spacing=source[::-1],
        axis_order=(2, 1, 0),
        crop_start=(0, 0, 0),
        crop_shape=(4, 4, 4),
        shape=(4, 4, 4),
    )
    assert lifted_spacing(geometry) == source
    assert (
        separates_z(geometry, PreprocessingSpec(normalizations=(NoNormalization(),), spacing=target))
        is expected
    )
