"""Plans for colour pictures by the fast recipes."""

import math

import pytest

from scanseg.planning import PlanRequest
from scanseg.planning import make_plan as plan_dataset
from scanseg.planning.recipes import plan_recipe
from scanseg.runtime import RunContext
from scanseg.specs import ColourTransform, DatasetSpec
from tests.factories import make_fingerprint, write_colour_disks, write_disks

SEMANTIC, INSTANCES = ("polyp",), ("interior", "boundary")
CPU = RunContext(device="cpu", num_workers=0)


def plan(labels, *, shape=(1, 352, 352), recipe="xlstm-unet-fast", channels=("R", "G", "B"), **options):
    pictures = make_fingerprint(
        [(999.0, 1.0, 1.0)] * 40, [shape] * 40, num_axes=2, num_channels=len(channels)
    )
    values = {"background": 0} | {name: number for number, name in enumerate(labels, start=1)}
    dataset = DatasetSpec(name="set", channel_names=channels, labels=values, file_ending=".png")
    return plan_recipe(pictures, dataset, recipe=recipe, **options)


@pytest.mark.parametrize("recipe", ["xlstm-unet-fast", "plain-unet-fast", "msvm-unet-tuned"])
def test_pictures_have_changes_of_colours_and_flips_in_prediction(recipe):
    made = plan(SEMANTIC, recipe=recipe)

    assert [each.kind for each in made.augmentation].count("colour") == 1
    assert (made.inference.mirror, made.inference.mirror_axes) == (True, (0, 1))
    assert made.training.mirror_validation
    assert type(made).model_validate_json(made.to_json()) == made


@pytest.mark.parametrize("recipe", ["xlstm-unet", "plain-unet-2d", "msvm-unet"])
def test_published_recipes_do_not_change_colours(recipe):
    made = plan(SEMANTIC, recipe=recipe)

    assert not any(isinstance(each, ColourTransform) for each in made.augmentation)
    assert not made.inference.mirror


def test_grey_pictures_are_planned_as_before():
    made = plan(SEMANTIC, channels=("gray",))

    assert not any(isinstance(each, ColourTransform) for each in made.augmentation)
    assert not made.inference.mirror


def test_patches_of_instances_are_small_and_others_are_whole_pictures():
    assert plan(INSTANCES, shape=(1, 1000, 800)).sampling.patch_size == (256, 256)
    assert plan(INSTANCES, shape=(1, 200, 300)).sampling.patch_size == (224, 256)
    patch = plan(SEMANTIC).sampling.patch_size
    assert all(size >= 352 for size in patch)


@pytest.mark.parametrize("labels", [SEMANTIC, INSTANCES])
def test_a_batch_has_about_half_a_million_pixels(labels):
    made = plan(labels)
    pixels = made.sampling.batch_size * math.prod(made.sampling.patch_size)
    assert 2**18 < pixels <= 1.2 * 2**19


def test_a_small_plan_shows_the_whole_picture_unless_it_has_instances():
    whole, instances = (plan(labels, size="small") for labels in (SEMANTIC, INSTANCES))

    assert whole.sampling.patch_size == (128, 128)
    assert whole.preprocessing.spacing[1] == pytest.approx(352 / 128, rel=0.05)
    assert instances.preprocessing.spacing[1] < 1.5
    assert not whole.inference.mirror
    assert not whole.training.mirror_validation


def test_colour_pictures_have_their_own_default_recipe(tmp_path):
    colour = plan_dataset(write_colour_disks(tmp_path / "colour", num_cases=4), PlanRequest(), context=CPU)
    grey = plan_dataset(write_disks(tmp_path / "grey"), PlanRequest(), context=CPU)

    assert (colour.recipe, grey.recipe) == ("xlstm-unet-fast", "xlstm-unet")
