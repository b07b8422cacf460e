"""Plans with inconsistent parts are refused. The messages hold their values."""

import json

import pytest
from pydantic import ValidationError

from scanseg.settings import apply_settings
from scanseg.specs import (
    AdamWSpec,
    AffineTransform,
    CascadeSpec,
    GammaTransform,
    InferenceSpec,
    LossSpec,
    MirrorTransform,
    MSVMUNetSpec,
    SamplingSpec,
    TrainingSpec,
)
from tests.factories import make_plan


def plan_of(*, slice_size=None, **parts):
    """Return a plan of slices for MSVM-UNet."""
    steps = {"slice_size": slice_size}
    return make_plan(MSVMUNetSpec(), patch_size=(64, 64), preprocessing=steps, **parts)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"inference": InferenceSpec(mirror_axes=(0, 2))},
            r"inference.mirror_axes: expected axes of \(0, 1\), got \(0, 2\)",
        ),
        (
            {"inference": InferenceSpec(mirror=True)},
            "inference.mirror is true, but inference.mirror_axes names no",
        ),
        ({"inference": InferenceSpec(mirror_axes=(-1,))}, r"inference.mirror_axes: .* got \(-1,\)"),
        (
            {"augmentation": (GammaTransform(), MirrorTransform(axes=(2,)))},
            r"augmentation.1.axes: .* got \(2,\)",
        ),
        ({"inference": InferenceSpec(mode="slices")}, "inference.mode slices needs preprocessing.slice_size"),
        (
            {"inference": InferenceSpec(slice_resampling="labels")},
            "slice_resampling labels needs inference.mode slices, got windows",
        ),
        (
            {"augmentation": (GammaTransform(), AffineTransform())},
            "augmentation.1: expected one affine transform",
        ),
        (
            {"augmentation": (AffineTransform(), AffineTransform())},
            "augmentation.1: expected one affine transform",
        ),
        (
            {"training": TrainingSpec(loss=LossSpec(dice_weight=0, cross_entropy_weight=0))},
            "expected dice_weight or cross_entropy_weight above 0",
        ),
        (
            {
                "slice_size": (64, 64),
                "sampling": SamplingSpec(
                    patch_size=(64, 64), batch_size=2, order="every-slice", label_weights={"disc": 2}
                ),
            },
            "sampling.order every-slice uses every slice once",
        ),
    ],
)
def test_inconsistent_parts_are_refused(parts, message):
    with pytest.raises(ValidationError, match=message):
        plan_of(**parts)


def test_consistent_parts_are_accepted():
    plan_of(
        slice_size=(64, 64),
        augmentation=(AffineTransform(), MirrorTransform(axes=(0, 1))),
        inference=InferenceSpec(mode="slices", slice_resampling="labels", mirror_axes=(1,)),
    )


def test_seeds_are_in_the_range_of_torch():
    assert TrainingSpec(seed=2**63 - 1).seed == 2**63 - 1
    for seed in (-1, 2**63):
        with pytest.raises(ValidationError, match="seed"):
            TrainingSpec(seed=seed)


def test_properties_of_a_data_set_follow_changes_of_its_labels():
    dataset = plan_of().dataset
    assert (dataset.num_outputs, dataset.num_channels) == (2, 1)

    changed = dataset.model_copy(
        update={"labels": {"background": 0, "disc": 1, "rim": 2, "ignore": 3}, "channel_names": ("a", "b")}
    )

    assert (changed.num_outputs, changed.num_channels) == (3, 2)
    assert list(changed.foreground) == ["disc", "rim"]
    assert changed.ignore_label == 3
    assert changed.known_values == {0, 1, 2, 3}
    assert not changed.has_regions


def test_betas_of_one_are_refused():
    with pytest.raises(ValidationError, match="less than 1"):
        AdamWSpec(betas=(0.9, 1.0))


def test_plans_and_settings_with_earlier_names_of_fields_are_read():
    plan = plan_of()
    content = plan.model_dump(mode="json")
    training, inference = content["training"], content["inference"]
    for part, new, old in (
        (training, "ema_decay", "average_decay"),
        (training, "accumulation_steps", "accumulation"),
        (training, "case_storage", "resident"),
        (inference, "slice_resampling", "slice_restoring"),
    ):
        part[old] = part.pop(new)

    assert type(plan).model_validate_json(json.dumps(content)) == plan
    assert apply_settings(plan, ("training.average_decay=0.5",)).training.ema_decay == 0.5
    assert CascadeSpec.model_validate({"previous": "first"}).first_stage == "first"
