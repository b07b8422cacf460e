import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn import functional as F

from scanseg.errors import ScansegError
from scanseg.inference.resample import resample_labels_to_source, resample_to_source
from scanseg.specs import CaseGeometry

CPU = torch.device("cpu")


def geometry_of(shape, crop_shape=None, *, start=(0, 0, 0), source_shape=None, axis_order=(0, 1, 2)):
    crop_shape = crop_shape or shape
    source_shape = source_shape or crop_shape
    return CaseGeometry(
        num_axes=len(source_shape),
        source_shape=source_shape,
        source_spacing=(1.0,) * len(source_shape),
        axis_order=axis_order,
        crop_start=start,
        crop_shape=crop_shape,
        shape=shape,
    )


def resampled(logits, geometry, *, separate_z=False, order=None, cuts=(), **settings):
    slabs = logits.tensor_split(list(cuts), dim=1)
    return resample_to_source(
        slabs,
        geometry,
        num_outputs=settings.pop("num_outputs", len(logits)),
        separate_z=separate_z,
        regions_class_order=order,
        device=CPU,
        **settings,
    )


def label_map_of(logits, geometry, **settings):
    return resampled(logits, geometry, **settings).label_map


def probabilities_of(logits, geometry, **settings):
    return resampled(logits, geometry, probabilities=True, **settings).probabilities


def test_equal_grids_are_decided_voxel_by_voxel(generator):
    logits = torch.randn(4, 5, 6, 7, generator=generator)
    label_map = label_map_of(logits, geometry_of((5, 6, 7)))
    assert label_map.dtype == np.uint8
    np.testing.assert_array_equal(label_map, logits.argmax(0).numpy())


SHAPES = [((5, 6, 7), (9, 11, 15)), ((9, 8, 12), (4, 8, 5)), ((1, 6, 7), (4, 9, 9)), ((6, 7, 8), (1, 3, 20))]


@pytest.mark.parametrize(("shape", "wanted"), SHAPES)
@pytest.mark.parametrize("slab_bytes", [1, 3 * 12 * 99 * 2, 1 << 30])
def test_slabs_equal_the_whole_interpolated_at_once(shape, wanted, slab_bytes, generator):
    logits = torch.randn(3, *shape, generator=generator)
    geometry = geometry_of(shape, wanted)
    whole = F.interpolate(logits[None], size=wanted, mode="trilinear", align_corners=False)[0]
    probabilities = probabilities_of(logits, geometry, slab_bytes=slab_bytes)
    # float16 keeps 11 bits.
    np.testing.assert_allclose(probabilities, whole.softmax(0).numpy(), atol=6e-4)
    label_map = label_map_of(logits, geometry, slab_bytes=slab_bytes)
    np.testing.assert_array_equal(label_map, label_map_of(logits, geometry))
    top = whole.topk(2, dim=0).values
    clear = (top[0] - top[1] > 1e-4).numpy()
    np.testing.assert_array_equal(label_map[clear], whole.argmax(0).numpy()[clear])


@pytest.mark.parametrize("num_slices", [3, 5, 11])
def test_separate_z_takes_the_nearest_slice(num_slices, generator):
    logits = torch.randn(3, 5, 6, 7, generator=generator)
    label_map = label_map_of(logits, geometry_of((5, 6, 7), (num_slices, 9, 9)), separate_z=True)
    in_plane = F.interpolate(logits.transpose(0, 1), size=(9, 9), mode="bilinear").argmax(1).numpy()
    nearest = [int((place + 0.5) * 5 / num_slices) for place in range(num_slices)]
    np.testing.assert_array_equal(label_map, in_plane[nearest])


def test_cropped_permuted_source():
    logits = torch.zeros(2, 2, 3, 4)
    logits[1] = 1
    geometry = geometry_of((2, 3, 4), start=(1, 0, 2), source_shape=(6, 4, 7), axis_order=(1, 0, 2))
    label_map = label_map_of(logits, geometry)
    expected = np.zeros((6, 4, 7), np.uint8)
    expected[0:3, 1:3, 2:6] = 1
    np.testing.assert_array_equal(label_map, expected)
    probabilities = probabilities_of(logits, geometry)
    assert probabilities.shape == (2, 6, 4, 7)
    np.testing.assert_array_equal(probabilities[0][expected == 0], 1)
    np.testing.assert_array_equal(probabilities[1][expected == 0], 0)
    np.testing.assert_allclose(probabilities.astype(np.float32).sum(0), 1, atol=1e-3)


def test_image_of_two_axes(generator):
    logits = torch.randn(3, 1, 8, 6, generator=generator)
    geometry = geometry_of((1, 8, 6), (1, 16, 12), source_shape=(16, 12))
    label_map = label_map_of(logits, geometry, separate_z=True)
    whole = F.interpolate(logits[:, 0][None], size=(16, 12), mode="bilinear")[0]
    np.testing.assert_array_equal(label_map, whole.argmax(0).numpy())
    assert resample_labels_to_source(
        [logits], geometry, num_outputs=len(logits), regions_class_order=None
    ).shape == (
        16,
        12,
    )


def test_later_regions_win(generator):
    logits = torch.randn(3, 4, 5, 6, generator=generator)
    label_map = label_map_of(logits, geometry_of((4, 5, 6)), order=(2, 1, 3))
    expected = np.zeros((4, 5, 6), np.uint8)
    for value, region in zip((2, 1, 3), logits.sigmoid().numpy(), strict=True):
        expected[region > 0.5] = value
    np.testing.assert_array_equal(label_map, expected)


def test_probabilities_of_regions(generator):
    logits = torch.randn(2, 3, 3, 3, generator=generator)
    geometry = geometry_of((3, 3, 3), start=(1, 0, 0), source_shape=(4, 3, 3))
    probabilities = probabilities_of(logits, geometry, order=(1, 2))
    np.testing.assert_allclose(probabilities[:, 1:], logits.sigmoid().numpy(), atol=6e-4)
    assert not probabilities[:, 0].any()


def test_labels_are_resized_as_published(generator):
    logits = torch.randn(5, 3, 8, 8, generator=generator)
    label_map = resample_labels_to_source(
        logits.split(2, dim=1), geometry_of((3, 8, 8), (3, 13, 11)), num_outputs=5, regions_class_order=None
    )
    for plane, labels in zip(label_map, logits.argmax(0).numpy(), strict=True):
        np.testing.assert_array_equal(plane, ndimage.zoom(labels, (13 / 8, 11 / 8), order=0))


def test_half_precision_logits(generator):
    logits = torch.randn(3, 4, 5, 6, generator=generator)
    geometry = geometry_of((4, 5, 6), (7, 9, 9))
    np.testing.assert_array_equal(
        label_map_of(logits.half(), geometry), label_map_of(logits.half().float(), geometry)
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_refused(value):
    logits = torch.zeros(2, 3, 4, 5)
    logits[1, 2, 0, 0] = value
    geometry = geometry_of((3, 4, 5))
    with pytest.raises(ScansegError, match="not all finite"):
        label_map_of(logits, geometry)
    with pytest.raises(ScansegError, match="not all finite"):
        resample_labels_to_source([logits], geometry, num_outputs=len(logits), regions_class_order=None)


def test_slabs_of_resized_logits_are_limited_in_bytes(generator, monkeypatch):
    sizes = []
    interpolate = F.interpolate

    def recorded(slices, **arguments):
        result = interpolate(slices, **arguments)
        sizes.append(result.numel() * 4)
        return result

    monkeypatch.setattr(F, "interpolate", recorded)
    logits = torch.randn(3, 30, 10, 10, generator=generator)
    label_map_of(logits, geometry_of((30, 10, 10), (60, 20, 20)), slab_bytes=200_000)
    assert len(sizes) > 1
    assert max(sizes) <= 200_000


@pytest.mark.parametrize(("shape", "wanted"), [*SHAPES, ((7, 4, 4), (7, 5, 5)), ((3, 4, 4), (40, 4, 4))])
@pytest.mark.parametrize("separate_z", [False, True])
@pytest.mark.parametrize("step", [1, 2, 5])
def test_results_do_not_depend_on_the_slabs(shape, wanted, separate_z, step, generator):
    logits = torch.randn(4, *shape, generator=generator)
    geometry = geometry_of(shape, wanted)

    def all_maps(cuts):
        return resampled(
            logits,
            geometry,
            num_outputs=3,
            separate_z=separate_z,
            probabilities=True,
            entropy=True,
            cuts=cuts,
            slab_bytes=1000,
        )

    whole, cut = all_maps(()), all_maps(range(step, shape[0], step))
    for name in ("label_map", "probabilities", "entropy", "disagreement"):
        np.testing.assert_array_equal(getattr(cut, name), getattr(whole, name))


def test_entropy_is_normalized():
    logits = torch.zeros(4, 3, 1, 1)
    logits[0, 1] = 50
    logits[:2, 2] = 50
    geometry = geometry_of((3, 1, 1), start=(1, 0, 0), source_shape=(5, 1, 1))
    entropies = resampled(logits, geometry, entropy=True).entropy.ravel()
    np.testing.assert_allclose(entropies, [0, 1, 0, 0.5, 0], atol=1e-3)
    regions = resampled(logits[:2], geometry, order=(1, 2), entropy=True).entropy.ravel()
    np.testing.assert_allclose(regions, [0, 1, 0.5, 0, 0], atol=1e-3)
