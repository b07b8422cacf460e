"""Mirror axes that the fast recipes choose by the data."""

import pytest

from scanseg.planning import describe_decisions
from scanseg.planning.adoption import adopt_plan
from scanseg.planning.recipes import RECIPES, plan_recipe
from scanseg.specs import AffineTransform, DatasetSpec, IntensityStatistics, MirrorTransform
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
HIPPOCAMPUS = (0.06, 0.005, 0.369)
FAST = sorted(name for name, recipe in RECIPES.items() if recipe.is_fast)


def spec_of(*labels):
    values = {"background": 0} | {name: number for number, name in enumerate(labels, start=1)}
    return DatasetSpec(name="set", channel_names=("MRI",), labels=values, file_ending=".nii.gz")


def plan(
    likeness, *, labels=("Anterior", "Posterior"), shape=(36, 50, 35), spacing=(1.0, 1.0, 1.0), **options
):
    measured = make_fingerprint([spacing] * 20, [shape] * 20, intensities=STATISTICS)
    measured = measured.model_copy(update={"mirror_likeness": likeness, "orientation": "RAS"})
    return plan_recipe(measured, spec_of(*labels), **{"recipe": "xlstm-unet-fast"} | options)


def axes_of(made):
    (mirror,) = (each for each in made.augmentation if isinstance(each, MirrorTransform))
    assert mirror.axes == made.inference.mirror_axes
    assert made.inference.mirror == made.training.mirror_validation
    return mirror.axes, made.inference.mirror


@pytest.mark.parametrize("recipe", FAST)
@pytest.mark.parametrize("size", ["small", "full"])
def test_hippocampus_is_mirrored_from_left_to_right_alone(recipe, size):
    made = plan(HIPPOCAMPUS, recipe=recipe, size=size)

    assert axes_of(made) == ((2,), True)
    assert made.mirror_likeness == HIPPOCAMPUS
    assert describe_decisions(made)[0] == (
        "mirroring: along x, also in prediction, as labels and their mirror image overlap there (soft Dice of the mean "
        "label map: z 0.06, y 0.01, x 0.37)"
    )
    assert type(made).model_validate_json(made.to_json()) == made


@pytest.mark.parametrize(
    ("likeness", "expected"),
    [
        (None, ((0, 1, 2), False)),  # not measured
        ((0.0, 0.0, 0.0), ((0, 1, 2), False)),  # alike along no axis
        ((0.5, 0.09, 0.1), ((0, 2), False)),  # two axes: predictions would take four times as long
        ((0.3, 0.4, 0.5), ((0, 1, 2), False)),
    ],
)
def test_axes_stay_unless_the_data_are_clear(likeness, expected):
    assert axes_of(plan(likeness)) == expected


def test_labels_by_side_exclude_their_axis_before_the_likeness_counts():
    labels = ("kidney_left", "kidney_right")

    assert axes_of(plan((0.0, 0.4, 0.9), labels=labels)) == ((1,), True)
    assert axes_of(plan((0.0, 0.0, 0.9), labels=labels)) == ((0, 1), False)
    assert axes_of(plan((0.5, 0.5, 0.0), labels=labels)) == ((0, 1), False)


def rotations_of(made):
    (affine,) = (each for each in made.augmentation if isinstance(each, AffineTransform))
    return affine.rotation_degrees_range


def flat(likeness, **options):
    """Plan ACDC: patches of 20 x 256 x 224, which are rotated in the plane."""
    made = plan(likeness, shape=(9, 240, 220), spacing=(10.0, 1.5, 1.5), **options)
    assert max(made.sampling.patch_size) / made.sampling.patch_size[0] > 3
    return made


@pytest.mark.parametrize("recipe", FAST)
def test_half_a_turn_flips_two_axes_so_flat_patches_turn_less_if_one_must_not_flip(recipe):
    made = flat((0.473, 0.742, 0.078), recipe=recipe)

    assert axes_of(made) == ((0, 1), False)
    assert rotations_of(made) == (-45.0, 45.0)
    assert "rotations: by at most 45 degrees, as half a turn would flip along x too" in describe_decisions(
        made
    )


@pytest.mark.parametrize("likeness", [None, (0.28, 0.02, 0.0)])  # too few cases, chaos-mr
def test_flat_patches_with_labels_by_side_turn_less(likeness):
    made = flat(likeness, labels=("right kidney", "left kidney"))

    assert axes_of(made) == (((0, 1), False) if likeness is None else ((0,), True))
    assert rotations_of(made) == (-45.0, 45.0)


@pytest.mark.parametrize("likeness", [None, (0.01, 0.7, 0.6), (0.0, 0.0, 0.0)])
def test_flat_patches_that_flip_both_axes_of_the_plane_turn_freely(likeness):
    made = flat(likeness)

    assert rotations_of(made) == (-180.0, 180.0)
    assert not [line for line in describe_decisions(made) if line.startswith("rotations")]


def test_slices_of_images_turn_less_if_an_axis_must_not_flip():
    def images(likeness):
        measured = make_fingerprint(
            [(999.0, 1.0, 1.0)] * 40, [(1, 256, 320)] * 40, num_axes=2, intensities=STATISTICS
        ).model_copy(update={"mirror_likeness": likeness})
        return plan_recipe(measured, spec_of("lung"), recipe="xlstm-unet-fast")

    assert axes_of(images((1.0, 0.0, 0.9))) == ((1,), True)
    assert rotations_of(images((1.0, 0.0, 0.9))) == (-45.0, 45.0)
    assert axes_of(images((1.0, 0.8, 0.9))) == ((0, 1), False)
    assert rotations_of(images((1.0, 0.8, 0.9))) == (-180.0, 180.0)


def test_3d_patches_keep_their_smaller_rotations():
    assert rotations_of(plan(HIPPOCAMPUS)) == (-30.0, 30.0)


def test_the_axis_is_that_of_the_patch_and_not_of_the_image():
    # thick slices along x: the plan puts x first
    made = plan((0.0, 0.3, 0.0), shape=(60, 64, 40), spacing=(1.0, 1.0, 1.5))

    assert made.preprocessing.axis_order == (2, 0, 1)
    assert axes_of(made) == ((2,), True)
    assert describe_decisions(made)[0].startswith("mirroring: along y, also in prediction")


@pytest.mark.parametrize(
    "recipe",
    [name for name in RECIPES if name not in FAST and "-low" not in name and not name.endswith("-tuned")],
)
def test_published_recipes_do_not_look_at_the_likeness(recipe):
    if recipe.endswith("-cascade"):
        pytest.skip("a cascade needs large volumes, and is planned by the same function")
    assert plan(HIPPOCAMPUS, recipe=recipe) == plan(None, recipe=recipe)


def test_older_plans_keep_their_text():
    text = plan(None).to_json()

    assert "mirror_likeness" not in text
    assert '"mirror":' not in text


def test_fine_tuning_adds_no_axes_to_those_chosen_by_the_data():
    def adopted(made, *labels):
        return adopt_plan(made, spec_of(*labels), num_axes=3, source="models/first", dataset_path=None)

    same = adopted(plan(HIPPOCAMPUS), "head", "tail")
    assert axes_of(same) == ((2,), True)
    assert same.mirror_likeness is None
    assert axes_of(adopted(plan(HIPPOCAMPUS), "left", "right")) == ((), False)
    assert axes_of(adopted(plan(None), "head", "tail")) == ((0, 1, 2), False)
