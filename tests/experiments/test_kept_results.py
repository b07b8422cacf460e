"""Results of an earlier run are kept only while their inputs are the same."""

import json
import os
import shutil
import time

import numpy as np
import pytest
import torch

import scanseg
from scanseg.converters import find_dataset
from scanseg.converters.conversion import convert_dataset
from scanseg.dataset import compute_dataset_digest, open_dataset
from scanseg.errors import InputError
from scanseg.experiments.job import TrainingJob
from scanseg.models import ModelFolder, pair_prediction_path, read_tensors
from scanseg.models.tensors import write_tensors
from scanseg.papers.data import convert_if_needed
from scanseg.planning import TrainingSource, prepare_store
from scanseg.preprocessing import read_array, write_array
from scanseg.runtime import RunContext
from scanseg.specs import Plan
from tests.factories import colour_disk, disk, make_plan, write_case, write_picture

from .conftest import SETTINGS

CONTEXT = RunContext(device="cpu", num_workers=0)


@pytest.fixture
def plan(dataset, tmp_path):
    plan = scanseg.make_plan(dataset, settings=(*SETTINGS, "training.epochs=1"), num_workers=0)
    (tmp_path / "plan.json").write_text(plan.to_json())
    return plan


@pytest.fixture
def job(dataset, plan, tmp_path):
    """Return the job of a finished training, as a later command makes it."""

    def make():
        source = TrainingSource(dataset, dataset=dataset, plan=plan)
        prepared = prepare_store(plan, source, tmp_path / "stores", context=CONTEXT)
        return TrainingJob("test", prepared, tmp_path / "model", fold=0, keep_predictions=True)

    make().run(CONTEXT)
    return make


def case_of(job):
    """Return a validation case and the file of its label map."""
    folder = ModelFolder.open(job().folder)
    case = folder.read_run().validation_cases[0]
    return case, folder.prediction_path(case)


def change_image(dataset, case):
    image, label_map = disk(99)
    write_case(dataset, case, (image, label_map))
    for path in dataset.glob(f"*/{case}*"):
        os.utime(path, (0, 0))  # older than every result


def change_label_map(dataset, case):
    path = dataset / "labelsTr" / f"{case}.png"
    status = path.stat()
    write_picture(path, np.zeros((24, 24), np.uint8))
    os.utime(path, (status.st_atime, status.st_mtime + 1))


def change_date(dataset, case):
    os.utime(dataset / "imagesTr" / f"{case}_0000.png", (1e9, 1e9))


@pytest.mark.parametrize("change", [change_image, change_label_map, change_date])
def test_a_changed_case_is_scored_again(dataset, job, change):
    case, _ = case_of(job)
    weights = read_tensors(job().folder / "model.safetensors")
    before = (job().folder / "validation.json").stat().st_mtime_ns
    assert job().is_finished
    change(dataset, case)
    assert not job().is_finished

    job().run(CONTEXT)

    assert job().is_finished
    assert (job().folder / "validation.json").stat().st_mtime_ns > before
    for name, tensor in read_tensors(job().folder / "model.safetensors").items():
        assert torch.equal(tensor, weights[name])


@pytest.mark.parametrize("damage", ["other shape", "cut", "empty"])
def test_damaged_label_maps_are_predicted_again(job, damage):
    _, path = case_of(job)
    expected = read_array(path)
    content = path.read_bytes()
    path.unlink()
    if damage == "other shape":
        write_array(path, np.zeros((5, 5), np.uint8))
    else:
        path.write_bytes(content[:90] if damage == "cut" else b"")
    assert not job().is_finished
    job().run(CONTEXT)
    assert job().is_finished
    np.testing.assert_array_equal(read_array(path), expected)


def test_other_weights_are_scored_again(job):
    """A finished training does not go on. The weights in its folder are scored."""
    folder = ModelFolder.open(job().folder)
    path, before = folder.path / "model.safetensors", folder.scores.read_validation()
    weights = {name: tensor + 1 for name, tensor in read_tensors(path).items()}
    write_tensors(weights, path)
    assert not job().is_finished
    job().run(CONTEXT)
    assert job().is_finished
    assert all(torch.equal(tensor, weights[name]) for name, tensor in read_tensors(path).items())
    assert folder.scores.read_validation() != before


def test_copies_with_other_dates_are_kept(job, tmp_path):
    folder = job().folder
    for path in folder.rglob("*"):
        os.utime(path, (1e9, 1e9))
    assert job().is_finished
    shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copyfile)
    shutil.rmtree(folder)
    (tmp_path / "copy").rename(folder)
    assert job().is_finished


def test_scores_of_older_versions_are_kept(job):
    (job().folder / "validation-sources.json").unlink()
    assert job().is_finished


def test_a_plan_of_a_changed_data_set_warns(dataset, plan, tmp_path):
    updates = []

    def preprocess():
        updates.clear()
        scanseg.preprocess(
            tmp_path / "plan.json", store=tmp_path / "stores", num_workers=0, progress=updates.append
        )
        return [warning for update in updates for warning in update.warnings if "since the plan" in warning]

    assert preprocess() == []
    change_date(dataset, "case_0")
    assert preprocess() == []
    write_case(dataset, "case_4", disk(4))
    (warning,) = preprocess()
    assert warning.startswith(
        f"{dataset}: names or sizes of files, or dataset.json, have changed since the plan"
    )
    content = json.loads((tmp_path / "plan.json").read_text())
    del content["dataset_digest"]
    (tmp_path / "plan.json").write_text(json.dumps(content))
    assert preprocess() == []


def test_training_warns_of_a_changed_data_set(dataset, plan, tmp_path, command):
    path = dataset / "imagesTr/case_1_0000.png"
    write_picture(path, np.zeros((24, 24), np.uint8))
    outcome = command(
        "train", tmp_path / "plan.json", "-o", tmp_path / "model", "--device", "cpu", "--num-workers", 0
    )
    assert outcome.code == 0, outcome.stderr
    assert outcome.stderr.count(f"warning: {dataset}: names or sizes of files") == 1


def test_the_digest_follows_names_sizes_and_description(dataset):
    digests = [compute_dataset_digest(open_dataset(dataset))]
    for change in (
        lambda: write_picture(dataset / "imagesTr/case_0_0000.png", colour_disk(0)[0][:24, :24, 0]),
        lambda: write_picture(dataset / "labelsTr/case_0.png", np.zeros((24, 24), np.uint8)),
        lambda: write_case(dataset, "case_7", disk(7)),
        lambda: (dataset / "dataset.json").write_text(
            (dataset / "dataset.json").read_text().replace("gray", "grey")
        ),
    ):
        change()
        digests.append(compute_dataset_digest(open_dataset(dataset)))
    assert len(set(digests)) == len(digests)
    text = (dataset / "dataset.json").read_text()
    (dataset / "dataset.json").write_text(json.dumps(json.loads(text), indent=4))
    change_date(dataset, "case_2")
    assert compute_dataset_digest(open_dataset(dataset)) == digests[-1]


def test_older_plans_keep_their_text():
    """Checksums of models and records contain it."""
    plan = make_plan()
    assert "dataset_digest" not in plan.to_json()
    assert Plan.model_validate_json(plan.to_json()) == plan
    named = plan.model_copy(update={"dataset_digest": "0123"})
    assert Plan.model_validate_json(named.to_json()) == named


def test_a_pair_is_predicted_again_for_a_changed_case(dataset, tmp_path):
    output, recipes = tmp_path / "out", ("xlstm-unet", "plain-unet")
    options = {"recipes": recipes, "devices": ["cpu"], "num_workers": 0}
    settings = (
        *("sampling.batch_size=2", "training.epochs=1", "training.iterations_per_epoch=1"),
        *("training.validation_batches=1",),
    )
    scanseg.cross_validate(dataset, output, settings=settings, **options)
    paths = {
        case: pair_prediction_path(output, recipes, case) for case in ("case_0", "case_1", "case_2", "case_3")
    }
    before = {case: path.stat().st_mtime_ns for case, path in paths.items()}
    change_image(dataset, "case_2")
    paths["case_3"].unlink()
    write_array(paths["case_3"], np.zeros((3, 3), np.uint8))
    os.utime(paths["case_3"], (time.time() + 100,) * 2)

    scanseg.cross_validate(dataset, output, settings=settings, resume=True, **options)

    # The weights of the fold of case_2 are written again when its scores are made again.
    assert paths["case_2"].stat().st_mtime_ns > before["case_2"]
    assert read_array(paths["case_3"]).shape == (24, 24)
    assert paths["case_0"].stat().st_mtime_ns == before["case_0"]


@pytest.mark.parametrize("change", ["content", "more", "date"])
def test_a_converted_data_set_knows_its_source(tmp_path, change):
    source, output = tmp_path / "source", tmp_path / "out/dataset"
    for number in range(2):
        write_picture(source / f"images/{number}.png", np.full((20, 24, 3), 90))
        write_picture(source / f"masks/{number}.png", np.full((20, 24), 255))
    arguments = ("kvasir-seg", source, output)
    assert convert_if_needed(*arguments, context=CONTEXT) == output
    assert convert_if_needed(*arguments, context=CONTEXT) == output
    if change == "content":
        write_picture(source / "images/1.png", np.full((20, 24, 3), 91))
    elif change == "more":
        write_picture(source / "images/2.png", np.full((20, 24, 3), 90))
    else:
        os.utime(source / "masks/0.png", (1e9, 1e9))
    with pytest.raises(
        InputError, match=rf"{output}: expected the data set converted from {source}, but files"
    ):
        convert_if_needed(*arguments, context=CONTEXT)


def test_a_data_set_converted_by_an_older_version_is_used(tmp_path):
    source, output = tmp_path / "source", tmp_path / "out/dataset"
    for number in range(2):
        write_picture(source / f"images/{number}.png", np.full((20, 24, 3), 90))
        write_picture(source / f"masks/{number}.png", np.full((20, 24), 255))
    convert_dataset(find_dataset("kvasir-seg"), source, output, context=CONTEXT)
    content = json.loads((output / "conversion.json").read_text())
    del content["source_digest"]
    (output / "conversion.json").write_text(json.dumps(content))
    os.utime(source / "masks/0.png", (1e9, 1e9))
    assert convert_if_needed("kvasir-seg", source, output, context=CONTEXT) == output
