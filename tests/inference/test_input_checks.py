"""Checks of images before they are segmented, and warnings before the first case."""

import numpy as np
import pytest
import torch

from scanseg.errors import InputError, ScansegError, UsageError
from scanseg.imaging import Image, write_label_map
from scanseg.inference import plan_predictor
from scanseg.inference.input_checks import growth_hint
from scanseg.specs import CaseGeometry, CTNormalization, PredictionRecord
from tests.factories import image_of, write_volume

RANGE = ((1.0, 1.0, 1.0), (2.0, 1.0, 1.0))


def with_plan(predictor, **changes):
    """Set the spacings of the training, and other fields of the plan."""
    preprocessing = predictor.plan.preprocessing.model_copy(
        update={"spacing": (1.0, 1.0, 1.0), **changes.pop("preprocessing", {})}
    )
    predictor.plan = predictor.plan.model_copy(
        update={"spacing_range": RANGE, "preprocessing": preprocessing, **changes}
    )
    return predictor


def write_images(folder, spacings):
    folder.mkdir()
    array = np.eye(8, dtype=np.float32)[None].repeat(5, axis=0)
    for name, spacing in spacings.items():
        write_volume(folder / f"{name}_0000.nii.gz", array, spacing)
    return folder


def test_warnings_come_before_the_first_case(make_predictor, tmp_path):
    folder = write_images(tmp_path / "in", {"a": (1, 1, 1), "b": (6, 6, 6), "c": (0.1, 1, 1)})
    (folder / "notes.txt").touch()
    updates = []
    record = with_plan(make_predictor()).predict_folder(folder, tmp_path / "out", progress=updates.append)
    first = updates[0]
    assert (first.done, first.total, first.detail) == (0, 3, "a")
    assert any("1 file skipped" in warning for warning in first.warnings)
    named = [warning for warning in first.warnings if warning.startswith("case ")]
    assert [warning.partition(":")[0] for warning in named] == ["case b", "case c"]
    assert "expected about 1 x 1 x 1 to 2 x 1 x 1 mm as in the training, got 6 x 6 x 6 mm" in named[0]
    assert not any(update.warnings for update in updates[1:])
    assert [case.warning is None for case in record.cases] == [True, False, False]


@pytest.mark.parametrize("spacing", [(1000, 1000, 1000), (1e6, 1e6, 1e6), (3000, 300, 1000)])
def test_absurd_sizes_are_refused_before_memory_is_allocated(make_predictor, tmp_path, spacing):
    folder = write_images(tmp_path / "in", {"a": (1, 1, 1), "b": spacing})
    with pytest.raises(
        InputError, match=r"case b: .*spacing \(z, y, x\): expected at most about 2 x 1 x 1 mm"
    ):
        with_plan(make_predictor()).predict_folder(folder, tmp_path / "out")
    cases = PredictionRecord.read(tmp_path / "out" / "prediction.json").cases
    assert [case.fault is None for case in cases] == [True, False]


def test_an_array_of_an_absurd_spacing_is_refused(make_predictor):
    predictor = with_plan(make_predictor())
    with pytest.raises(InputError, match="which makes 8000 x 8000 x 8000 voxels of 8 x 8 x 8"):
        predictor.predict(np.zeros((8, 8, 8)), spacing=(1000, 1000, 1000))


def test_a_large_spacing_of_a_small_image_is_predicted(make_predictor):
    prediction = with_plan(make_predictor()).predict(np.eye(8)[None].repeat(4, axis=0), spacing=(6, 6, 6))
    assert prediction.label_map.shape == (4, 8, 8)


@pytest.mark.parametrize("low", [0, 24, -40])
def test_ct_without_its_offset_gets_a_warning(make_predictor, tmp_path, low):
    ct = CTNormalization(lower=-100, upper=200, mean=60, standard_deviation=40)
    predictor = with_plan(make_predictor(), preprocessing={"normalizations": (ct,)})
    folder = tmp_path / "in"
    rng = np.random.default_rng(0)
    write_volume(folder / "a_0000.nii.gz", rng.integers(-1000, 900, (5, 8, 8)).astype(np.int16), (1, 1, 1))
    write_volume(folder / "b_0000.nii.gz", rng.integers(low, 1900, (5, 8, 8)).astype(np.int16), (1, 1, 1))
    updates = []
    record = predictor.predict_folder(folder, tmp_path / "out", progress=updates.append)
    assert record.cases[0].warning is None
    assert "channel MRI: expected Hounsfield units with air near -1000, got " in record.cases[1].warning
    assert [w for update in updates for w in update.warnings][-1] == f"case b: {record.cases[1].warning}"


def test_a_constant_image_gets_a_warning(make_predictor, tmp_path):
    write_volume(tmp_path / "in" / "a_0000.nii.gz", np.full((5, 8, 8), 7, np.int16), (1, 1, 1))
    record = make_predictor().predict_folder(tmp_path / "in", tmp_path / "out")
    assert record.cases[0].warning == "channel MRI: expected different intensities, got 7 everywhere."


def test_a_case_without_a_channel_does_not_stop_the_others(make_predictor, tmp_path):
    folder = tmp_path / "in"
    array = np.eye(8, dtype=np.float32)[None].repeat(5, axis=0)
    for name in ("a_0000", "a_0001", "b_0000", "c_0000", "c_0001", "c_0002", "d"):
        write_volume(folder / f"{name}.nii.gz", array, (1, 1, 1))
    predictor = make_predictor(dataset={"channel_names": ("T1", "T2")})
    with pytest.raises(InputError) as caught:
        predictor.predict_folder(folder, tmp_path / "out")
    message = str(caught.value)
    for words in (
        "case b: missing b_0001.nii.gz. Add",
        "case c: c_0002.nii.gz beyond the 2 channels",
        "case d: d.nii.gz: expected a channel number",
    ):
        assert words in message
    assert (tmp_path / "out" / "a.nii.gz").is_file()
    cases = PredictionRecord.read(tmp_path / "out" / "prediction.json").cases
    assert [(case.case, case.label_map) for case in cases] == [
        ("a", "a.nii.gz"),
        ("d", None),
        ("b", None),
        ("c", None),
    ]


def test_only_faulty_cases_are_refused_before_any_work(make_predictor, tmp_path):
    write_volume(tmp_path / "in" / "b_0000.nii.gz", np.zeros((5, 8, 8), np.int16), (1, 1, 1))
    predictor = make_predictor(dataset={"channel_names": ("T1", "T2")})
    with pytest.raises(InputError, match=r"case b: missing b_0001\.nii\.gz"):
        predictor.predict_folder(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()


class FakeArray:
    """An array of an unknown library."""

    def __array__(self):
        return np.zeros((8, 8, 8))


FOREIGN = {
    "torch.Tensor": (torch.zeros(1, 8, 8, 8), r"tensor\.cpu\(\)\.numpy\(\) with spacing="),
    "FakeArray": (FakeArray(), r"numpy\.asarray\(object\)"),
    "a list of numpy.ndarray": ([np.zeros((8, 8))], r"numpy\.stack"),
    "a list of torch.Tensor": ([torch.zeros(8, 8)], r"tensor\.cpu\(\)"),
    "NoneType": (None, "Give its file"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_objects_of_other_libraries_are_named_with_their_conversion(make_predictor, kind):
    source, advice = FOREIGN[kind]
    with pytest.raises(UsageError, match=rf"^image: expected a .*got \S*{kind}\. .*{advice}"):
        make_predictor().predict(source)
    with pytest.raises(UsageError, match=r"^source: expected the path of a file or folder, got"):
        make_predictor().predict_folder(source, "out")


@pytest.mark.parametrize("error", [MemoryError("no"), torch.OutOfMemoryError("no")])
def test_messages_about_memory_name_the_spacing_that_is_the_cause(make_predictor, monkeypatch, error):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(plan_predictor, "predict_slabs", fail)
    predictor = make_predictor(preprocessing={"spacing": (1.0, 1.0, 1.0)})
    with pytest.raises(
        ScansegError, match=r"spacing of 4 x 4 x 4 mm makes it 64 times larger\. Check the header"
    ):
        predictor.predict(np.eye(8)[None].repeat(4, axis=0), spacing=(4, 4, 4))
    with pytest.raises(ScansegError, match=r"network's grid\. Use another device"):
        predictor.predict(np.eye(8)[None].repeat(4, axis=0), spacing=(1, 1, 1))


def test_no_hint_for_an_image_of_about_its_size():
    geometry = CaseGeometry(
        num_axes=3,
        source_shape=(8, 8, 8),
        source_spacing=(1.0, 1.0, 1.0),
        axis_order=(0, 1, 2),
        crop_start=(0, 0, 0),
        crop_shape=(8, 8, 8),
        shape=(16, 16, 16),
    )
    assert growth_hint(geometry) == ""


def test_the_host_refuses_more_than_its_memory(make_predictor, monkeypatch):
    from scanseg.preprocessing import case

    monkeypatch.setattr(case, "physical_memory", lambda: 1 << 20)
    predictor = make_predictor(preprocessing={"spacing": (1.0, 1.0, 1.0)})
    image = image_of(np.eye(8, dtype=np.float32)[None, None].repeat(8, axis=1), spacing=(20.0, 20.0, 20.0))
    with pytest.raises(
        InputError, match=r"resampling: expected at most .* from a spacing of 20 x 20 x 20 mm"
    ):
        predictor.predict(image)


def test_a_picture_for_a_plan_of_volumes_is_compared_along_y_and_x(make_predictor):
    predictor = with_plan(make_predictor(patch_size=(8, 8)))
    array = np.eye(8, dtype=np.float32)[None]
    far, near = (
        Image(array, spacing=spacing, origin=(0.0, 0.0), direction=(1.0, 0.0, 0.0, 1.0))
        for spacing in ((6.0, 6.0), (1.0, 1.0))
    )
    (warning,) = (each for each in predictor.predict(far).warnings if "spacing" in each)
    assert "spacing (y, x): expected about 1 x 1 mm as in the training, got 6 x 6 mm" in warning
    assert not [each for each in predictor.predict(near).warnings if "spacing" in each]


def test_a_prediction_has_its_warnings(make_predictor):
    """The folder is not the only way to them."""
    predictor, updates = with_plan(make_predictor(), preprocessing={"orientation": None}), []
    array = np.eye(8, dtype=np.float32)[None].repeat(5, axis=0)
    prediction = predictor.predict(array, spacing=(6, 6, 6), progress=updates.append)
    spacing, orientation = prediction.warnings
    assert "got 6 x 6 x 6 mm" in spacing
    assert "the plan has no orientation" in orientation
    assert [update.warnings for update in updates if update.warnings] == [prediction.warnings]
    oriented = with_plan(make_predictor(), preprocessing={"orientation": "RAS"})
    assert oriented.predict(array, spacing=(1, 1, 1)).warnings == ()


def test_a_case_gets_its_warnings_in_the_update_after_it(make_predictor, tmp_path):
    """Warnings about the header come before the first case, and not again."""
    folder = tmp_path / "in"
    folder.mkdir()
    write_volume(folder / "a_0000.nii.gz", np.zeros((5, 8, 8), np.float32), (6, 6, 6))
    updates = []
    record = with_plan(make_predictor()).predict_folder(folder, tmp_path / "out", progress=updates.append)
    assert [(update.done, update.total) for update in updates if update.warnings] == [(0, 1), (1, 1)]
    (after,) = updates[-1].warnings
    assert after.startswith("case a: channel MRI: expected different intensities")
    assert "spacing" not in after
    assert "spacing" in record.cases[0].warning
    assert "orientation" not in record.cases[0].warning


@pytest.mark.parametrize(
    ("ending", "of_training", "warned"),
    [(".tif", ".nii.gz", True), (".nii.gz", ".nii.gz", False), (".tif", ".tif", False)],
)
def test_volumes_without_orientation_get_a_warning(make_predictor, tmp_path, ending, of_training, warned):
    predictor = with_plan(
        make_predictor(dataset={"file_ending": of_training}), preprocessing={"orientation": "RAS"}
    )
    path = tmp_path / f"a{ending}"
    array = np.eye(8, dtype=np.float32)[None].repeat(5, axis=0)
    write_label_map(path, array.astype(np.uint8), like=image_of(array[None]))
    warnings = predictor.predict(path).warnings
    assert any("got a TIFF, which is read as LPS" in warning for warning in warnings) == warned
