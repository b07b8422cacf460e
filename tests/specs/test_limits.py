"""Sizes that no computer can hold are refused where documents are read."""

import json
import math

import pytest

from scanseg.errors import InputError, UsageError
from scanseg.preprocessing.case import preprocess_image
from scanseg.settings import apply_settings
from scanseg.sizes import MOST_VOXELS, check_voxels
from scanseg.specs import (
    CaseGeometry,
    EnsembleSpec,
    Plan,
    PreprocessingSpec,
    StoredCase,
    TrainingState,
    ZScoreNormalization,
)
from tests.factories import image_of, make_plan

WRONG = [0, -1, 2**62, 2**63, 10**30]
SIZES = [
    *("sampling.batch_size", "sampling.patch_size.0", "sampling.patch_size.1", "inference.window_batch"),
    *("network.features.0", "network.strides.1.0", "network.kernel_sizes.0.0", "network.num_blocks_encoder"),
    *("training.epochs", "training.iterations_per_epoch", "training.accumulation_steps"),
    *("training.validate_every", "training.validation_batches"),
]


@pytest.mark.parametrize("path", SIZES)
@pytest.mark.parametrize("value", WRONG)
def test_sizes_that_overflow_are_refused(path, value):
    with pytest.raises(UsageError, match=rf"^--set {path}={value}: .*{path}"):
        apply_settings(make_plan(), [f"{path}={value}"])


@pytest.mark.parametrize("value", [1e-300, 1e-9, 0.0, -1.0, 1e6, 1e300])
def test_spacings_of_no_image_are_refused(value):
    with pytest.raises(UsageError, match=r"preprocessing\.spacing"):
        apply_settings(make_plan(), [f"preprocessing.spacing=[1.0, {value}, 1.0]"])


def test_spacings_of_microscopes_and_pictures_are_accepted():
    for spacing in ([4e-6, 4e-6, 4e-6], [999.0, 1.0, 1.0], [None, 0.0005, 0.0005]):
        plan = apply_settings(make_plan(), [f"preprocessing.spacing={json.dumps(spacing)}"])
        assert list(plan.preprocessing.spacing) == spacing


def test_a_batch_has_a_largest_size(tmp_path):
    content = json.loads(make_plan().to_json())
    content["sampling"] = {"patch_size": [60_000, 60_000], "batch_size": 60_000}
    (tmp_path / "plan.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"plan\.json: .*expected at most 4\.3e\+09 voxels in a batch"):
        Plan.read(tmp_path / "plan.json")


GEOMETRY = {
    "num_axes": 3,
    "source_shape": (10, 20, 30),
    "source_spacing": (1.0, 1.0, 1.0),
    "axis_order": (0, 1, 2),
    "crop_start": (0, 0, 0),
    "crop_shape": (10, 20, 30),
    "shape": (10, 20, 30),
}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"shape": (10**9, 10**9, 10**9)}, "shape: expected at most"),
        ({"shape": (0, 20, 30)}, "shape.0: Input should be greater than 0"),
        ({"shape": (2**62, 1, 1)}, "shape: expected at most"),
        ({"source_shape": (10**9,) * 3, "crop_shape": (1, 1, 1)}, "source_shape: expected at most"),
        ({"source_shape": (20, 30)}, "expected 3 axes"),
        ({"source_spacing": (1.0, 0.0, 1.0)}, "source_spacing.1"),
        ({"source_spacing": (1.0, 1.0)}, "expected 3 axes"),
        ({"axis_order": (0, 0, 1)}, "permutation"),
        ({"axis_order": (0, 1, 7)}, "permutation"),
        ({"axis_order": (2, 1, 0)}, r"expected a part of \(30, 20, 10\) voxels"),
        ({"crop_start": (1, 0, 0)}, "expected a part of"),
        ({"crop_start": (-1, 0, 0)}, "crop_start.0"),
    ],
)
def test_the_geometry_of_a_stored_case_is_checked(tmp_path, changed, words):
    (tmp_path / "case.json").write_text(json.dumps(GEOMETRY))
    CaseGeometry.read(tmp_path / "case.json")
    (tmp_path / "case.json").write_text(json.dumps(GEOMETRY | changed))
    with pytest.raises(InputError, match=words):
        CaseGeometry.read(tmp_path / "case.json")


@pytest.mark.parametrize("members", [["."], [""], ["a", "../b"], ["/models/a"], ["a/../.."], ["a\\b"], []])
def test_members_of_an_ensemble_are_inside_its_folder(tmp_path, members):
    """A member `.` would contain itself."""
    (tmp_path / "ensemble.json").write_text(json.dumps({"members": members}))
    with pytest.raises(InputError, match=r"ensemble\.json: .*members"):
        EnsembleSpec.read(tmp_path / "ensemble.json")


@pytest.mark.parametrize(
    "changed",
    [
        {"iterations_done": -1},
        {"iterations_done": 10**30},
        {"training_seconds": -1.0},
        {"loss_scale": -2.0},
        {"progress": {"epochs_done": -5}},
        {"optimizer_groups": 3},
    ],
)
def test_the_state_of_a_checkpoint_is_checked(tmp_path, changed):
    content = {"iterations_done": 1, "training_seconds": 1.0, "optimizer_groups": []}
    (tmp_path / "state.json").write_text(json.dumps(content | changed))
    with pytest.raises(InputError, match=next(iter(changed))):
        TrainingState.read(tmp_path / "state.json")


@pytest.mark.parametrize("shape", [(0, 2), (2, -1), (2**33,), (2**40, 2**40), (10**30, 1)])
def test_arrays_are_refused_before_memory_is_allocated(shape):
    with pytest.raises(
        InputError, match=r"^case a: expected sizes of at least 1 and at most 4\.3e\+09 voxels"
    ):
        check_voxels(shape, "case a")


def test_the_largest_array_is_accepted():
    check_voxels((2**16, 2**16), "case a")
    check_voxels((), "case a")
    assert math.prod((2**16, 2**16)) == MOST_VOXELS


@pytest.mark.parametrize("spacing", [1e6, 1e9, 1e300])
def test_an_image_with_a_wrong_spacing_is_not_resampled(rng, spacing):
    image = image_of(rng.random((1, 8, 8, 8)), spacing=(1.0, 1.0, spacing))
    spec = PreprocessingSpec(normalizations=(ZScoreNormalization(),), spacing=(1.0, 1e-6, 1e-6))
    with pytest.raises(
        InputError, match=r"^resampling of \(8, 8, 8\) voxels of .* mm to voxels of .* mm: expected"
    ):
        preprocess_image(image, spec)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", "/a", "a\\b", "x" * 241])
def test_names_of_stored_cases_are_names_of_files(tmp_path, name):
    content = {"case": name, "geometry": GEOMETRY, "label_values": []}
    (tmp_path / "case.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"case\.json: .*case: "):
        StoredCase.read(tmp_path / "case.json")
