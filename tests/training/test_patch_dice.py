"""Dice on validation patches, against sets counted by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from scanseg.batches import in_memory as resident
from scanseg.runtime import RunContext
from scanseg.specs import (
    SamplingSpec,
    TrainingSpec,
    XLSTMUNetSpec,
)
from scanseg.training.validation import patch_dice
from tests.factories import DISCS, make_plan

LABELS = {"background": 0, "a": 1, "b": 2}
REGIONS = {"background": 0, "whole": (1, 2), "core": 2}
IGNORING = {"background": 0, "a": 1, "ignore": 2}


class OneCase:
    """A store of one case, all of which is one patch; the image holds what the network is to predict."""

    def __init__(self, label_map, prediction, plan):
        label_map = np.uint8(label_map).reshape(-1, *np.shape(label_map)[-2:])
        self._arrays = (np.float16(prediction).reshape(1, *label_map.shape), label_map)
        self.index = SimpleNamespace(dataset=plan.dataset, preprocessing=plan.preprocessing, first_stage=None)

    def case(self, name):
        return SimpleNamespace(geometry=SimpleNamespace(shape=self._arrays[1].shape))

    def read_image(self, case):
        return self._arrays[0]

    def read_label_map(self, case):
        return self._arrays[1]


class Oracle:
    """Predicts what the image says: a class, or for regions the sum of 1 for the first and 2 for the second."""

    def __init__(self, *, num_outputs, regions):
        self._num_outputs, self._regions = num_outputs, regions
        self.num_batches = 0

    def logits(self, batch):
        self.num_batches += 1
        values = batch.images[:, 0].long()
        if self._regions:
            masks = torch.stack([(values >> bit) & 1 for bit in range(self._num_outputs)], dim=1)
        else:
            masks = torch.nn.functional.one_hot(values, self._num_outputs).movedim(-1, 1)
        return 20.0 * masks - 10


def scores(labels, label_map, prediction, *, order="random-patches", batches=2):
    """Dice of a label map, or of several slices; a batch holds two patches."""
    return scores_and_batches(labels, label_map, prediction, order=order, batches=batches)[0]


def scores_and_batches(labels, label_map, prediction, *, order, batches):
    regions = (1, 2) if any(isinstance(value, tuple) for value in labels.values()) else None
    dataset = DISCS.model_copy(update={"labels": labels, "regions_class_order": regions})
    patch_size = np.shape(label_map)[-2:]
    plan = make_plan(
        XLSTMUNetSpec(features=(4, 8), strides=((1, 1), (2, 2)), kernel_sizes=((3, 3),) * 2),
        dataset=dataset,
        patch_size=patch_size,
        preprocessing={"slice_size": patch_size if order == "every-slice" else None},
        sampling=SamplingSpec(patch_size=patch_size, batch_size=2, order=order),
        training=TrainingSpec(validation_batches=batches),
    )
    cpu = torch.device("cpu")
    store = OneCase(label_map, prediction, plan)
    cases = resident.load_into_memory(store, ("only",), context=RunContext(device=cpu), seed=0)
    oracle = Oracle(num_outputs=dataset.num_outputs, regions=dataset.has_regions)
    found = patch_dice(oracle, cases, plan, num_batches=batches, context=RunContext(device=cpu))
    return found, oracle.num_batches


def test_labels():
    found = scores(LABELS, [[0, 1, 1], [0, 1, 0]], [[0, 1, 0], [1, 1, 0]])

    assert found == {"a": pytest.approx(2 * 2 / (3 + 3)), "b": None}


def test_a_label_that_is_only_predicted():
    assert scores(LABELS, [[0, 1, 1]], [[0, 1, 2]]) == {"a": pytest.approx(2 / 3), "b": 0}


def test_regions_are_counted_each_by_itself():
    # whole: voxels 1 to 3, predicted 0 to 2; core: voxel 3, predicted 2 and 3 (also where whole is not)
    found = scores(REGIONS, [[0, 1, 1, 2]], [[1, 1, 3, 2]])

    assert found == {"whole": pytest.approx(2 * 2 / (3 + 3)), "core": pytest.approx(2 * 1 / (1 + 2))}


def test_voxels_to_ignore_are_not_counted():
    # Of the ignored voxels two are predicted as a; of the others, one is right and one is missed.
    assert scores(IGNORING, [[1, 1, 0, 2, 2, 2]], [[1, 0, 0, 1, 1, 0]]) == {"a": pytest.approx(2 / (2 + 1))}


def test_every_slice_is_counted_once_and_no_pass_is_begun_again():
    real = [[[0, 1]], [[1, 1]], [[1, 0]], [[2, 0]]]
    predicted = [[[0, 1]], [[1, 0]], [[0, 0]], [[2, 2]]]

    found, num_batches = scores_and_batches(LABELS, real, predicted, order="every-slice", batches=20)

    assert found == {"a": pytest.approx(2 * 2 / (4 + 2)), "b": pytest.approx(2 * 1 / (1 + 2))}
    assert num_batches == 2
    assert scores_and_batches(LABELS, real, predicted, order="every-slice", batches=1)[1] == 1
    assert scores_and_batches(LABELS, real, predicted, order="random-patches", batches=20)[1] == 20
