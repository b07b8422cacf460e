"""Mean probabilities of several plans on the source grid."""

import numpy as np
import pytest
import torch

from scanseg.errors import UsageError
from scanseg.inference import Predictor
from scanseg.inference.ensemble import average_on_source, label_maps_of_groups, share_progress
from scanseg.inference.prediction import PlanPrediction
from scanseg.inference.resample import resample_to_source
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


def predictions_of(logits, numbers, *, disagreement=()):
    """Predictions with two slabs. Some have a channel of disagreement."""
    predictions = []
    for number in numbers:
        channels = logits[number]
        if number in disagreement:
            channels = torch.cat((channels, torch.full_like(channels[:1], 0.01 * (1 + number))))
        slabs = channels.tensor_split([2], dim=1)
        predictions.append(
            PlanPrediction(slabs, GEOMETRIES[number], separate_z=False, num_channels=len(channels))
        )
    return predictions


def probabilities_of(logits, number, order=None):
    maps = resample_to_source(
        [logits[number]],
        GEOMETRIES[number],
        num_outputs=3,
        separate_z=False,
        regions_class_order=order,
        device=CPU,
        probabilities=True,
    )
    return maps.probabilities.astype(np.float32)


OPTIONS = {"num_outputs": 3, "device": CPU}


@pytest.mark.parametrize("numbers", [(0, 1), (1, 2), (2, 3), (3, 0), (3, 1, 2)])
@pytest.mark.parametrize("order", [None, (1, 3, 2)])
@pytest.mark.parametrize("slab_bytes", [1, 1 << 20])
def test_probabilities_are_averaged_on_the_source_grid(logits, numbers, order, slab_bytes):
    found = average_on_source(
        predictions_of(logits, numbers),
        **OPTIONS,
        regions_class_order=order,
        probabilities=True,
        uncertainty=True,
        slab_bytes=slab_bytes,
    )

    parts = [probabilities_of(logits, number, order) for number in numbers]
    mean = np.mean(parts, axis=0)
    # Each part, the mean and slices stored in a file are rounded to float16, with 11 bits.
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


def test_disagreement_within_a_plan_has_the_weight_of_the_plan(logits):
    alone, within = (
        average_on_source(
            predictions_of(logits, (0, 1), disagreement=members),
            **OPTIONS,
            regions_class_order=None,
            uncertainty=True,
        ).disagreement.astype(np.float32)
        for members in ((), (1,))
    )
    # Members of prediction 1 disagree by 0.02, which is half of the mean over both.
    np.testing.assert_allclose(within - alone, 0.01, atol=1e-3)


def test_label_maps_of_groups_equal_separate_averages(logits):
    groups = [(0, 1), (0, 3), (1, 3), (2,)]
    found = label_maps_of_groups(
        predictions_of(logits, range(4)), groups, **OPTIONS, regions_class_order=None
    )
    for group, label_map in zip(groups, found, strict=True):
        alone = average_on_source(
            predictions_of(logits, group), **OPTIONS, regions_class_order=None
        ).label_map
        # Voxels stored in a file as float16 may get another label at a tie.
        assert (label_map == alone).mean() > 0.99


def test_pictures(generator):
    source = (9, 7)
    geometries = [
        geometry_of((1, 9, 7), (1, 9, 7), source_shape=source),
        geometry_of((1, 4, 5), (1, 6, 5), start=(0, 2, 1), source_shape=source),
    ]
    logits = [torch.randn(2, *geometry.shape, generator=generator) for geometry in geometries]
    predictions = [
        PlanPrediction([part], geometry, separate_z=True, num_channels=2)
        for part, geometry in zip(logits, geometries, strict=True)
    ]
    found = average_on_source(
        predictions, num_outputs=2, device=CPU, regions_class_order=None, probabilities=True
    )
    assert found.label_map.shape == source
    first = logits[0].softmax(0).numpy()[:, 0]
    # Voxels that the second plan crops have probability 1 of background.
    np.testing.assert_allclose(found.probabilities[0, 0], (first[0, 0] + 1) / 2, atol=1e-3)


def test_progress_of_all_plans_is_one_sum():
    updates = []
    first, second = share_progress(updates.append, 2)
    first(ProgressUpdate("windows", 0, 4))
    second(ProgressUpdate("windows", 0, 2))
    first(ProgressUpdate("windows", 3, 4))
    second(ProgressUpdate("windows", 2, 2))
    assert [(each.done, each.total) for each in updates] == [(0, 4), (0, 6), (3, 6), (5, 6)]


class Brighter(torch.nn.Module):
    """Network of slices or volumes: logit of label 1 by the first channel minus a limit."""

    def __init__(self, limit, gain):
        super().__init__()
        self.limit, self.gain = limit, gain

    def forward(self, batch):
        brightness = self.gain * (batch[:, :1] - self.limit)
        return torch.cat((-brightness, brightness), dim=1)


@pytest.fixture
def make_pair(make_plan):
    """Predictor of volumes with mirror axes, and a member of slices without."""

    def make(*, mirror=False, **changes):
        volumes = make_plan(inference={"mirror_axes": (1, 2), "mirror": mirror}, **changes)
        slices = make_plan(patch_size=(8, 8), **changes)
        other = Predictor(slices, Brighter(0.3, 9.0), device=CPU)
        return Predictor(volumes, Brighter(0.6, 1.0), device=CPU, members=[other]), other

    return make


def test_a_network_of_slices_beside_one_of_volumes(make_pair, rng):
    predictor, other = make_pair()
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


def test_mirroring_applies_to_plans_with_mirror_axes(make_pair, make_predictor, rng):
    predictor, _ = make_pair()
    assert predictor.num_members(mirror=False) == 2
    assert predictor.num_members(mirror=True) == 5
    assert predictor.num_members(mirror=None) == 2
    assert not predictor.mirrors(mirror=None)
    by_default, _ = make_pair(mirror=True)
    assert by_default.num_members(mirror=None) == 5
    assert by_default.mirrors(mirror=None)
    image = rng.random((7, 10, 12), dtype=np.float32)
    plain, mirrored = (
        predictor.predict(image, mirror=mirror, probabilities=True) for mirror in (False, True)
    )
    # Both networks work voxel by voxel, so flips change only the last bits.
    np.testing.assert_allclose(mirrored.probabilities, plain.probabilities, atol=1e-3)
    no_axes = make_predictor(inference={"mirror_axes": ()})
    both = Predictor(no_axes.plan, Threshold(), device=CPU, members=[no_axes])
    with pytest.raises(UsageError, match=r"mirroring: expected axes in the plan's inference\.mirror_axes"):
        both.predict(image, mirror=True)


def test_recipe_and_precision_of_several_plans(make_pair, rng):
    predictor, _ = make_pair()
    assert predictor.recipe == "test + test"
    assert predictor.precision == "float32"


def test_regions_are_decided_by_mean_probabilities(make_pair, rng):
    dataset = {
        "labels": {"background": 0, "whole": (1, 2), "core": (2,)},
        "regions_class_order": (1, 2),
    }
    predictor, _ = make_pair(dataset=dataset)
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
