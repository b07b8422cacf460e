"""Changes of the colours of patches."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from scanseg.batches.augmentation import change_colours
from scanseg.batches.augmentation.colour import colour_matrix
from scanseg.batches.shard import BatchShard
from scanseg.specs import ColourTransform, Plan
from tests.factories import make_plan

OFTEN = ColourTransform(probability=0.5)


@pytest.fixture
def images(generator):
    return torch.randn(40, 3, 9, 10, generator=generator)


def rngs(*seeds):
    return [np.random.default_rng(seed) for seed in seeds]


def test_a_third_of_a_turn_permutes_red_green_and_blue():
    (matrix,) = colour_matrix(np.array([2 * np.pi / 3]), np.array([1.0]))
    np.testing.assert_allclose(matrix @ [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(matrix @ [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], atol=1e-12)


def test_grey_stays_grey_and_no_saturation_makes_grey():
    matrices = colour_matrix(np.array([0.3, -1.0]), np.array([1.4, 0.0]))
    np.testing.assert_allclose(matrices @ np.ones(3), np.ones((2, 3)), atol=1e-12)
    np.testing.assert_allclose(matrices[1] @ [0.9, 0.3, 0.0], [0.4, 0.4, 0.4], atol=1e-12)


def test_some_patches_change_and_equal_seeds_agree(images):
    before = images.clone()
    changed = change_colours(images, spec=OFTEN, rngs=rngs(0))
    differs = ((changed - images).abs() > 1e-5).flatten(1).any(1)
    assert 8 <= int(differs.sum()) <= 32
    assert torch.equal(images, before)
    assert torch.equal(changed, change_colours(images, spec=OFTEN, rngs=rngs(0)))
    assert not torch.equal(changed, change_colours(images, spec=OFTEN, rngs=rngs(1)))


def test_brightness_adds_one_value_to_all_channels(images):
    spec = ColourTransform(
        probability=1, hue_degrees_range=(0, 0), saturation_range=(1, 1), brightness_range=(0.2, 0.2)
    )
    torch.testing.assert_close(change_colours(images, spec=spec, rngs=rngs(0)), images + 0.2)


def test_shards_and_joined_batches_equal_whole_batches(images):
    both = change_colours(images, spec=OFTEN, rngs=rngs(3, 4))
    whole = [
        change_colours(part, spec=OFTEN, rngs=rngs(seed))
        for part, seed in zip(images.split(20), (3, 4), strict=True)
    ]
    assert torch.equal(both, torch.cat(whole))
    shards = [
        change_colours(
            images[20 * rank : 20 * (rank + 1)], spec=OFTEN, rngs=rngs(7), shard=BatchShard(rank, 2)
        )
        for rank in range(2)
    ]
    assert torch.equal(torch.cat(shards), change_colours(images, spec=OFTEN, rngs=rngs(7)))


def test_images_without_three_channels_are_refused():
    content = make_plan().model_dump() | {"augmentation": [ColourTransform().model_dump()]}
    with pytest.raises(ValidationError, match="colour needs images of 3 channels, got 1"):
        Plan.model_validate(content)
