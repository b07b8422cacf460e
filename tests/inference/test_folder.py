import errno
import hashlib
import json
import time

import numpy as np
import pytest
import SimpleITK
import torch
from PIL import Image as Picture
from torch import nn

from scanseg.dataset import find_images
from scanseg.errors import InputError, ScansegError, UsageError
from scanseg.evaluation import evaluate
from scanseg.imaging import Image, read_image, read_label_map, write_label_map
from scanseg.inference import case_files
from scanseg.runtime import RunContext
from scanseg.specs import PredictionRecord
from tests.factories import Threshold, write_labels


@pytest.fixture
def volumes(tmp_path, rng):
    """Folder of two cases, and their arrays."""
    folder = tmp_path / "images"
    folder.mkdir()
    arrays = {case: rng.integers(0, 2, (5, 6, 7)).astype(np.uint8) for case in ("a", "b")}
    for case, array in arrays.items():
        write_labels(folder / f"{case}_0000.nii.gz", array)
    return folder, arrays


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_folder(make_predictor, volumes, tmp_path):
    folder, arrays = volumes
    output = tmp_path / "new" / "labels"
    record = make_predictor().predict_folder(folder, output)
    assert names(output) == ["a.nii.gz", "b.nii.gz", "dataset.json", "prediction.json"]
    for case, array in arrays.items():
        np.testing.assert_array_equal(read_label_map(output / f"{case}.nii.gz").array[0], array)
    assert PredictionRecord.read(output / "prediction.json") == record
    assert [case.case for case in record.cases] == ["a", "b"]
    assert record.cases[0].images == (str(folder / "a_0000.nii.gz"),)
    content = (folder / "a_0000.nii.gz").read_bytes()
    assert record.cases[0].checksums == (hashlib.sha256(content).hexdigest(),)
    assert (record.cases[0].label_map, record.cases[0].fault) == ("a.nii.gz", None)
    assert record.versions["scanseg"]
    assert (record.precision, record.recipe, record.mirror) == ("float32", "test", False)


def test_evaluate_finds_the_names(make_predictor, volumes, tmp_path):
    folder, arrays = volumes
    make_predictor().predict_folder(folder, tmp_path / "out")
    (tmp_path / "references").mkdir()
    for case, array in arrays.items():
        write_labels(tmp_path / "references" / f"{case}.nii.gz", array)
    report = evaluate(tmp_path / "out", tmp_path / "references", context=RunContext(num_workers=0))
    assert report.summary.label_means() == {"bright": 1.0}


def test_one_file_of_another_ending(make_predictor, tmp_path):
    array = np.eye(6, dtype=np.uint8)[None].repeat(5, axis=0)
    write_labels(tmp_path / "scan.nrrd", array)
    make_predictor().predict_folder(tmp_path / "scan.nrrd", tmp_path / "out")
    np.testing.assert_array_equal(read_label_map(tmp_path / "out" / "scan.nrrd").array[0], array)


def test_pictures_as_jpeg_become_png(make_predictor, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    Picture.fromarray(np.full((9, 8, 3), 200, np.uint8)).save(folder / "frame.jpg")
    predictor = make_predictor(
        num_axes=2, patch_size=(8, 8), dataset={"channel_names": ("R", "G", "B"), "file_ending": ".jpg"}
    )
    predictor.predict_folder(folder, tmp_path / "out")
    assert names(tmp_path / "out") == ["colours", "dataset.json", "frame.png", "prediction.json"]
    with Picture.open(tmp_path / "out" / "colours" / "frame.png") as picture:
        assert picture.convert("RGB").getpixel((0, 0)) == (0x00, 0x72, 0xB2)
    assert read_label_map(tmp_path / "out" / "frame.png").array.all()


def test_pictures_have_the_colours_of_the_data_set(make_predictor, tmp_path):
    Picture.fromarray(np.full((9, 8), 200, np.uint8)).save(tmp_path / "a.png")
    spec = {"file_ending": ".png", "label_colours": {"bright": "#ff0102"}}
    predictor = make_predictor(num_axes=2, patch_size=(8, 8), dataset=spec)
    predictor.predict_folder(tmp_path / "a.png", tmp_path / "out")
    with Picture.open(tmp_path / "out" / "colours" / "a.png") as picture:
        assert picture.convert("RGB").getpixel((0, 0)) == (0xFF, 0x01, 0x02)
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["label_colours"] == {
        "bright": "#ff0102"
    }


@pytest.mark.parametrize("mode", ["L", "LA", "1", "I;16"])
def test_a_grey_picture_is_segmented_as_colours_with_a_warning(make_predictor, tmp_path, mode):
    values = np.zeros((9, 8), np.uint8)
    values[2:5, 1:7] = 255
    grey = Picture.fromarray(values.astype(np.uint16) if mode == "I;16" else values)
    (grey if mode == "I;16" else grey.convert(mode)).save(tmp_path / "a.png")
    dataset = {"channel_names": ("R", "G", "B"), "file_ending": ".png"}
    predictor = make_predictor(num_axes=2, patch_size=(8, 8), dataset=dataset)

    report = predictor.predict_folder(tmp_path / "a.png", tmp_path / "out")

    np.testing.assert_array_equal(read_label_map(tmp_path / "out" / "a.png").array[0], values > 0)
    (case,) = report.cases
    assert "grey picture" in case.warning
    prediction = predictor.predict(values)
    np.testing.assert_array_equal(prediction.label_map, values > 0)


def test_files_of_numbered_channels_are_no_grey_pictures(make_predictor, tmp_path):
    for number in range(2):
        Picture.fromarray(np.zeros((9, 8), np.uint8)).save(tmp_path / f"a_000{number}.png")
    dataset = {"channel_names": ("R", "G", "B"), "file_ending": ".png"}
    predictor = make_predictor(num_axes=2, patch_size=(8, 8), dataset=dataset)
    with pytest.raises(InputError, match=r"missing a_0002\.png"):
        predictor.predict_folder([tmp_path / "a_0000.png", tmp_path / "a_0001.png"], tmp_path / "out")


def test_probabilities(make_predictor, volumes, tmp_path):
    folder, arrays = volumes
    make_predictor().predict_folder(folder, tmp_path / "out", probabilities=True)
    with np.load(tmp_path / "out" / "a.npz") as stored:
        probabilities = stored["probabilities"]
    assert probabilities.shape == (2, 5, 6, 7)
    np.testing.assert_array_equal(probabilities[1] > 0.5, arrays["a"] == 1)


def test_progress(make_predictor, volumes, tmp_path):
    updates = []
    make_predictor().predict_folder(volumes[0], tmp_path / "out", progress=updates.append)
    assert (updates[0].done, updates[0].detail) == (0, "a")
    assert (updates[-1].done, updates[-1].total, updates[-1].detail) == (2, 2, "b")
    assert "a, window 1 of 1" in [progress.detail for progress in updates]
    assert {progress.task for progress in updates} == {"predicting"}


def test_a_bad_case_does_not_stop_the_others(make_predictor, volumes, tmp_path):
    folder, arrays = volumes
    (folder / "a_0000.nii.gz").write_bytes(b"no image")
    output = tmp_path / "out"
    with pytest.raises(InputError, match=r"case a: .*a_0000\.nii\.gz"):
        make_predictor().predict_folder(folder, output)
    assert names(output) == ["b.nii.gz", "dataset.json", "prediction.json"]
    np.testing.assert_array_equal(read_label_map(output / "b.nii.gz").array[0], arrays["b"])
    cases = json.loads((output / "prediction.json").read_text())["cases"]
    assert cases[0]["label_map"] is None
    assert "a_0000.nii.gz" in cases[0]["fault"]
    assert cases[1]["fault"] is None


def test_all_bad_cases_are_reported(make_predictor, volumes, tmp_path):
    class Broken(nn.Module):
        def forward(self, batch):
            return batch.new_full((len(batch), 2, *batch.shape[2:]), float("nan"))

    with pytest.raises(ScansegError, match=r"case a: .*finite.*\n.*case b: .*finite"):
        make_predictor(Broken()).predict_folder(volumes[0], tmp_path / "out")
    assert names(tmp_path / "out") == ["dataset.json", "prediction.json"]


def test_other_errors_propagate(make_predictor, volumes, tmp_path):
    class Buggy(nn.Module):
        def forward(self, batch):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        make_predictor(Buggy()).predict_folder(volumes[0], tmp_path / "out")


def test_results_are_replaced_only_with_overwrite(make_predictor, volumes, tmp_path):
    folder, arrays = volumes
    output = tmp_path / "out"
    predictor = make_predictor()
    predictor.predict_folder(folder, output)
    write_labels(output / "a.nii.gz", 1 - arrays["a"])
    message = (
        r"a\.nii\.gz, b\.nii\.gz, prediction\.json would be replaced\. .*by --skip-existing, .*by --overwrite"
    )
    with pytest.raises(UsageError, match=message):
        predictor.predict_folder(folder, output)
    np.testing.assert_array_equal(read_label_map(output / "a.nii.gz").array[0], 1 - arrays["a"])
    predictor.predict_folder(folder, output, overwrite=True)
    np.testing.assert_array_equal(read_label_map(output / "a.nii.gz").array[0], arrays["a"])


def test_files_of_other_endings_get_a_warning(make_predictor, volumes, tmp_path):
    folder, arrays = volumes
    other = tmp_path / "other"
    other.mkdir()
    write_labels(other / "c_0000.nii.gz", arrays["a"])
    for name in ("x.png", "y.TIF", "notes.txt", "1.2.840.dcm", "README"):
        (folder / name).touch()
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "dataset.json", "prediction.json", "._a_0000.nii"):
        (folder / name).touch()
        (other / name).touch()

    record = make_predictor().predict_folder([folder, other], tmp_path / "out")

    assert record.warnings == (
        f"{folder}: 5 files skipped (1 in .dcm, 1 in README, 1 in .txt, 1 in .png, 1 in .TIF). The model was trained "
        "on volumes. Give an image of another kind by its name.",
    )
    assert PredictionRecord.read(tmp_path / "out" / "prediction.json").warnings == record.warnings
    assert [case.case for case in record.cases] == ["a", "b", "c"]


def test_a_folder_of_mixed_formats(make_predictor, volumes, tmp_path):
    folder, arrays = volumes
    write_labels(folder / "c.nii", arrays["a"])
    write_labels(folder / "d.NII.GZ", arrays["b"])
    write_labels(folder / "e_0000.nrrd", arrays["a"])
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(arrays["b"]), str(folder / "f.mhd"))
    record = make_predictor().predict_folder(folder, tmp_path / "out")
    assert record.warnings == ()
    written = {case.case: case.label_map for case in record.cases}
    assert written == {
        "a": "a.nii.gz",
        "b": "b.nii.gz",
        "c": "c.nii",
        "d": "d.nii.gz",
        "e": "e.nrrd",
        "f": "f.mha",
    }
    for case, like in zip("cdef", "abab", strict=True):
        np.testing.assert_array_equal(read_label_map(tmp_path / "out" / written[case]).array[0], arrays[like])


def test_a_folder_of_jpeg_for_a_model_of_png(make_predictor, tmp_path):
    """A converted data set holds PNG, also if its pictures were JPEG."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a.jpg", "b.JPEG", "c.png", "d.bmp"):
        Picture.fromarray(np.full((9, 8, 3), 200, np.uint8)).save(folder / name)
    predictor = make_predictor(
        num_axes=2, patch_size=(8, 8), dataset={"channel_names": ("R", "G", "B"), "file_ending": ".png"}
    )
    record = predictor.predict_folder(folder, tmp_path / "out")
    assert record.warnings == ()
    assert [case.label_map for case in record.cases] == ["a.png", "b.png", "c.png", "d.bmp"]


def test_one_case_under_two_endings_is_faulty(make_predictor, volumes, tmp_path):
    folder, arrays = volumes
    write_labels(folder / "a.nrrd", arrays["a"])
    with pytest.raises(
        InputError, match=r"case a: a\.nrrd and a_0000\.nii\.gz have the same name\. Rename all but one"
    ):
        make_predictor().predict_folder(folder, tmp_path / "out")
    assert names(tmp_path / "out") == ["b.nii.gz", "dataset.json", "prediction.json"]


def test_a_folder_of_the_other_kind(make_predictor, tmp_path):
    """Stacks as TIFF are segmented by a model of NIfTI volumes if the folder holds no volumes."""
    folder = tmp_path / "images"
    folder.mkdir()
    array = np.eye(6, dtype=np.uint8)[None].repeat(5, axis=0)
    write_labels(folder / "stack.tif", array)
    record = make_predictor().predict_folder(folder, tmp_path / "out")
    assert [case.label_map for case in record.cases] == ["stack.tif"]
    np.testing.assert_array_equal(read_label_map(tmp_path / "out" / "stack.tif").array[0], array)


def test_a_spacing_far_from_the_training_gets_a_warning(make_predictor, volumes, tmp_path):
    folder, _ = volumes
    predictor = make_predictor()
    record = predictor.predict_folder(folder, tmp_path / "unknown")
    assert [case.warning for case in record.cases] == [None, None]

    sizes = SimpleITK.ReadImage(str(folder / "a_0000.nii.gz")).GetSpacing()[::-1]
    near = (tuple(0.6 * size for size in sizes), tuple(0.9 * size for size in sizes))
    predictor.plan = predictor.plan.model_copy(update={"spacing_range": near})
    record = predictor.predict_folder(folder, tmp_path / "near")
    assert [case.warning for case in record.cases] == [None, None]

    far = tuple(3 * size for size in sizes)
    predictor.plan = predictor.plan.model_copy(update={"spacing_range": (far, far)})
    record = predictor.predict_folder(folder, tmp_path / "out")
    warning = "spacing (z, y, x): expected about {} mm as in the training, got {} mm. Check the header."
    actual, expected = (" x ".join(f"{size:.3g}" for size in each) for each in (sizes, far))
    assert [case.warning for case in record.cases] == [warning.format(expected, actual)] * 2
    assert PredictionRecord.read(tmp_path / "out" / "prediction.json").cases == record.cases


def test_the_spacing_of_a_tiff_is_no_other_file(tmp_path):
    for name in ("a_0000.tif", "a.json", "b.json"):
        (tmp_path / name).touch()
    (warning,) = find_images(tmp_path, file_ending=".tif", num_channels=1).warnings
    assert warning.startswith(f"{tmp_path}: 1 file skipped (1 in .json)")


def test_raw_files_of_a_header_get_no_warning(make_predictor, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a", "b"):
        image = SimpleITK.GetImageFromArray(np.eye(6, dtype=np.uint8)[None].repeat(5, axis=0))
        SimpleITK.WriteImage(image, str(folder / f"{name}.mhd"))
    assert (folder / "a.raw").is_file()
    predictor = make_predictor(dataset={"channel_names": ("MR",), "file_ending": ".mhd"})
    assert predictor.predict_folder(folder, tmp_path / "out").warnings == ()
    (folder / "c.raw").touch()
    record = predictor.predict_folder(folder, tmp_path / "again")
    assert "1 file skipped (1 in .raw)" in record.warnings[0]


def test_images_and_data_sets_are_never_replaced(make_predictor, volumes, tmp_path):
    folder, _ = volumes
    array = np.zeros((5, 6, 7), np.uint8)
    write_labels(folder / "c.nii.gz", array)
    (folder / "dataset.json").write_text("{}")
    with pytest.raises(
        UsageError, match=r"c\.nii\.gz is an image to segment; its dataset\.json was not written by"
    ) as caught:
        make_predictor().predict_folder(folder, folder)
    assert str(caught.value).endswith(". Choose another folder.")  # --overwrite would not help
    with pytest.raises(UsageError, match=r"c\.nii\.gz is an image to segment"):
        make_predictor().predict_folder(folder, folder, overwrite=True)
    assert (folder / "dataset.json").read_text() == "{}"


@pytest.mark.parametrize("inside", [("imagesTr", "imagesTs"), ("imagesTr",)])
def test_error_for_a_data_set_names_its_image_folders(make_predictor, tmp_path, inside):
    dataset = tmp_path / "dataset"
    for name in ("labelsTr", *inside):
        (dataset / name).mkdir(parents=True)
    (dataset / "dataset.json").write_text("{}")
    with pytest.raises(InputError) as caught:
        make_predictor().predict_folder(dataset, tmp_path / "out")
    given = " or ".join(str(dataset / name) for name in reversed(inside))
    assert (
        str(caught.value)
        == f"{dataset}: expected a folder of images, got the folder of a data set. Use {given}."
    )
    assert not (tmp_path / "out").exists()


def test_label_maps_are_not_written_among_the_images(make_predictor, volumes):
    folder, _ = volumes
    before = names(folder)
    with pytest.raises(UsageError, match="it is the folder of the images to segment"):
        make_predictor().predict_folder(folder, folder, overwrite=True)
    assert names(folder) == before


def test_errors_are_raised_before_the_work(make_predictor, volumes, tmp_path):
    predictor = make_predictor()
    with pytest.raises(UsageError, match="mirroring: expected axes"):
        predictor.predict_folder(volumes[0], tmp_path / "out", mirror=True)
    with pytest.raises(InputError, match="no such file or folder"):
        predictor.predict_folder(tmp_path / "absent", tmp_path / "out")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="expected a folder, got a file"):
        predictor.predict_folder(volumes[0], tmp_path / "file")
    with pytest.raises(UsageError, match="expected a folder or files, got none"):
        predictor.predict_folder([], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_several_sources(make_predictor, volumes, tmp_path):
    folder, arrays = volumes
    (tmp_path / "other").mkdir()
    (folder / "b_0000.nii.gz").rename(tmp_path / "other" / "b_0000.nii.gz")
    predictor = make_predictor()
    record = predictor.predict_folder(
        [folder, str(tmp_path / "other" / "b_0000.nii.gz")], str(tmp_path / "out")
    )
    assert [case.case for case in record.cases] == ["a", "b"]
    for case, array in arrays.items():
        np.testing.assert_array_equal(read_label_map(tmp_path / "out" / f"{case}.nii.gz").array[0], array)
    with pytest.raises(InputError, match="more than one case has the name a"):
        predictor.predict_folder([folder, folder], tmp_path / "twice")
    assert not (tmp_path / "twice").exists()


def test_the_next_case_is_prepared_while_one_is_segmented(make_predictor, volumes, tmp_path):
    from threading import Event

    prepared = {"a": Event(), "b": Event()}

    class Waiting(nn.Module):
        def forward(self, batch):
            assert prepared["b"].wait(30), "the second case is read only after the first is segmented"
            return Threshold()(batch)

    predictor = make_predictor(Waiting())
    prepare = predictor.prepare

    def watched(source, **options):
        result = prepare(source, **options)
        prepared[source[0].name[0]].set()
        return result

    predictor.prepare = watched
    record = predictor.predict_folder(volumes[0], tmp_path / "out")
    assert [case.fault for case in record.cases] == [None, None]


def test_a_case_is_written_while_the_next_is_segmented(make_predictor, volumes, tmp_path, monkeypatch):
    from threading import Event

    started, calls = Event(), []

    class Recording(nn.Module):
        def forward(self, batch):
            calls.append(1)
            if len(calls) == 2:
                started.set()
            return Threshold()(batch)

    def write(path, label_map, *, like):
        assert started.wait(30), "the second case is segmented only after the first is written"
        write_label_map(path, label_map, like=like)

    monkeypatch.setattr(case_files, "write_label_map", write)
    folder, arrays = volumes
    record = make_predictor(Recording()).predict_folder(folder, tmp_path / "out")
    assert [case.fault for case in record.cases] == [None, None]
    for case, array in arrays.items():
        np.testing.assert_array_equal(read_label_map(tmp_path / "out" / f"{case}.nii.gz").array[0], array)


def test_a_case_with_probabilities_is_written_before_the_next(make_predictor, volumes, tmp_path, monkeypatch):
    done = []

    class Recording(nn.Module):
        def forward(self, batch):
            done.append("segmented")
            return Threshold()(batch)

    def write(path, label_map, *, like):
        time.sleep(0.1)
        done.append("written")

    monkeypatch.setattr(case_files, "write_label_map", write)
    make_predictor(Recording()).predict_folder(volumes[0], tmp_path / "out", probabilities=True)
    assert done == ["segmented", "written"] * 2


def test_a_full_disk_ends_a_prediction(make_predictor, volumes, tmp_path, monkeypatch):
    def write(path, label_map, *, like):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(case_files, "write_label_map", write)
    with pytest.raises(OSError, match=r"No space left on device.*a\.nii\.gz"):
        make_predictor().predict_folder(volumes[0], tmp_path / "out")


def test_existing_label_maps_are_skipped(make_predictor, volumes, tmp_path):
    folder, arrays = volumes
    output = tmp_path / "out"
    predictor = make_predictor()
    predictor.predict_folder(folder, output)
    (output / "b.nii.gz").unlink()
    write_labels(output / "a.nii.gz", 1 - arrays["a"])
    record = predictor.predict_folder(folder, output, skip_existing=True)
    np.testing.assert_array_equal(read_label_map(output / "a.nii.gz").array[0], 1 - arrays["a"])
    np.testing.assert_array_equal(read_label_map(output / "b.nii.gz").array[0], arrays["b"])
    assert [(case.case, case.skipped) for case in record.cases] == [("a", True), ("b", False)]
    again = predictor.predict_folder(folder, output, skip_existing=True)
    assert [case.skipped for case in again.cases] == [True, True]
    assert PredictionRecord.read(output / "prediction.json") == again


def test_a_stopped_prediction_continues(make_predictor, volumes, tmp_path):
    class Stopping(nn.Module):
        def forward(self, batch):
            if calls:
                raise KeyboardInterrupt
            calls.append(1)
            return Threshold()(batch)

    calls = []
    output = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        make_predictor(Stopping()).predict_folder(volumes[0], output)
    assert names(output) == ["a.nii.gz", "dataset.json", "prediction.json"]
    record = make_predictor().predict_folder(volumes[0], output, skip_existing=True)
    assert [case.skipped for case in record.cases] == [True, False]


def test_label_maps_of_other_options_are_not_skipped(make_predictor, volumes, tmp_path):
    folder, _ = volumes
    output = tmp_path / "out"
    predictor = make_predictor(inference={"mirror_axes": (0,)})
    predictor.predict_folder(folder, output)
    with pytest.raises(UsageError, match="mirror was False, not True"):
        predictor.predict_folder(folder, output, mirror=True, skip_existing=True)
    with pytest.raises(UsageError, match="exclude each other"):
        predictor.predict_folder(folder, output, overwrite=True, skip_existing=True)
    with_maps = predictor.predict_folder(folder, output, uncertainty=True, skip_existing=True)
    assert [case.skipped for case in with_maps.cases] == [False, False]
    (output / "prediction.json").unlink()
    with pytest.raises(UsageError, match=r"holds label maps but no prediction\.json"):
        predictor.predict_folder(folder, output, skip_existing=True)


def test_label_maps_of_other_weights_are_not_skipped(make_predictor, volumes, tmp_path):
    folder, _ = volumes
    output, network = tmp_path / "out", nn.Conv3d(1, 2, 1)
    make_predictor(network).predict_folder(folder, output)
    again = make_predictor(network).predict_folder(folder, output, skip_existing=True)
    assert [case.skipped for case in again.cases] == [True, True]

    with torch.no_grad():
        network.bias.add_(1)
    with pytest.raises(UsageError, match="the model's weights, plan or postprocessing differ"):
        make_predictor(network).predict_folder(folder, output, skip_existing=True)


def test_uncertainty_maps(make_predictor, volumes, tmp_path):
    folder, _ = volumes
    predictor = make_predictor(inference={"mirror_axes": (0, 1)})
    one = predictor.predict_folder(folder, tmp_path / "one", uncertainty=True)
    assert (one.cases[0].entropy, one.cases[0].disagreement) == ("entropy/a.nii.gz", None)
    found = read_image(tmp_path / "one" / "entropy" / "a.nii.gz")
    # The logits are 0.5 for ones and -0.5 for zeros.
    likely = 1 / (1 + np.exp(-0.5))
    expected = -(likely * np.log2(likely) + (1 - likely) * np.log2(1 - likely))
    np.testing.assert_allclose(found.array[0], expected, atol=1e-3)
    assert found.spacing == (1.0, 1.0, 1.0)
    mirrored = predictor.predict_folder(folder, tmp_path / "two", uncertainty=True, mirror=True)
    assert mirrored.cases[0].disagreement == "disagreement/a.nii.gz"
    assert not read_image(tmp_path / "two" / "disagreement" / "a.nii.gz").array.round(3).any()
    evaluate(tmp_path / "two", tmp_path / "two", context=RunContext(num_workers=0))


def test_uncertainty_maps_lie_on_the_grid_of_the_image(make_predictor, tmp_path):
    """An oblique image is cropped, permuted and resampled for the network."""
    array = np.zeros((12, 30, 26), np.uint8)
    array[2:9, 6:20, 4:18] = 1
    cos, sin = np.cos(0.3), np.sin(0.3)
    direction = (cos, -sin, 0.0, sin, cos, 0.0, 0.0, 0.0, 1.0)
    image = Image(array[None], spacing=(2.5, 0.8, 0.9), origin=(11.0, -7.0, 3.0), direction=direction)
    write_label_map(tmp_path / "scan.nii.gz", array, like=image)
    predictor = make_predictor(
        preprocessing={"crop_to_nonzero": True, "axis_order": (2, 0, 1), "spacing": (1.0, 2.0, 1.0)},
        inference={"mirror_axes": (0, 1)},
    )

    predictor.predict_folder(tmp_path / "scan.nii.gz", tmp_path / "out", uncertainty=True, mirror=True)

    source = read_image(tmp_path / "scan.nii.gz")
    for name in ("entropy", "disagreement"):
        found = read_image(tmp_path / "out" / name / "scan.nii.gz")
        assert found.array.shape == source.array.shape
        assert (found.spacing, found.origin, found.direction) == (
            source.spacing,
            source.origin,
            source.direction,
        )
    entropy = read_image(tmp_path / "out" / "entropy" / "scan.nii.gz").array[0]
    # The logit is 0.5 where the image is 1. Cropping removes all other voxels.
    likely = 1 / (1 + np.exp(-0.5))
    expected = -(likely * np.log2(likely) + (1 - likely) * np.log2(1 - likely))
    np.testing.assert_allclose(entropy, np.where(array == 1, expected, 0), atol=1e-3)


def test_uncertainty_maps_of_pictures(make_predictor, tmp_path):
    Picture.fromarray(np.full((9, 8, 3), 200, np.uint8)).save(tmp_path / "frame.png")
    predictor = make_predictor(
        num_axes=2, patch_size=(8, 8), dataset={"channel_names": ("R", "G", "B"), "file_ending": ".png"}
    )
    predictor.predict_folder(tmp_path / "frame.png", tmp_path / "out", uncertainty=True)
    found = np.array(Picture.open(tmp_path / "out" / "entropy" / "frame.png"))
    assert (found.shape, found.max()) == ((9, 8), 0)


def test_pictures_in_colours_change_neither_scores_nor_skipped_cases(make_predictor, tmp_path):
    labels = np.eye(9, dtype=np.uint8)
    for folder, values in (("images", labels * 255), ("references", labels)):
        (tmp_path / folder).mkdir()
        Picture.fromarray(values).save(tmp_path / folder / "a.png")
    predictor = make_predictor(num_axes=2, patch_size=(8, 8), dataset={"file_ending": ".png"})
    predictor.predict_folder(tmp_path / "images", tmp_path / "out")
    with Picture.open(tmp_path / "out" / "a.png") as picture:
        assert picture.mode == "L"
    with Picture.open(tmp_path / "out" / "colours" / "a.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), labels)
    report = evaluate(tmp_path / "out", tmp_path / "references", context=RunContext(num_workers=0))
    assert (report.summary.mean_over_labels.dice, report.warnings) == (1.0, ())
    (again,) = predictor.predict_folder(tmp_path / "images", tmp_path / "out", skip_existing=True).cases
    assert again.skipped
    (tmp_path / "images" / "a.png").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"a\.png"):
        predictor.predict_folder(tmp_path / "images", tmp_path / "out", overwrite=True)
    assert list((tmp_path / "out" / "colours").iterdir()) == []


def test_pictures_show_the_labels_of_each_case(make_predictor, volumes, tmp_path):
    folder, _ = volumes
    output = tmp_path / "labels"
    make_predictor().predict_folder(folder, output)
    assert "pictures" not in names(output)
    make_predictor().predict_folder(folder, output, pictures=True, overwrite=True)
    assert names(output / "pictures") == ["a.png", "b.png"]
    with Picture.open(output / "pictures" / "a.png") as picture:
        colours = {colour for _, colour in picture.convert("RGB").getcolors(10**6)}
    assert (0, 114, 178) in colours  # outlines of label 1
