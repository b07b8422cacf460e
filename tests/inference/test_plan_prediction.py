"""Several plans that predict one case: the mean of their probabilities on the source's grid."""

import numpy as np
import pytest
import torch

from scanseg.errors import UsageError
from scanseg.inference import Predictor
from scanseg.inference.plan_prediction import (
    PlanPrediction,
    label_maps_of_groups,
    restore_mean,
    share_progress,
)
from scanseg.inference.resample import restore
from scanseg.inference.uncertainty import entropy
from scanseg.progress import ProgressUpdate
from scanseg.specs import CaseGeometry
from tests.factories import Threshold

CPU = torch.device("cpu")
SOURCE = (6, 9, 11)


def geometry_of(shape, crop_shape=SOURCE, *, start=(0, 0, 0), source_shape=SOURCE, axis_order=(0, 1, 2)):
    return CaseGeometry(
        num_axes=len(source_shape),
        source_shape=source_shape,
        source_spacing=(1.0,) * len(source_shape),
        axis_order=axis_order,
        crop_start=start,
        crop_shape=crop_shape,
        shape=shape,
    )


GEOMETRIES = [
    geometry_of(SOURCE),
    geometry_of((4, 5, 6)),
    geometry_of((5, 8, 7), (4, 6, 9), start=(1, 2, 1)),
    geometry_of((5, 4, 9), (5, 4, 9), start=(2, 1, 0), axis_order=(2, 0, 1)),
]


@pytest.fixture
def logits(generator):
    """Logits of each geometry."""
    return [2 * torch.randn(3, *geometry.shape, generator=generator) for geometry in GEOMETRIES]


def views_of(logits, numbers, *, disagreement=()):
    """Views whose slabs are cut in two; some have a channel more."""
    views = []
    for number in numbers:
        channels = logits[number]
        if number in disagreement:
            channels = torch.cat((channels, torch.full_like(channels[:1], 0.01 * (1 + number))))
        slabs = channels.tensor_split([2], dim=1)
        views.append(PlanPrediction(slabs, GEOMETRIES[number], separate_z=False, num_channels=len(channels)))
    return views


def probabilities_of(logits, number, order=None):
    restored = restore(
        [logits[number]],
        GEOMETRIES[number],
        num_outputs=3,
        separate_z=False,
        regions_class_order=order,
        device=CPU,
        probabilities=True,
    )
    return restored.probabilities.astype(np.float32)


OPTIONS = {"num_outputs": 3, "device": CPU}


@pytest.mark.parametrize("numbers", [(0, 1), (1, 2), (2, 3), (3, 0), (3, 1, 2)])
@pytest.mark.parametrize("order", [None, (1, 3, 2)])
@pytest.mark.parametrize("slab_bytes", [1, 1 << 20])
def test_the_mean_is_that_of_each_on_the_source_grid(logits, numbers, order, slab_bytes):
    found = restore_mean(
        views_of(logits, numbers),
        **OPTIONS,
        regions_class_order=order,
        probabilities=True,
        uncertainty=True,
        slab_bytes=slab_bytes,
    )

    parts = [probabilities_of(logits, number, order) for number in numbers]
    mean = np.mean(parts, axis=0)
    # Each part, the mean, and what lay in a file are rounded to float16, of 11 bits.
    np.testing.assert_allclose(found.probabilities, mean, atol=2e-3)
    likely = torch.from_numpy(mean)
    if order is None:
        margin = likely.topk(2, dim=0).values.diff(dim=0)[0].abs().numpy()
        expected = mean.argmax(0)
    else:
        margin = np.abs(mean - 0.5).min(0)
        expected = np.zeros(SOURCE, dtype=int)
        for value, region in zip(order, mean, strict=True):
            expected[region > 0.5] = value
    clear = margin > 2e-3
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(found.label_map[clear], expected[clear])
    whole = entropy(likely, regions=order is not None)
    own = torch.stack([entropy(torch.from_numpy(part), regions=order is not None) for part in parts]).mean(0)
    # The entropy of an almost certain voxel is steep: 2e-3 of probability near 0 is 0.015 of entropy.
    np.testing.assert_allclose(found.entropy, whole.numpy(), atol=0.02)
    np.testing.assert_allclose(found.disagreement, (whole - own).clamp(min=0).numpy(), atol=0.02)
    assert found.disagreement.max() > 0.1


def test_the_disagreement_within_a_plan_counts_by_its_part(logits):
    alone, within = (
        restore_mean(
            views_of(logits, (0, 1), disagreement=members),
            **OPTIONS,
            regions_class_order=None,
            uncertainty=True,
        ).disagreement.astype(np.float32)
        for members in ((), (1,))
    )
    # Members of view 1 disagree by 0.02, which is half of the mean over both.
    np.testing.assert_allclose(within - alone, 0.01, atol=1e-3)


def test_groups_are_what_each_is_by_itself(logits):
    groups = [(0, 1), (0, 3), (1, 3), (2,)]
    found = label_maps_of_groups(views_of(logits, range(4)), groups, **OPTIONS, regions_class_order=None)
    for group, label_map in zip(groups, found, strict=True):
        alone = restore_mean(views_of(logits, group), **OPTIONS, regions_class_order=None).label_map
        # Voxels that came through a file, as float16, may be on the other side of a tie.
        assert (label_map == alone).mean() > 0.99


def test_pictures(generator):
    source = (9, 7)
    geometries = [
        geometry_of((1, 9, 7), (1, 9, 7), source_shape=source),
        geometry_of((1, 4, 5), (1, 6, 5), start=(0, 2, 1), source_shape=source),
    ]
    logits = [torch.randn(2, *geometry.shape, generator=generator) for geometry in geometries]
    views = [
        PlanPrediction([part], geometry, separate_z=True, num_channels=2)
        for part, geometry in zip(logits, geometries, strict=True)
    ]
    found = restore_mean(views, num_outputs=2, device=CPU, regions_class_order=None, probabilities=True)
    assert found.label_map.shape == source
    first = logits[0].softmax(0).numpy()[:, 0]
    # Where the second has cut away, it says background for certain.
    np.testing.assert_allclose(found.probabilities[0, 0], (first[0, 0] + 1) / 2, atol=1e-3)


def test_windows_are_told_of_as_one_sum():
    heard = []
    first, second = share_progress(heard.append, 2)
    first(ProgressUpdate("windows", 0, 4))
    second(ProgressUpdate("windows", 0, 2))
    first(ProgressUpdate("windows", 3, 4))
    second(ProgressUpdate("windows", 2, 2))
    assert [(each.done, each.total) for each in heard] == [(0, 4), (0, 6), (3, 6), (5, 6)]


class Brighter(torch.nn.Module):
    """Sees slices, or volumes; label 1 by how much the first channel is above a limit."""

    def __init__(self, limit, gain):
        super().__init__()
        self.limit, self.gain = limit, gain

    def forward(self, batch):
        brightness = self.gain * (batch[:, :1] - self.limit)
        return torch.cat((-brightness, brightness), dim=1)


@pytest.fixture
def together(make_plan):
    """A network that sees volumes and flips, and beside it one that sees slices and does not."""

    def make(**changes):
        volumes = make_plan(inference={"mirror_axes": (1, 2)}, **changes)
        slices = make_plan(patch_size=(8, 8), **changes)
        other = Predictor(slices, Brighter(0.3, 9.0), device=CPU)
        return Predictor(volumes, Brighter(0.6, 1.0), device=CPU, members=[other]), other

    return make


def test_a_network_of_slices_beside_one_of_volumes(together, rng):
    predictor, other = together()
    image = rng.random((7, 10, 12), dtype=np.float32)
    found = predictor.predict(image, probabilities=True, uncertainty=True)

    first = 1 / (1 + np.exp(-2 * (image - 0.6)))
    second = 1 / (1 + np.exp(-18 * (image - 0.3)))
    np.testing.assert_allclose(found.probabilities[1], (first + second) / 2, atol=1e-3)
    np.testing.assert_array_equal(found.label_map, (first + second) / 2 > 0.5)
    assert found.entropy.max() > 0.9
    assert found.disagreement.max() > 0.1
    alone = other.predict(image)
    assert (alone.label_map != found.label_map).any()


def test_mirroring_is_for_the_plans_that_name_axes(together, make_predictor, rng):
    predictor, _ = together()
    assert predictor.num_members(mirror=False) == 2
    assert predictor.num_members(mirror=True) == 5
    image = rng.random((7, 10, 12), dtype=np.float32)
    plain, mirrored = (
        predictor.predict(image, mirror=mirror, probabilities=True) for mirror in (False, True)
    )
    # Both networks see single voxels, so that flips change nothing but the last bits.
    np.testing.assert_allclose(mirrored.probabilities, plain.probabilities, atol=1e-3)
    nowhere = make_predictor(inference={"mirror_axes": ()})
    both = Predictor(nowhere.plan, Threshold(), device=CPU, members=[nowhere])
    with pytest.raises(UsageError, match="names no axes to mirror"):
        both.predict(image, mirror=True)


def test_the_record_of_a_folder_names_both_recipes(together, rng):
    predictor, _ = together()
    assert predictor.recipe == "test + test"
    assert predictor.precision == "float32"


def test_regions_are_decided_by_the_mean(together, rng):
    dataset = {
        "labels": {"background": 0, "whole": (1, 2), "core": (2,)},
        "regions_class_order": (1, 2),
    }
    predictor, _ = together(dataset=dataset)
    image = rng.random((7, 10, 12), dtype=np.float32)
    found = predictor.predict(image, probabilities=True)
    rows = [
        np.stack([1 / (1 + np.exp(sign * gain * (image - limit))) for sign in (1, -1)])
        for limit, gain in ((0.6, 1.0), (0.3, 9.0))
    ]
    mean = np.mean(rows, axis=0)
    np.testing.assert_allclose(found.probabilities, mean, atol=1e-3)
    expected = np.where(mean[1] > 0.5, 2, np.where(mean[0] > 0.5, 1, 0))
    np.testing.assert_array_equal(found.label_map, expected)
