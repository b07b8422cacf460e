"""Volumes in any orientation get the same labels at the same places."""

from itertools import permutations, product

import numpy as np
import pytest
import torch
from torch import nn

from scanseg.imaging import Image, direction_of, find_reorientation
from scanseg.inference import Predictor
from scanseg.inference.inputs import orientation_warning
from scanseg.preprocessing.case import preprocess_case
from scanseg.specs import DatasetSpec
from tests.factories import make_plan, plain_unet

ALL = ["".join(letters) for order in permutations(("RL", "AP", "SI")) for letters in product(*order)]
SIDES = DatasetSpec(
    name="sides",
    channel_names=("MRI",),
    labels={"background": 0, "kidney_left": 1, "kidney_right": 2, "top": 3},
    file_ending=".nii.gz",
)
SHAPE = (6, 8, 10)
"""Voxels along z, y, x in the plan's orientation."""
RAW = {"kind": "none"}


class KnowsSides(nn.Module):
    """Network that labels bright voxels by their side, and the first slice of a volume apart."""

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        bright = (batch > 0.5).float()
        middle = batch.shape[-1] // 2
        left, right, top = torch.zeros_like(bright), torch.zeros_like(bright), torch.zeros_like(bright)
        left[..., :middle], right[..., middle:] = bright[..., :middle], bright[..., middle:]
        if batch.ndim == 5:
            top[:, :, 0] = 2 * bright[:, :, 0]
        return torch.cat((0.5 * torch.ones_like(bright), left, right, top), dim=1)


def make_predictor(orientation, *, patch_size=SHAPE, **fields):
    plan = make_plan(
        plain_unet(len(patch_size)),
        dataset=SIDES,
        num_axes=3,
        patch_size=patch_size,
        preprocessing={"orientation": orientation, "normalizations": (RAW,), "crop_to_nonzero": False},
        **fields,
    )
    return Predictor(plan, KnowsSides(), device=torch.device("cpu"))


def store(volume, codes, *, stored="RAS"):
    """Return a volume of the axis codes `stored` as an image that is stored in other codes."""
    order, flips = find_reorientation(stored, codes)
    array = volume.transpose(order)[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]
    spacing = tuple((2.0, 1.0, 0.5)[axis] for axis in order)
    return Image(
        np.ascontiguousarray(array)[None], spacing=spacing, origin=(0.0,) * 3, direction=direction_of(codes)
    )


@pytest.fixture
def volume():
    rng = np.random.default_rng(0)
    return (rng.random(SHAPE) > 0.6).astype(np.float32)


@pytest.mark.parametrize("patch_size", [SHAPE, SHAPE[1:]], ids=["3d", "slices"])
def test_all_48_orientations_get_the_labels_of_the_plans_orientation(volume, patch_size):
    predictor = make_predictor("RAS", patch_size=patch_size)
    expected = predictor.predict(store(volume, "RAS"), uncertainty=True, probabilities=True)
    assert set(np.unique(expected.label_map)) == ({0, 1, 2, 3} if len(patch_size) == 3 else {0, 1, 2})

    for codes in ALL:
        found = predictor.predict(store(volume, codes), uncertainty=True, probabilities=True)
        order, flips = find_reorientation("RAS", codes)
        turn = tuple(slice(None, None, -1 if flip else 1) for flip in flips)

        np.testing.assert_array_equal(found.label_map, expected.label_map.transpose(order)[turn])
        np.testing.assert_array_equal(found.entropy, expected.entropy.transpose(order)[turn])
        for ours, theirs in zip(found.probabilities, expected.probabilities, strict=True):
            np.testing.assert_array_equal(ours, theirs.transpose(order)[turn])


def test_the_spacing_moves_with_the_axes(volume):
    predictor = make_predictor("RAS")
    spec = predictor.plan.preprocessing.model_copy(update={"spacing": (2.0, 1.0, 0.5)})
    for codes in ("RAS", "SAR", "PIL"):
        image = store(volume, codes)
        prepared = preprocess_case(image, image.array[0].astype(np.uint8), spec)
        np.testing.assert_array_equal(prepared.image[0], volume)
        np.testing.assert_array_equal(prepared.label_map, volume)


def test_a_plan_without_orientation_takes_images_as_stored_and_warns(volume):
    predictor = make_predictor(None)
    image = store(volume, "LAS")

    stored = predictor.predict(image).label_map

    as_stored = make_predictor("LAS").predict(image).label_map
    np.testing.assert_array_equal(stored, as_stored)
    assert not np.array_equal(stored, make_predictor("RAS").predict(image).label_map)
    assert "no orientation, so volumes are predicted as stored" in orientation_warning(predictor.plan)
    assert orientation_warning(make_predictor("RAS").plan) is None


def test_arrays_are_in_the_orientation_of_the_plan(volume):
    for codes in ("RAS", "LPI"):
        predictor = make_predictor(codes)
        expected = predictor.predict(store(volume, codes, stored=codes)).label_map
        np.testing.assert_array_equal(predictor.predict(volume).label_map, expected)


@pytest.mark.parametrize("codes", ["RAS", "LAS", "ASR", "IPL"])
def test_plans_of_different_orientations_are_averaged_at_the_same_places(volume, codes):
    """The second plan sees the volume from another side, and so calls the other half left."""
    first, second = make_predictor("RAS"), make_predictor("LAS")
    image = store(volume, codes)
    probabilities = [each.predict(image, probabilities=True).probabilities for each in (first, second)]
    together = Predictor(first.plan, KnowsSides(), device=torch.device("cpu"), members=(second,)).predict(
        image, probabilities=True
    )

    mean = np.mean(np.asarray(probabilities, dtype=np.float32), axis=0)
    np.testing.assert_allclose(together.probabilities, mean, atol=2e-3)
