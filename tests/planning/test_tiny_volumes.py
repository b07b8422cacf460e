"""Plans for volumes and images of a few voxels."""

from math import prod

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scanseg.errors import InputError
from scanseg.models import check_network
from scanseg.planning import RECIPES
from scanseg.planning.recipes import plan_recipe
from scanseg.planning.topology import Topology, add_stages, choose_topology
from scanseg.specs import DatasetSpec, IntensityStatistics, MirrorTransform
from tests.factories import make_fingerprint

STATISTICS = IntensityStatistics(
    mean=80.0,
    median=75.0,
    standard_deviation=40.0,
    minimum=-900.0,
    maximum=2000.0,
    percentile_00_5=-60.0,
    percentile_99_5=210.0,
)
SIZES = st.integers(1, 12)
SPACINGS = st.sampled_from([0.2, 0.9, 1.0, 3.0, 8.0])


def plan(spacings, shapes, *, recipe, num_axes=3):
    measured = make_fingerprint(spacings, shapes, num_axes=num_axes, intensities=STATISTICS)
    spec = DatasetSpec(
        name="set", channel_names=("MRI",), labels={"background": 0, "a": 1}, file_ending=".nii.gz"
    )
    made = plan_recipe(measured, spec, recipe=recipe)
    check_network(made)
    return made


@settings(max_examples=25, deadline=None)
@given(
    shapes=st.lists(st.tuples(SIZES, SIZES, SIZES), min_size=1, max_size=3),
    spacing=st.tuples(SPACINGS, SPACINGS, SPACINGS),
    recipe=st.sampled_from(sorted(RECIPES)),
)
@example(shapes=[(1, 1, 1)], spacing=(1.0, 1.0, 1.0), recipe="dynunet")
@example(shapes=[(11, 1, 1)], spacing=(1.0, 1.0, 1.0), recipe="xlstm-unet")
@example(shapes=[(2, 2, 2)], spacing=(1.0, 1.0, 1.0), recipe="plain-unet-2d")
@example(shapes=[(9, 7, 7)], spacing=(1.0, 1.0, 1.0), recipe="swin-unetr")
@example(shapes=[(5, 6, 4)], spacing=(8.0, 0.9, 0.9), recipe="residual-unet")
def test_every_recipe_plans_small_volumes_or_names_the_reason(shapes, spacing, recipe):
    try:
        made = plan([spacing] * len(shapes), shapes, recipe=recipe)
    except InputError as error:
        reason = str(error)
    else:
        assert all(made.sampling.patch_size)
        assert type(made).model_validate_json(made.to_json()) == made
        return
    assert recipe.endswith(("-low", "-cascade"))
    assert "needs no low resolution" in reason


@pytest.mark.parametrize("recipe", [name for name in RECIPES if not name.endswith(("-low", "-cascade"))])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 7), (1, 3, 12), (1, 1, 9)])
def test_every_recipe_plans_small_images(recipe, shape):
    made = plan([(999.0, 1.0, 1.0)] * 2, [shape] * 2, recipe=recipe, num_axes=2)
    assert len(made.sampling.patch_size) == 2
    assert any(isinstance(transform, MirrorTransform) for transform in made.augmentation)


@settings(max_examples=50, deadline=None)
@given(
    size=st.lists(SIZES, min_size=2, max_size=3),
    spacing=st.tuples(SPACINGS, SPACINGS, SPACINGS),
    num_stages=st.integers(2, 4),
)
def test_further_stages_divide_the_patch_and_leave_two_voxels(size, spacing, num_stages):
    topology = add_stages(choose_topology(spacing[: len(size)], size), num_stages=num_stages)
    assert len(topology.strides) == len(topology.kernel_sizes) >= num_stages
    deepest = [
        divmod(voxels, stride)
        for voxels, stride in zip(topology.patch_size, topology.total_stride, strict=True)
    ]
    assert all(rest == 0 for _, rest in deepest)
    assert prod(voxels for voxels, _ in deepest) >= 2
    assert all(voxels >= wanted for voxels, wanted in zip(topology.patch_size, size, strict=True))


def test_enough_stages_stay_as_they_are():
    topology = choose_topology((1.0, 1.0, 1.0), (40, 56, 40))
    assert add_stages(topology, num_stages=3) is topology


def test_the_longest_axes_are_halved():
    topology = Topology((2, 12, 12), ((1, 1, 1), (1, 2, 2)), ((3, 3, 3),) * 2)
    assert add_stages(topology, num_stages=3).strides[-1] == (1, 2, 2)
    assert choose_topology((1.0, 1.0, 1.0), (11, 1, 1)).strides == ((1, 1, 1), (2, 1, 1))
