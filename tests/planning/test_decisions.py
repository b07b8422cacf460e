"""The decisions of plans in words."""

import pytest

from scanseg.planning import describe_dataset, describe_decisions
from scanseg.planning.recipes import plan_recipe
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


def spec_of(labels, channels):
    values = {"background": 0} | {name: number for number, name in enumerate(labels, start=1)}
    return DatasetSpec(name="set", channel_names=channels, labels=values, file_ending=".nii.gz")


@pytest.mark.parametrize(
    ("labels", "channels", "kept", "lines"),
    [
        (
            ("organ",),
            ("MRI",),
            0.9,
            [
                "mirroring: along z, y, x, as every flip keeps the labels valid",
                "sides: left and right are alike, as no label names a side of the body",
                "normalization: MRI by the z-score of each image, by the names of the channels",
            ],
        ),
        (
            ("kidney_left", "kidney_right", "spleen"),
            ("CT", "T1", "T2"),
            0.5,
            [
                "mirroring: along z, y, not along x, as labels differ by the side of the body",
                "sides: left and right are kept apart, as labels name them: kidney_left, kidney_right",
                "normalization: CT as CT (clipped and scaled by the foreground of all cases), T1, T2 by the z-score of "
                "each image over its nonzero part (more than a quarter of a typical case is empty), by the names of "
                "the channels",
            ],
        ),
        (
            ("LeftHippocampus",),
            ("R", "G", "B", "noNorm"),
            1.0,
            [
                "mirroring: along z, y, not along x, as labels differ by the side of the body",
                "sides: left and right are kept apart, as labels name them: LeftHippocampus",
                "normalization: R, G, B from 0 to 255 to 0 to 1, noNorm unchanged, by the names of the channels",
            ],
        ),
    ],
)
def test_a_data_set_and_its_plan_have_the_same_decisions(labels, channels, kept, lines):
    spec = spec_of(labels, channels)
    measured = make_fingerprint(
        [(1.0, 1.0, 1.0)] * 9, [(40, 50, 60)] * 9, num_channels=len(channels), intensities=STATISTICS
    ).model_copy(update={"median_relative_size_after_crop": kept})
    assert describe_dataset(spec, num_axes=3, orientation=measured.orientation, kept=kept) == lines
    plan = plan_recipe(measured, spec, recipe="plain-unet")
    assert describe_decisions(plan) == [*lines, "orientation: volumes are used as stored, as set in the plan"]
    oriented = plan.preprocessing.model_copy(update={"orientation": "RAS"})
    plan = plan.model_copy(update={"preprocessing": oriented})
    assert describe_decisions(plan)[-1] == (
        "orientation: volumes are brought to RAS, the orientation of most cases"
    )


def test_slices_name_the_axes_in_the_plane():
    spec = spec_of(("organ",), ("MRI",))
    measured = make_fingerprint([(1.0, 1.0, 5.0)] * 9, [(60, 50, 12)] * 9, intensities=STATISTICS)
    plan = plan_recipe(measured, spec, recipe="plain-unet-2d")
    assert describe_decisions(plan)[0].startswith("mirroring: along z, y, as")
    assert (
        "each image's range to -1 to 1"
        in describe_decisions(plan_recipe(measured, spec, recipe="msvm-unet"))[2]
    )


def test_axes_that_a_setting_leaves_out_are_named():
    measured = make_fingerprint([(1.0, 1.0, 1.0)] * 9, [(40, 50, 60)] * 9, intensities=STATISTICS)
    plan = plan_recipe(measured, spec_of(("organ",), ("MRI",)), recipe="plain-unet")
    kept = tuple(each for each in plan.augmentation if each.kind != "mirror")
    plan = plan.model_copy(update={"augmentation": kept})
    assert describe_decisions(plan)[0] == "mirroring: not along z, y, x, as set in the plan"


@pytest.mark.parametrize(("orientation", "left_out"), [("RAS", "x"), ("ASL", "z"), ("SRP", "y")])
def test_the_axis_of_the_sides_follows_the_orientation(orientation, left_out):
    lines = describe_dataset(spec_of(("left",), ("MRI",)), num_axes=3, orientation=orientation, kept=1.0)
    assert f"not along {left_out}," in lines[0]


def test_colour_pictures_are_normalized_one_by_one_by_their_default_recipe():
    spec = spec_of(("polyp",), ("R", "G", "B"))
    lines = describe_dataset(spec, num_axes=2, orientation=None, kept=1.0)
    assert "normalization: R, G, B by the z-score of each image, by the names of the channels" in lines
