"""Ranges of colours: chosen at planning by the type of the images, and compared with every image later."""

import json

import numpy as np
import PIL.Image
import pytest
import tifffile
import torch
from hypothesis import given
from hypothesis import strategies as st

import scanseg
from scanseg.errors import InputError
from scanseg.inference import Predictor
from scanseg.models import ModelFolder
from scanseg.planning import PlanRequest, TrainingSource, find_plan, prepare_store
from scanseg.planning.recipes import plan_recipe
from scanseg.preprocessing import find_hidden_channels, find_range_faults
from scanseg.runtime import RunContext
from scanseg.specs import (
    CTNormalization,
    DatasetSpec,
    IntensityRange,
    IntensityStatistics,
    RescaleNormalization,
)
from tests.factories import Threshold, make_fingerprint

CONTEXT = RunContext(num_workers=0)
COLOURS = ("R", "G", "B")


def write_colours(folder, *types, channels=COLOURS, ending=".tif"):
    """Write a data set with one case of each type: name of the type, lowest and highest value."""
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number, (dtype, low, high) in enumerate(types):
        label = np.zeros((64, 64), np.uint8)
        label[20:40, 20:40] = 1
        image = rng.uniform(low, high, (64, 64, 3))
        image.flat[:2] = low, high
        image[label > 0] /= 3
        image = image.astype(dtype)
        if ending == ".tif":
            tifffile.imwrite(folder / f"imagesTr/c{number}_0000.tif", image, photometric="rgb")
        else:
            PIL.Image.fromarray(image).save(folder / f"imagesTr/c{number}_0000{ending}")
        path = folder / f"labelsTr/c{number}{ending}"
        if ending == ".tif":
            tifffile.imwrite(path, label, photometric="minisblack")
        else:
            PIL.Image.fromarray(label).save(path)
    description = {
        "channel_names": dict(enumerate(channels)),
        "labels": {"background": 0, "a": 1},
        "file_ending": ending,
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


def plan_of(folder, recipe="plain-unet", **request):
    return find_plan(
        TrainingSource(folder, dataset=folder), PlanRequest(recipe=recipe, **request), context=CONTEXT
    )


RANGES = [
    ("uint8", 0, 250, (0, 255)),
    ("uint8", 0, 90, (0, 255)),
    ("uint16", 0, 200, (0, 255)),
    ("uint16", 0, 1000, (0, 1023)),
    ("uint16", 0, 4000, (0, 4095)),
    ("uint16", 100, 15000, (0, 16383)),
    ("uint16", 0, 60000, (0, 65535)),
    ("int16", 0, 4095, (0, 4095)),
    ("int16", -100, 900, (-100, 900)),
    ("int32", 0, 100000, (0, 100000)),
    ("float32", 0, 1, (0, 1)),
    ("float32", 0, 0.4, (0, 1)),
    ("float32", -1, 1, (-1, 1)),
    ("float32", 0, 5, (0, 5)),
    ("float32", 0, 254.5, (0, 255)),
    ("float64", 0, 4000.5, (0, 4095)),
]


@pytest.mark.parametrize(("dtype", "low", "high", "full"), RANGES)
def test_plans_scale_colours_by_the_range_of_their_type(tmp_path, dtype, low, high, full):
    folder = write_colours(tmp_path / "raw", *[(dtype, low, high)] * 2)
    plan = plan_of(folder)
    lower, upper = full
    expected = RescaleNormalization(lower=lower, upper=upper)
    assert plan.preprocessing.normalizations == (expected,) * 3
    assert (
        plan_of(folder, "msvm-unet").preprocessing.normalizations
        == (RescaleNormalization(lower=lower, upper=upper, low=-1, high=1),) * 3
    )
    prepared = prepare_store(
        plan, TrainingSource(folder, dataset=folder), tmp_path / "stores", context=CONTEXT
    )
    image = prepared.store.read_image(prepared.store.index.cases[0]).astype(np.float32)
    assert image.max() == pytest.approx((high - lower) / (upper - lower), abs=2e-3)
    assert (image >= image.max()).mean() < 0.05
    assert image.std() > 0.05 or high / upper < 0.5


def test_plans_of_8_bits_have_not_changed(tmp_path):
    folder = write_colours(tmp_path, *[("uint8", 0, 250)] * 3, ending=".png")
    content = json.loads(plan_of(folder).to_json())
    rescale = {"kind": "rescale", "lower": 0.0, "upper": 255.0, "low": 0.0, "high": 1.0}
    assert content["preprocessing"]["normalizations"] == [rescale] * 3
    assert scanseg.check(folder, num_workers=0).lines()[2].startswith("label a:")


@given(
    dtype=st.sampled_from(["uint8", "uint16", "int16", "int32", "float32", "uint8 and uint16"]),
    values=st.tuples(st.floats(-1e5, 1e5), st.floats(-1e5, 1e5)),
)
def test_the_full_range_holds_the_values_and_is_not_empty(dtype, values):
    low, high = sorted(values)
    if dtype == "uint8":
        low, high = sorted((abs(low) % 255, abs(high) % 255))
    lower, upper = IntensityRange(dtype=dtype, minimum=low, maximum=high).full
    assert lower < upper
    assert lower <= low
    assert high <= upper + 2e-3


@pytest.mark.parametrize(
    ("types", "words"),
    [
        ([("uint8", 0, 250), ("uint16", 0, 4000)], "8 bits in 1 case (c0); more than 8 bits in 1 case (c1)"),
        ([("uint8", 0, 250), ("float32", 0, 1)], "0 to 1 in 1 case (c1); 8 bits in 1 case (c0)"),
        ([("float32", 0, 1), ("float32", 0, 255)], "0 to 1 in 1 case (c0); 8 bits in 1 case (c1)"),
        ([("float32", 0, 1), ("uint16", 0, 60000)], "0 to 1 in 1 case (c0); more than 8 bits in 1 case (c1)"),
        (
            [("uint8", 0, 9)] * 3 + [("int16", 0, 900)],
            "8 bits in 3 cases (c0, c1, c2); more than 8 bits in 1 case",
        ),
    ],
)
def test_colours_of_different_scales_are_refused(tmp_path, types, words):
    folder = write_colours(tmp_path, *types)
    with pytest.raises(InputError) as caught:
        scanseg.check(folder, num_workers=0)
    assert f"expected colours of one scale, got {words}" in str(caught.value)
    with pytest.raises(InputError, match="colours of one scale"):
        plan_of(folder)


@pytest.mark.parametrize(
    "types",
    [
        [("uint16", 0, 200), ("uint16", 0, 60000)],
        [("uint8", 0, 250), ("uint16", 0, 200)],
        [("float32", 0, 0.1), ("float32", 0, 1)],
        [("uint8", 0, 1), ("uint8", 0, 250)],
    ],
)
def test_dark_cases_are_no_other_scale(tmp_path, types):
    scanseg.check(write_colours(tmp_path, *types), num_workers=0)


def test_scales_of_other_channels_may_differ(tmp_path):
    types = [("uint8", 0, 250), ("uint16", 0, 4000)]
    scanseg.check(write_colours(tmp_path, *types, channels=("x", "y", "z")), num_workers=0)


def test_check_names_the_range_of_deep_colours(tmp_path, command):
    folder = write_colours(tmp_path, *[("uint16", 0, 4000)] * 2)
    outcome = command("check", folder, "--num-workers", 0)
    assert "colours: 0 to 4000 (uint16)\n" in outcome.stdout
    assert "normalization: R, G, B by the z-score of each image" in outcome.stdout


def test_a_plan_of_other_colours_is_refused(tmp_path):
    bytes_ = write_colours(tmp_path / "bytes", *[("uint8", 0, 250)] * 2)
    deep = write_colours(tmp_path / "deep", *[("uint16", 0, 4000)] * 2)
    plan = plan_of(bytes_)
    model = ModelFolder.create(tmp_path / "model", plan)
    words = r"colours: expected about 0 to 255 as in the plan, got 0 to 4000 \(uint16\)\. Convert the images"
    with pytest.raises(InputError, match=words):
        plan_of(deep, None, like=model.path)
    settings = [
        "preprocessing.normalizations=[" + ",".join(['{"kind":"rescale","lower":0,"upper":4095}'] * 3) + "]"
    ]
    assert plan_of(deep, None, like=model.path, settings=tuple(settings)).dataset_path == str(deep)
    other = plan_of(deep).model_copy(update={"preprocessing": plan.preprocessing})
    with pytest.raises(InputError, match=f"case c0: .*{words}"):
        prepare_store(
            other, TrainingSource(deep, dataset=deep, plan=other), tmp_path / "stores", context=CONTEXT
        )


@pytest.mark.parametrize(
    ("upper", "dtype", "high", "is_far"),
    [
        (255, "uint8", 255, False),
        (255, "uint8", 0, False),
        (255, "uint8", 3, False),
        (255, "uint16", 300, False),
        (255, "uint16", 4000, True),
        (255, "float32", 1, True),
        (255, "float32", 254.0, False),
        (255, "float64", 60000, True),
        (1, "float32", 1, False),
        (1, "float32", 1.3, False),
        (1, "uint8", 200, True),
        (4095, "uint16", 4095, False),
        (4095, "uint16", 300, False),
        (4095, "uint16", 60000, True),
        (4095, "uint8", 250, True),
        (65535, "uint16", 20000, False),
        (65535, "uint8", 250, True),
    ],
)
def test_images_of_another_scale_than_the_plan(upper, dtype, high, is_far):
    found = (IntensityRange(dtype=dtype, minimum=0, maximum=high),) * 3
    normalizations = (RescaleNormalization(lower=0, upper=upper),) * 3
    faults = find_range_faults(found, normalizations, COLOURS)
    assert bool(faults) == is_far
    assert not find_range_faults(found, normalizations, ("x", "y", "z"))
    if is_far:
        assert faults[0].startswith(
            f"colours: expected about 0 to {upper} as in the plan, got 0 to {high:g} ({dtype})"
        )


def test_prediction_warns_of_colours_of_another_scale(tmp_path, command):
    plan = plan_of(write_colours(tmp_path / "raw", *[("uint8", 0, 250)] * 2))
    predictor = Predictor(plan, Threshold(2), device=torch.device("cpu"))
    other = write_colours(tmp_path / "other", ("uint8", 0, 250), ("uint16", 0, 4000), ("float32", 0, 1))
    record = predictor.predict_folder(other / "imagesTr", tmp_path / "out")
    warnings = {case.case: case.warning for case in record.cases}
    assert warnings["c0"] is None
    assert warnings["c1"] == (
        "colours: expected about 0 to 255 as in the plan, got 0 to 4000 (uint16). Convert the images to the type of "
        "the training."
    )
    assert "got 0 to 1 (float32)" in warnings["c2"]


# CT


def statistics(low, median, high):
    return IntensityStatistics(
        mean=median,
        median=median,
        standard_deviation=(high - low) / 5 + 0.01,
        minimum=low,
        maximum=high,
        percentile_00_5=low,
        percentile_99_5=high,
    )


@pytest.mark.parametrize(
    ("found", "window"),
    [
        ((-60.0, 75.0, 210.0), (-125, 275)),
        ((-124.0, 20.0, 274.0), (-125, 275)),
        ((-900.0, -800.0, -500.0), (-900, -500)),  # lungs
        ((200.0, 500.0, 1500.0), (200, 1500)),  # bones
        ((0.2, 0.5, 0.9), (0.2, 0.9)),  # scaled to 0 to 1
        ((1020.0, 1074.0, 1200.0), (1020, 1200)),  # stored values without the intercept
        ((5.0, 5.0, 5.0), (-125, 275)),
    ],
)
def test_the_window_of_ct_shows_the_foreground(found, window):
    fingerprint = make_fingerprint([(3.0, 1.0, 1.0)] * 4, [(20, 64, 64)] * 4, intensities=statistics(*found))
    spec = DatasetSpec(
        name="set", channel_names=("CT",), labels={"background": 0, "a": 1}, file_ending=".nii.gz"
    )
    plan = plan_recipe(fingerprint, spec, recipe="msvm-unet")
    lower, upper = window
    expected = (RescaleNormalization(lower=lower, upper=upper, low=-1, high=1),)
    assert plan.preprocessing.normalizations == expected


@pytest.mark.parametrize(
    ("dtype", "low", "high", "is_hidden"),
    [
        ("int16", -1024, 3000, False),
        ("int16", -125, 275, False),
        ("uint8", 0, 255, False),
        ("float32", 0, 1, True),
        ("int16", -1024, -900, True),
        ("int16", 900, 3000, True),
    ],
)
@pytest.mark.parametrize(
    "normalization",
    [
        RescaleNormalization(lower=-125, upper=275, low=-1, high=1),
        CTNormalization(lower=-125, upper=275, mean=80, standard_deviation=40),
    ],
)
def test_images_outside_the_window_of_the_plan(dtype, low, high, is_hidden, normalization):
    found = (IntensityRange(dtype=dtype, minimum=low, maximum=high),)
    faults = find_hidden_channels(found, (normalization,), ("CT",))
    assert bool(faults) == is_hidden
    if is_hidden:
        assert faults[0].startswith(
            "channel CT: expected intensities in the window from -125 to 275 of the plan, got"
        )


@pytest.mark.parametrize(("dtype", "high"), [("float32", 1), ("uint8", 250)])
def test_check_warns_of_ct_without_hounsfield_units(tmp_path, dtype, high):
    folder = write_colours(tmp_path, *[(dtype, 0, high)] * 2, channels=("CT", "y", "z"))
    report = scanseg.check(folder, num_workers=0)
    words = "channel CT: expected Hounsfield units with air near -1000, got 0 to "
    found = [warning for warning in report.warnings if warning.startswith(words)]
    assert len(found) == 1
    assert f"({dtype}). Save the images with their original intensities" in found[0]
