"""Recipes: plans for synthetic fingerprints."""

from functools import partial

import pytest

from scanseg.errors import InputError, UsageError
from scanseg.planning import RECIPES
from scanseg.planning.recipes import plan_recipe as make_plan
from scanseg.planning.spacing import choose_grid
from scanseg.specs import DatasetSpec, IntensityStatistics
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


fingerprint = partial(make_fingerprint, intensities=STATISTICS)


def dataset(channels=("MRI",), labels=("organ",)):
    values = {"background": 0} | {name: n for n, name in enumerate(labels, start=1)}
    return DatasetSpec(name="set", channel_names=channels, labels=values, file_ending=".nii.gz")


CUBES = fingerprint([(1.0, 1.0, 1.0)] * 30, [(40, 50, 60)] * 30)


LARGE = fingerprint([(1.0, 0.8, 0.8)] * 30, [(480, 512, 512)] * 30)


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_plans_volumes_and_writes_a_document(recipe):
    plan = make_plan(LARGE, dataset(), recipe=recipe, dataset_path="raw")

    assert plan.recipe == recipe
    assert plan.dataset_path == "raw"
    assert type(plan).model_validate_json(plan.to_json()) == plan


@pytest.mark.parametrize("recipe", [name for name in RECIPES if not name.endswith(("-low", "-cascade"))])
def test_every_recipe_plans_colour_images(recipe):
    images = fingerprint([(999.0, 1.0, 1.0)] * 40, [(1, 256, 320)] * 40, num_axes=2, num_channels=3)

    plan = make_plan(images, dataset(("R", "G", "B")), recipe=recipe)

    assert len(plan.sampling.patch_size) == 2
    assert plan.preprocessing.spacing is None
    kind = "zscore" if recipe.endswith(("-fast", "-tuned")) else "rescale"
    assert {normalization.kind for normalization in plan.preprocessing.normalizations} == {kind}


def test_error_of_an_unknown_recipe_lists_all_recipes():
    with pytest.raises(UsageError, match="recipe 'u-net': expected one of xlstm-unet, "):
        make_plan(CUBES, dataset(), recipe="u-net")


def test_a_fast_recipe_changes_only_training_and_warps():
    usual, fast = (make_plan(CUBES, dataset(), recipe=recipe) for recipe in ("xlstm-unet", "xlstm-unet-fast"))

    assert (fast.network, fast.sampling, fast.preprocessing) == (
        usual.network,
        usual.sampling,
        usual.preprocessing,
    )
    assert fast.augmentation[1:] == usual.augmentation[1:]
    warps, usual_warps = fast.augmentation[0], usual.augmentation[0]
    assert (warps.rotation_probability, warps.scale_probability, warps.elastic_probability) == (0.5, 0.5, 0.3)
    assert warps.rotation_degrees_range == usual_warps.rotation_degrees_range
    assert (fast.training.optimizer.kind, fast.training.ema_decay) == ("adamw", 0.995)
    assert fast.training.loss == usual.training.loss


def test_only_large_volumes_have_a_low_resolution():
    plan = make_plan(LARGE, dataset(), recipe="xlstm-unet-low")
    assert all(low > full for low, full in zip(plan.preprocessing.spacing, (1.0, 0.8, 0.8), strict=True))
    with pytest.raises(InputError, match=r"needs no low resolution: .* a patch of \(40, 56, 64\) voxels"):
        make_plan(CUBES, dataset(), recipe="xlstm-unet-low")
    pictures = fingerprint([(999.0, 1.0, 1.0)] * 4, [(1, 2560, 3200)] * 4, num_axes=2)
    with pytest.raises(InputError, match="expected images of 3 axes for a low resolution, got 2"):
        make_plan(pictures, dataset(), recipe="plain-unet-low")


def test_ct_is_normalised_by_the_data_set():
    (normalization,) = make_plan(CUBES, dataset(("CT",)), recipe="xlstm-unet").preprocessing.normalizations

    assert normalization.kind == "ct"
    assert (normalization.lower, normalization.upper) == (-60.0, 210.0)
    assert (normalization.mean, normalization.standard_deviation) == (80.0, 40.0)


def test_mri_is_normalised_by_the_image_or_within_the_head():
    cropped = fingerprint([(1.0, 1.0, 1.0)] * 5, [(40, 50, 60)] * 5, relative_size_after_crop=0.5)

    (whole,) = make_plan(CUBES, dataset(), recipe="xlstm-unet").preprocessing.normalizations
    (head,) = make_plan(cropped, dataset(), recipe="xlstm-unet").preprocessing.normalizations

    assert (whole.kind, whole.nonzero_only) == ("zscore", False)
    assert (head.kind, head.nonzero_only) == ("zscore", True)


def test_thick_slices_come_first_and_keep_the_finer_spacing():
    spacings = [(0.8, 0.8, 5.0)] * 9 + [(0.8, 0.8, 2.5)] * 2
    grid = choose_grid(fingerprint(spacings, [(512, 512, 60)] * 11))

    assert grid.axis_order == (2, 0, 1)
    assert grid.spacing == pytest.approx((2.5, 0.8, 0.8))


def test_thick_slices_are_never_resampled_finer_than_the_plane():
    spacings = [(5.0, 0.8, 0.8)] * 8 + [(0.5, 0.8, 0.8)] * 3
    grid = choose_grid(fingerprint(spacings, [(60, 512, 512)] * 11))

    assert grid.spacing[0] == pytest.approx(0.8, abs=1e-4)


def test_labels_that_differ_by_side_are_not_mirrored_along_x():
    kidneys = dataset(labels=("left kidney", "right kidney"))
    hippocampi = dataset(labels=("Left-Hippocampus", "Right-Hippocampus"))
    ventricles = dataset(labels=("LeftVentricle", "RightVentricle"))

    def axes(recipe, spec):
        plan = make_plan(CUBES, spec, recipe=recipe)
        assert plan.augmentation[-1].axes == plan.inference.mirror_axes
        return plan.inference.mirror_axes

    assert axes("xlstm-unet", kidneys) == (0, 1)
    assert axes("msvm-unet", kidneys) == (0,)
    assert axes("xlstm-unet", hippocampi) == axes("xlstm-unet", ventricles) == (0, 1)
    assert axes("xlstm-unet", dataset(labels=("RV", "Myo", "LV"))) == (0, 1, 2)
    assert axes("xlstm-unet", dataset()) == (0, 1, 2)


def test_2d_recipe_keeps_the_slices_of_a_volume():
    plan = make_plan(CUBES, dataset(), recipe="xlstm-unet-2d")

    assert plan.preprocessing.spacing == (None, 1.0, 1.0)
    assert len(plan.sampling.patch_size) == 2


def test_msvm_unet_has_the_published_training():
    plan = make_plan(CUBES, dataset(("CT",)), recipe="msvm-unet")

    assert plan.preprocessing.slice_size == (224, 224)
    (normalization,) = plan.preprocessing.normalizations
    assert (normalization.lower, normalization.upper) == (-125, 275)
    assert (normalization.low, normalization.high) == (-1, 1)
    training = plan.training
    assert (training.optimizer.kind, training.optimizer.lr, training.optimizer.weight_decay) == (
        "adamw",
        5e-4,
        1e-3,
    )
    assert (training.loss.dice_weight, training.loss.cross_entropy_weight) == (0.6, 0.4)
    assert (training.schedule.kind, training.schedule.final_lr, training.epochs) == ("cosine", 1e-6, 300)


def test_2d_images_with_a_spacing_are_resampled_in_plane():
    images = fingerprint([(999.0, 0.5, 0.5)] * 3 + [(999.0, 1.0, 1.0)] * 4, [(1, 256, 320)] * 7, num_axes=2)

    assert make_plan(images, dataset(), recipe="xlstm-unet").preprocessing.spacing == (None, 1.0, 1.0)


def test_flat_patches_are_augmented_in_plane():
    slabs = fingerprint([(5.0, 0.8, 0.8)] * 9, [(16, 256, 256)] * 9)

    plan = make_plan(slabs, dataset(), recipe="plain-unet")

    affine = plan.augmentation[0]
    assert affine.in_plane
    assert affine.rotation_degrees_range == (-180, 180)
    assert next(t for t in plan.augmentation if t.kind == "low-resolution").in_plane
