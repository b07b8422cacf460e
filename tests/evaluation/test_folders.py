import json
import pickle

import numpy as np
import pytest

from scanseg import evaluation
from scanseg.errors import FaultsError, InputError, UsageError
from scanseg.evaluation import score_case
from scanseg.progress import ignore_progress
from scanseg.runtime import RunContext
from scanseg.specs import DatasetSpec
from tests.factories import write_labels

SPEC = DatasetSpec(
    name="organs",
    channel_names=("CT",),
    labels={"background": 0, "liver": 1, "spleen": 2},
    file_ending=".nii.gz",
)


def evaluate(*paths, num_workers=0, progress=ignore_progress, **options):
    """Score folders or files, in this process unless `num_workers` are given."""
    context = RunContext(num_workers=num_workers, progress=progress)
    return evaluation.evaluate(*paths, **options, context=context)


def write(path, array, spacing=None):
    """Write whole numbers as a label map."""
    write_labels(path, np.asarray(array, np.uint8), spacing=spacing)


@pytest.fixture
def folders(tmp_path, rng):
    """Return the folders of predictions and references of two cases. The first holds `dataset.json`."""
    predictions, references = tmp_path / "predictions", tmp_path / "data" / "labelsTr"
    predictions.mkdir()
    references.mkdir(parents=True)
    for case in ("a", "b"):
        for folder in (predictions, references):
            write(folder / f"{case}.nii.gz", rng.integers(0, 3, (4, 5, 6)), spacing=(3.0, 1.0, 0.5))
    (predictions / "dataset.json").write_text(SPEC.to_json())
    return predictions, references


def test_scores_equal_those_of_the_arrays(folders):
    from scanseg.imaging import read_label_map

    predictions, references = folders
    report = evaluate(predictions, references, label_tolerances_mm={"liver": 1.0})
    assert [case.case for case in report.cases] == ["a", "b"]
    arrays = [read_label_map(folder / "a.nii.gz").array[0] for folder in folders]
    expected = score_case(
        *arrays, spacing=(3.0, 1.0, 0.5), labels=SPEC.foreground, label_tolerances_mm={"liver": 1.0}
    )
    for name, label in report.cases[0].labels.items():
        assert label.dice == expected[name].dice
        assert label.hd95 == pytest.approx(expected[name].hd95)
        assert label.nsd == expected[name].nsd
        assert label.volume_ml == pytest.approx(expected[name].volume_ml)
    assert report.labels == SPEC.foreground
    assert report.tolerances_mm == {"liver": 1.0, "spleen": 2.0}
    assert report.labels_from == str(predictions / "dataset.json")


def test_workers_change_nothing(folders):
    assert evaluate(*folders, num_workers=2) == evaluate(*folders)


def test_progress_is_reported(folders):
    updates = []
    evaluate(*folders, progress=updates.append)
    assert [(p.task, p.done, p.total) for p in updates] == [
        (task, done, 2) for task in ("checking", "scoring") for done in (0, 1, 2)
    ]


@pytest.mark.parametrize("place", ["references", "parent"])
def test_labels_from_the_data_set(folders, place):
    predictions, references = folders
    (predictions / "dataset.json").unlink()
    path = (references if place == "references" else references.parent) / "dataset.json"
    content = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "left": 1, "right": 2},
        "numTraining": 2,
    }
    path.write_text(json.dumps(content | {"file_ending": ".nii.gz"}))
    report = evaluate(predictions, references)
    assert report.labels == {"left": (1,), "right": (2,)}
    assert report.labels_from.endswith("dataset.json")


@pytest.mark.parametrize("place", ["references", "parent"])
def test_descriptions_with_different_values_are_refused(folders, place):
    predictions, references = folders
    path = (references if place == "references" else references.parent) / "dataset.json"
    swapped = SPEC.model_copy(update={"labels": {"background": 0, "spleen": 1, "liver": 2}})
    path.write_text(swapped.to_json())
    with pytest.raises(FaultsError) as error:
        evaluate(predictions, references)
    assert list(error.value.faults) == [
        f"label {name}: expected one value in all descriptions, got {own} in {predictions / 'dataset.json'} and "
        f"{other} in {path}. Correct the values, or remove the wrong file."
        for name, own, other in (("liver", 1, 2), ("spleen", 2, 1))
    ]
    assert evaluate(predictions, references, labels=SPEC).labels == SPEC.foreground


def test_descriptions_with_different_names_get_a_warning(folders):
    predictions, references = folders
    assert not evaluate(predictions, references).warnings
    path = references.parent / "dataset.json"
    path.write_text(SPEC.model_copy(update={"labels": {"background": 0, "liver": 1, "milz": 2}}).to_json())
    updates = []
    report = evaluate(predictions, references, progress=updates.append)
    assert report.labels == SPEC.foreground
    (warning,) = report.warnings
    assert warning.startswith(f"label 2 is spleen in {predictions / 'dataset.json'} and milz in {path}.")
    assert [update.warnings for update in updates if update.warnings] == [(warning,)]


def test_labels_by_argument(folders):
    labels = {"background": 0, "one": 1, "two": 2}
    spec = DatasetSpec(name="numbers", channel_names=("CT",), labels=labels, file_ending=".nii.gz")
    assert list(evaluate(*folders, labels=spec).labels) == ["one", "two"]


def test_labels_from_the_values(folders):
    predictions, references = folders
    (predictions / "dataset.json").unlink()
    write(predictions / "a.nii.gz", np.full((4, 5, 6), 7), spacing=(3.0, 1.0, 0.5))
    report = evaluate(predictions, references)
    assert report.labels == {"1": (1,), "2": (2,), "7": (7,)}
    assert "values" in report.labels_from
    assert report.cases[0].labels["7"].dice == 0


def test_ignored_label_and_regions(folders):
    predictions, references = folders
    spec = DatasetSpec(
        name="regions",
        channel_names=("MRI",),
        labels={"background": 0, "whole": [1, 2], "core": 2, "ignore": 3},
        regions_class_order=(1, 2),
        file_ending=".nii.gz",
    )
    reference = np.zeros((4, 5, 6), int)
    reference[:, :2], reference[:, 2], reference[:, 3:] = 1, 2, 3
    prediction = np.ones((4, 5, 6), int)
    write(references / "a.nii.gz", reference, spacing=(3.0, 1.0, 0.5))
    write(predictions / "a.nii.gz", prediction, spacing=(3.0, 1.0, 0.5))
    report = evaluate(predictions, references, labels=spec)
    assert report.ignore_label == 3
    assert report.cases[0].labels["whole"].dice == 1
    assert report.cases[0].labels["core"].dice == 0


def test_two_files_of_any_names(folders, tmp_path):
    references = folders[1]
    other = tmp_path / "other.nrrd"
    write(other, np.ones((4, 5, 6)), spacing=(3.0, 1.0, 0.5))
    report = evaluate(other, references / "b.nii.gz", labels=SPEC)
    assert [case.case for case in report.cases] == ["other"]


def test_pictures(tmp_path):
    folders = [tmp_path / "p", tmp_path / "r"]
    for number, folder in enumerate(folders):
        folder.mkdir()
        label_map = np.zeros((10, 12), int)
        label_map[2:8, 2 + number : 8 + number] = 1
        write(folder / "image.png", label_map)
    label = evaluate(*folders).cases[0].labels["1"]
    assert label.dice == pytest.approx(2 * 30 / 72)
    assert label.hd95 == 1
    assert label.volume_ml is None


def test_chosen_cases(folders):
    predictions, references = folders
    (predictions / "b.nii.gz").unlink()
    assert [case.case for case in evaluate(predictions, references, cases=["a"]).cases] == ["a"]
    with pytest.raises(InputError, match=r"case b: no prediction.*\n.*case c: neither in"):
        evaluate(predictions, references, cases=["a", "b", "c"])


def test_references_without_a_prediction_are_left_out_on_request(folders):
    predictions, references = folders
    (predictions / "b.nii.gz").unlink()
    with pytest.raises(InputError, match=r"case b: no prediction .*\(--only-predicted\)"):
        evaluate(predictions, references)
    report = evaluate(predictions, references, only_predicted=True)
    assert [case.case for case in report.cases] == ["a"]
    assert report.unpredicted == ("b",)
    assert evaluate(predictions, references, cases=["a"]).unpredicted == ()

    write(predictions / "c.nii.gz", np.zeros((4, 5, 6)))
    with pytest.raises(InputError, match=r"^[^\n]*case c: no reference"):
        evaluate(predictions, references, only_predicted=True)
    for name in ("a", "c"):
        (predictions / f"{name}.nii.gz").unlink()
    with pytest.raises(InputError, match=rf"no label maps in {predictions}\. Known"):
        evaluate(predictions, references, only_predicted=True)
    with pytest.raises(UsageError, match="exclude each other"):
        evaluate(predictions, references, cases=["a"], only_predicted=True)


def test_missing_and_extra_files_are_reported_together(folders):
    predictions, references = folders
    (predictions / "b.nii.gz").unlink()
    write(predictions / "c.nii.gz", np.zeros((4, 5, 6)))
    write(predictions / "a.nrrd", np.zeros((4, 5, 6)))
    with pytest.raises(InputError) as caught:
        evaluate(predictions, references)
    message = str(caught.value)
    assert "case b: no prediction" in message
    assert "case c: no reference" in message
    assert "a.nii.gz and a.nrrd" in message


@pytest.mark.parametrize("only_predicted", [False, True])
def test_folders_without_a_common_name_are_one_fault(folders, only_predicted):
    predictions, references = folders
    for name in ("a", "b"):
        (references / f"{name}.nii.gz").rename(references / f"{name}_mask.nii.gz")
    with pytest.raises(InputError) as caught:
        evaluate(predictions, references, only_predicted=only_predicted)
    message = str(caught.value)
    assert "no common names: predictions are a, b; references are a_mask, b_mask." in message
    assert "labelsTs" in message
    assert "\n" not in message


def test_faulty_files_are_reported_together(folders):
    predictions, references = folders
    write(predictions / "a.nii.gz", np.zeros((4, 5, 7)))
    write(predictions / "b.nii.gz", np.full((4, 5, 6), 9), spacing=(3.0, 1.0, 0.75))
    for folder in folders:
        (folder / "c.nii.gz").write_bytes(b"no image")
    with pytest.raises(InputError) as caught:
        evaluate(predictions, references)
    message = str(caught.value)
    assert "(4, 5, 7) and (4, 5, 6)" in message
    assert "spacing (3.0, 1.0, 0.75) and (3.0, 1.0, 0.5)" in message
    assert "values [9], which are no labels" in message
    assert str(predictions / "c.nii.gz") in message
    assert str(references / "c.nii.gz") in message


def test_missing_predictions_are_one_line_and_the_error_holds_all(folders):
    predictions, references = folders
    for number in range(40):
        (references / f"c{number:02d}.nii.gz").touch()
    with pytest.raises(FaultsError) as caught:
        evaluate(predictions, references)
    names = ", ".join(f"c{number:02d}" for number in range(10))
    assert str(caught.value).startswith(
        f"{predictions} and {references}: 40 cases ({names} and 30 more): no prediction in {predictions}. "
    )
    assert "\n" not in str(caught.value)
    assert len(caught.value.faults) == 40
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.faults) == (str(caught.value), caught.value.faults)


def test_equal_values_are_one_line(folders):
    predictions, references = folders
    for name in "abcd":
        for folder in folders:
            write(folder / f"{name}.nii.gz", np.full((4, 5, 6), 255 if folder == references else 1))
    with pytest.raises(InputError) as caught:
        evaluate(predictions, references)
    message = str(caught.value)
    assert f"4 cases (a, b, c, d): {references / 'CASE.nii.gz'} holds the values [255]" in message
    assert "\n" not in message


def test_missing_and_mismatched_paths(tmp_path, folders):
    with pytest.raises(InputError, match=r"absent: no such file"):
        evaluate(tmp_path / "absent", folders[1])
    with pytest.raises(UsageError, match="two folders or two files"):
        evaluate(folders[0] / "a.nii.gz", folders[1])
    with pytest.raises(UsageError, match="folders only"):
        evaluate(folders[0] / "a.nii.gz", folders[1] / "a.nii.gz", cases=["a"])
    with pytest.raises(UsageError, match="folders only"):
        evaluate(folders[0] / "a.nii.gz", folders[1] / "a.nii.gz", only_predicted=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no label maps in either folder"):
        evaluate(tmp_path / "empty", tmp_path / "empty")


def test_arguments_are_checked(folders):
    with pytest.raises(UsageError, match=r"rule 'best' is unknown\. Choose skip, transunet"):
        evaluate(*folders, rule="best")
    with pytest.raises(UsageError, match=r"distance_unit 'cm' is unknown\. Choose mm, voxels"):
        evaluate(*folders, distance_unit="cm")
    with pytest.raises(UsageError, match="no cases are named"):
        evaluate(*folders, cases=[])
    assert [case.case for case in evaluate(*folders, cases="a").cases] == ["a"]


def test_nothing_to_score(tmp_path):
    for name in ("p", "r"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "a.nii.gz", np.zeros((3, 3, 3)))
    with pytest.raises(InputError, match="every voxel is background"):
        evaluate(tmp_path / "p", tmp_path / "r")
