"""Sizes of plans: what `small` and `medium` limit, and the defaults on a CPU."""

import itertools
import json
import math
from typing import get_args

import pytest

import scanseg
from scanseg.cli import options
from scanseg.errors import UsageError
from scanseg.models import count_parameters
from scanseg.planning import RECIPES
from scanseg.planning.recipes import plan_recipe
from scanseg.specs import CaseMeasures, DatasetSpec, Fingerprint, IntensityStatistics, Plan, PlanSize
from tests.factories import write_disks

DATASETS = {
    "hippocampus": ((1.0, 1.0, 1.0), (36, 50, 35)),
    "abdomen": ((3.0, 0.8, 0.8), (130, 512, 512)),
    "anisotropic": ((5.5, 1.5, 1.5), (36, 256, 256)),
    "pictures": ((999.0, 1.0, 1.0), (1, 529, 622)),
    "tiny": ((999.0, 1.0, 1.0), (1, 20, 30)),
}


def fingerprint_of(name):
    spacing, shape = DATASETS[name]
    statistics = IntensityStatistics(
        mean=0.0,
        median=0.0,
        standard_deviation=1.0,
        minimum=-1.0,
        maximum=1.0,
        percentile_00_5=-1.0,
        percentile_99_5=1.0,
    )
    case = {"spacing": spacing, "shape": shape, "source_shape": shape}
    return Fingerprint(
        num_axes=2 if shape[0] == 1 else 3,
        cases=tuple(CaseMeasures(case=str(number), **case) for number in range(100)),
        intensities=(statistics,),
        median_relative_size_after_crop=1.0,
    )


SPEC = DatasetSpec(
    name="data", channel_names=("MRI",), labels={"background": 0, "a": 1}, file_ending=".nii.gz"
)


def plan_of(name, *, recipe, size):
    return plan_recipe(fingerprint_of(name), SPEC, recipe=recipe, size=size)


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize("recipe", ["xlstm-unet", "plain-unet-fast", "residual-unet", "xlstm-unet-2d"])
def test_sizes_limit_features_patches_batches_and_epochs(name, recipe):
    full, medium, small = (plan_of(name, recipe=recipe, size=size) for size in ("full", "medium", "small"))
    assert small.network.features[0] == 8
    assert max(small.network.features) <= 128
    assert medium.network.features[0] == 16
    numbers = [
        [
            count_parameters(plan),
            math.prod(plan.sampling.patch_size) * plan.sampling.batch_size,
            plan.training.epochs * plan.training.iterations_per_epoch,
        ]
        for plan in (small, medium, full)
    ]
    for smaller, larger in itertools.pairwise(numbers):
        assert all(a <= b for a, b in zip(smaller, larger, strict=True)), numbers
    assert numbers[0][0] < 0.2 * numbers[2][0]
    limit = 128**2 if len(small.sampling.patch_size) == 2 else 32**3
    assert math.prod(small.sampling.patch_size) <= 2.5 * limit  # patches are rounded up to the total stride
    assert (small.size, full.size) == ("small", "full")


@pytest.mark.parametrize("recipe", ["msvm-unet", "segresnet", "unetr", "swin-unetr", "dynunet"])
def test_networks_with_their_own_stages_have_sizes(recipe):
    small, medium, full = (plan_of("abdomen", recipe=recipe, size=s) for s in ("small", "medium", "full"))
    assert count_parameters(small) < 0.5 * count_parameters(medium) < 0.5 * count_parameters(full)


def test_a_small_patch_covers_half_of_the_median_case():
    """Large cases are resampled to a coarser grid, along fine axes first. Small ones keep their grid."""
    small = plan_of("abdomen", recipe="xlstm-unet", size="small")
    spacing, patch = small.preprocessing.spacing, small.sampling.patch_size
    extent = [a * b for a, b in zip((3.0, 0.8, 0.8), (130, 512, 512), strict=True)]
    covered = [p * s / e for p, s, e in zip(patch, spacing, extent, strict=True)]
    assert min(covered) > 0.45
    anisotropic = plan_of("anisotropic", recipe="xlstm-unet", size="small")
    assert 5.5 <= anisotropic.preprocessing.spacing[0] < 8
    assert 2 < anisotropic.preprocessing.spacing[1] < 5
    pictures = plan_of("pictures", recipe="xlstm-unet", size="small").preprocessing
    assert pictures.spacing[0] is None
    assert 1.5 < pictures.spacing[1] == pictures.spacing[2] < 3.5
    full = plan_of("hippocampus", recipe="xlstm-unet", size="full")
    assert plan_of("hippocampus", recipe="xlstm-unet", size="small").preprocessing == full.preprocessing
    assert plan_of("tiny", recipe="xlstm-unet", size="small").preprocessing.spacing is None


def test_a_plan_states_its_size_and_older_plans_are_full(tmp_path):
    small = plan_of("hippocampus", recipe="plain-unet", size="small")
    assert json.loads(small.to_json())["size"] == "small"
    full = plan_of("hippocampus", recipe="plain-unet", size="full")
    assert "size" not in json.loads(full.to_json())
    for plan in (small, full):
        (tmp_path / "plan.json").write_text(plan.to_json())
        assert Plan.read(tmp_path / "plan.json") == plan


def test_names_of_sizes():
    annotated, *_ = get_args(options.PlanSize)
    assert get_args(get_args(annotated)[0]) == get_args(PlanSize)


@pytest.fixture
def dataset(tmp_path):
    return write_disks(tmp_path / "disks")


def test_fast_recipes_are_small_on_a_cpu(dataset):
    sizes = {
        recipe: scanseg.make_plan(dataset, recipe=recipe, device="cpu", num_workers=0).size
        for recipe in RECIPES
        if recipe in ("xlstm-unet", "xlstm-unet-fast", "plain-unet-fast", "msvm-unet")
    }
    assert sizes == {
        "xlstm-unet": "full",
        "xlstm-unet-fast": "small",
        "plain-unet-fast": "small",
        "msvm-unet": "full",
    }
    full = scanseg.make_plan(dataset, recipe="xlstm-unet-fast", size="full", device="cpu", num_workers=0)
    assert full.size == "full"


def test_a_size_that_does_not_fit_is_refused(dataset, tmp_path):
    with pytest.raises(UsageError, match="size 'tiny': expected one of small, medium, full"):
        scanseg.make_plan(dataset, size="tiny", num_workers=0)
    plan = scanseg.make_plan(dataset, size="small", num_workers=0)
    path = tmp_path / "plan.json"
    path.write_text(plan.to_json())
    with pytest.raises(UsageError, match="is a plan and has its size"):
        scanseg.train(path, tmp_path / "model", size="medium", device="cpu")
    scanseg.train(
        dataset, tmp_path / "model", size="small", epochs=1, settings=["training.iterations_per_epoch=1"]
    )
    with pytest.raises(UsageError, match="size is small, not medium"):
        scanseg.train(dataset, tmp_path / "model", size="medium", resume=True)
    with pytest.raises(UsageError, match="size small and the plan of"):
        scanseg.make_plan(dataset, size="small", like=tmp_path / "model")


def test_the_time_of_a_step_is_measured_unless_memory_is_missing(dataset, monkeypatch):
    plan = scanseg.make_plan(dataset, size="small", num_workers=0)
    timing = scanseg.time_step(plan, device="cpu")
    assert 0 < timing.seconds < 60
    assert timing.device.startswith("cpu (")
    monkeypatch.setattr("scanseg.training.step_timing.free_memory", lambda: 2**20)
    timing = scanseg.time_step(plan, device="cpu")
    assert (timing.seconds, timing.free_bytes) == (None, 2**20)
    assert timing.needed_bytes > 2**20


def test_plan_says_what_a_training_takes(dataset, tmp_path, command):
    words = ("--size", "small", "--device", "cpu", "--num-workers", 0)
    outcome = command("plan", dataset, "-o", tmp_path / "plan.json", *words)
    assert outcome.code == 0, outcome.stderr
    rows = dict(line.strip().split("  ", 1) for line in outcome.stdout.splitlines() if "  " in line.strip())
    rows = {name: text.strip() for name, text in rows.items()}
    assert rows["cases"] == "5"
    assert rows["folds"].startswith("5 (")
    assert rows["recipe"] == "xlstm-unet, size small"
    assert rows["network"].endswith("million parameters")
    assert rows["features by stage"].startswith("8, 16")
    assert rows["device"].startswith("cpu (")
    assert rows["time of a step"].endswith(" s")
    assert " for all epochs" in rows["time of an epoch"]
