"""The orientation of a data set: found, planned, reported, and used for labels of the left and the right side."""

import json

import numpy as np
import pytest
import SimpleITK

from scanseg.dataset import check_dataset, compute_fingerprint, open_dataset
from scanseg.imaging import direction_of
from scanseg.planning import PlanRequest, TrainingSource, find_plan
from scanseg.planning.augmentations import mirror_axes
from scanseg.preprocessing import store_name
from scanseg.runtime import RunContext
from scanseg.specs import DatasetSpec, MirrorTransform, PreprocessingSpec, ZScoreNormalization

CONTEXT = RunContext(num_workers=0)


def write_case(folder, name, codes, *, shape, spacing):
    """Write a volume with a box; shape and spacing along z, y, x as stored."""
    label_map = np.zeros(shape, dtype=np.uint8)
    label_map[2:5, 3:9, 3:9] = 1
    rng = np.random.default_rng(0)
    for part, array in (("imagesTr", rng.normal(size=shape) + label_map), ("labelsTr", label_map)):
        image = SimpleITK.GetImageFromArray(array)
        image.SetSpacing(spacing[::-1])
        image.SetDirection(direction_of(codes))
        (folder / part).mkdir(parents=True, exist_ok=True)
        SimpleITK.WriteImage(
            image, str(folder / part / f"{name}{'_0000' if part == 'imagesTr' else ''}.nii.gz")
        )


@pytest.fixture
def mixed(tmp_path):
    """Two axial cases in RAS, one in LPS, and one sagittal case whose axes are stored in another order."""
    folder = tmp_path / "mixed"
    for name, codes in (("a", "RAS"), ("b", "RAS"), ("c", "LPS")):
        write_case(folder, name, codes, shape=(16, 20, 24), spacing=(3.0, 1.0, 0.5))
    write_case(folder, "d", "ASR", shape=(24, 16, 20), spacing=(0.5, 3.0, 1.0))
    description = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "kidney_left": 1},
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


def test_the_most_frequent_orientation_is_that_of_the_data_set(mixed):
    fingerprint = compute_fingerprint(open_dataset(mixed), context=CONTEXT)

    assert fingerprint.orientation == "RAS"
    assert [case.orientation for case in fingerprint.cases] == ["RAS", "RAS", "LPS", "ASR"]
    assert {case.spacing for case in fingerprint.cases} == {(3.0, 1.0, 0.5)}
    assert {case.source_shape for case in fingerprint.cases} == {(16, 20, 24)}


def test_mixed_orientations_are_reported(mixed):
    report = check_dataset(open_dataset(mixed), context=CONTEXT)

    assert report.orientations == {"RAS": 2, "LPS": 1, "ASR": 1}
    assert "orientation: RAS in 2 cases, LPS in 1 case, ASR in 1 case" in report.lines()
    (warning,) = [text for text in report.warnings if text.startswith("orientation")]
    assert warning == (
        "orientation: 2 cases in RAS, and c LPS, d ASR. Training and prediction bring all of them to RAS"
    )


def test_the_plan_holds_the_orientation_and_its_spacings(mixed):
    plan = find_plan(TrainingSource(mixed, dataset=mixed), PlanRequest(recipe="plain-unet"), context=CONTEXT)

    assert plan.preprocessing.orientation == "RAS"
    assert plan.spacing_range == ((3.0, 1.0, 0.5), (3.0, 1.0, 0.5))
    (mirror,) = [transform for transform in plan.augmentation if isinstance(transform, MirrorTransform)]
    assert plan.inference.mirror_axes == mirror.axes == (0, 1)
    request = PlanRequest(recipe="plain-unet", settings=("preprocessing.orientation=null",))
    assert (
        find_plan(TrainingSource(mixed, dataset=mixed), request, context=CONTEXT).preprocessing.orientation
        is None
    )


@pytest.mark.parametrize(
    ("orientation", "axis_order", "num_patch_axes", "expected"),
    [
        ("RAS", (0, 1, 2), 3, (0, 1)),
        ("LPI", (0, 1, 2), 3, (0, 1)),
        ("ASR", (0, 1, 2), 3, (1, 2)),
        ("SRA", (0, 1, 2), 3, (0, 2)),
        ("ASR", (0, 1, 2), 2, (0, 1)),
        ("ASR", (1, 0, 2), 2, (1,)),
        ("RAS", (2, 0, 1), 3, (1, 2)),
        (None, (0, 1, 2), 2, (0,)),
    ],
)
def test_labels_by_side_are_not_mirrored_from_left_to_right(
    orientation, axis_order, num_patch_axes, expected
):
    labels = {"background": 0, "left ventricle of the brain": 1}
    dataset = DatasetSpec(name="x", channel_names=("MRI",), labels=labels, file_ending=".nii.gz")
    found = mirror_axes(
        dataset, axis_order=axis_order, num_patch_axes=num_patch_axes, orientation=orientation
    )
    assert found == expected


def test_stores_of_plans_without_an_orientation_keep_their_names():
    spec = PreprocessingSpec(normalizations=(ZScoreNormalization(),))
    assert store_name("heart", spec, source="/data/heart") == "heart-04a2a399"
    oriented = spec.model_copy(update={"orientation": "RAS"})
    assert store_name("heart", oriented, source="/data/heart") != store_name(
        "heart", spec, source="/data/heart"
    )


@pytest.mark.parametrize("codes", ["RA", "RAR", "RLS", "XYZ", "RASS", "", "ras"])
def test_other_codes_are_refused(codes):
    with pytest.raises(ValueError, match="orientation: expected one letter of each of R/L, A/P and S/I"):
        PreprocessingSpec(normalizations=(ZScoreNormalization(),), orientation=codes)
