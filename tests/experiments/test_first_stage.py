"""A cascade on volumes of noise: what its second stage knows, it knows from the first."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import scanseg
from scanseg.errors import InputError, UsageError
from scanseg.imaging import read_image
from scanseg.inference.postprocessing import NOTHING
from scanseg.models import ModelFolder, write_ensemble
from scanseg.preprocessing.compressed import read_array, write_array
from scanseg.preprocessing.store import Store
from scanseg.specs import EnsembleSpec
from scanseg.specs.records.comparison import ComparisonRecord
from tests.factories import write_invisible_balls_and_boxes
from tests.training.launching import forked

SETTINGS = (
    *("sampling.patch_size=[8, 16, 16]", "sampling.batch_size=2", "network.features=[4, 8]"),
    *("network.strides=[[1, 1, 1], [2, 2, 2]]", "network.kernel_sizes=[[3, 3, 3], [3, 3, 3]]"),
    *("network.num_convs_encoder=[1, 1]", "network.num_convs_decoder=[1]"),
    *("training.validation_batches=1", "training.epochs=1", "training.precision=float32"),
    'training.optimizer={"kind": "adamw", "lr": 0.02}',
)
FIRST = (*SETTINGS, "training.iterations_per_epoch=2", "preprocessing.spacing=[2.0, 2.0, 2.0]")
SECOND = (
    *SETTINGS,
    *("training.iterations_per_epoch=150", "network.deep_supervision=false", "augmentation=[]"),
)
OPTIONS = {"recipe": "plain-unet", "num_workers": 0, "device": "cpu"}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Four volumes of noise with a ball of one label and a box of another, in two folds."""
    return write_invisible_balls_and_boxes(tmp_path_factory.mktemp("data") / "noise")


@pytest.fixture(scope="module")
def study(dataset, tmp_path_factory):
    """A first stage whose predictions have been put right."""
    folder = tmp_path_factory.mktemp("first") / "study"
    scanseg.cross_validate(
        dataset, folder, recipes=["plain-unet"], settings=FIRST, num_workers=0, devices=["cpu"]
    )
    for path in folder.glob("fold_*/validation/*.b2nd"):
        name = path.stem
        truth = read_image(dataset / "labelsTr" / f"{name}.nii.gz").array[0].astype(np.uint8)
        assert read_array(path).shape == truth.shape
        path.unlink()
        write_array(path, truth)
    return folder


@pytest.fixture(scope="module")
def model(dataset, study, tmp_path_factory):
    """A second stage."""
    folder = tmp_path_factory.mktemp("second") / "model"
    settings = (
        *SECOND,
        f'cascade={{"first_stage": "{study}", "change_probability": 0.1, "change_radius": 1}}',
    )
    result = scanseg.train(dataset, folder, settings=settings, **OPTIONS)
    return folder, result


def test_the_second_stage_learns_from_the_first(model, dataset, tmp_path):
    _, result = model
    assert result.mean_dice > 0.9
    blind = scanseg.train(dataset, tmp_path / "blind", settings=SECOND, **OPTIONS)
    assert blind.mean_dice < 0.6


def test_stores_hold_what_was_predicted(model, study, dataset):
    folder, _ = model
    stores = [path for path in (folder.parent / "scanseg-stores").glob("*-after-*") if path.is_dir()]
    store = Store.open(stores[0])
    assert store.index.first_stage == str(study)
    for case in store.index.cases:
        truth = read_image(dataset / "labelsTr" / f"{case.case}.nii.gz").array[0]
        np.testing.assert_array_equal(store.read_predicted(case), truth)
        np.testing.assert_array_equal(store.read_label_map(case) % 256, truth)


def test_a_store_is_made_anew_where_the_first_stage_predicts_otherwise(dataset, study, tmp_path):
    first = tmp_path / "first"
    shutil.copytree(study, first)
    settings = (*SECOND, f'cascade={{"first_stage": "{first}"}}', "training.iterations_per_epoch=1")

    def predicted_in(model):
        scanseg.train(dataset, tmp_path / model, settings=settings, **OPTIONS)
        (folder,) = (path for path in (tmp_path / "scanseg-stores").glob("*-after-*") if path.is_dir())
        store, index = Store.open(folder), folder / "store.json"
        return store.read_predicted(store.case("case_0")), index.stat().st_mtime_ns

    before, written = predicted_in("before")
    assert predicted_in("again")[1] == written
    (path,) = first.glob("fold_*/validation/case_0.b2nd")
    path.unlink()
    write_array(path, np.zeros_like(before))

    assert before.any()
    assert not predicted_in("after")[0].any()


def test_the_model_predicts_by_itself_through_both_stages(model, study, dataset, tmp_path, monkeypatch):
    folder, _ = model
    alone = tmp_path / "alone"
    shutil.copytree(folder, alone)
    predictor = scanseg.load(alone, device="cpu")
    path = dataset / "imagesTr" / "case_0_0000.nii.gz"
    first = scanseg.load(study, device="cpu")
    first.postprocessing = NOTHING  # what the folds predicted in training was not postprocessed either
    seen = predictor.first_stage.predict(path)
    np.testing.assert_array_equal(seen.label_map, first.predict(path).label_map)
    truth = read_image(dataset / "labelsTr" / "case_0.nii.gz").array[0].astype(np.uint8)
    shown = []

    class First:
        label_map = truth

    def predict(prepared, **options):
        shown.append(prepared.image.shape)
        return First

    monkeypatch.setattr(predictor.first_stage, "predict_prepared", predict)
    found = predictor.predict(path).label_map
    assert shown == [truth.shape]
    for value in (1, 2):
        overlap = 2 * ((found == value) & (truth == value)).sum()
        assert overlap / ((found == value).sum() + (truth == value).sum()) > 0.9


def test_a_stopped_training_goes_on_with_its_first_stage(model, dataset, study):
    folder, result = model
    again = scanseg.train(dataset, folder, resume=True, num_workers=0, device="cpu")
    assert again.mean_dice == result.mean_dice
    assert ModelFolder.open(folder).plan.cascade.first_stage == str(study)


def test_patches_from_disk_are_those_from_memory(model, dataset, study, tmp_path):
    settings = (*SECOND, f'cascade={{"first_stage": "{study}"}}', "training.iterations_per_epoch=2")
    losses = []
    for resident in ("host", "disk"):
        folder = tmp_path / resident
        scanseg.train(dataset, folder, settings=(*settings, f"training.case_storage={resident}"), **OPTIONS)
        losses.append(ModelFolder.open(folder).metrics.read()[0]["loss"])
    assert losses[0] == losses[1]


def test_two_processes_train_a_second_stage_like_one(dataset, study, tmp_path):
    settings = (
        *SECOND,
        *(
            f'cascade={{"first_stage": "{study}"}}',
            "training.iterations_per_epoch=4",
            "training.validate_every=1",
        ),
        'training.optimizer={"kind": "sgd", "lr": 0.01, "momentum": 0.9}',
    )
    one, two = tmp_path / "one", tmp_path / "two"
    scanseg.train(dataset, one, settings=settings, **OPTIONS)

    words = [word for setting in settings for word in ("--set", setting)]
    options = ("--recipe", "plain-unet", "--num-workers", 0, "--device", "cpu")
    process = forked(dataset, "-o", two, *options, *words)
    _, complained = process.communicate(timeout=240)

    assert process.returncode == 0, complained
    assert ModelFolder.open(two).read_run().sessions[0].num_processes == 2
    ours, theirs = load_file(two / "model.safetensors"), load_file(one / "model.safetensors")
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-3, atol=1e-4)  # float32 sums in another order
    path = dataset / "imagesTr" / "case_0_0000.nii.gz"
    found = [scanseg.load(folder, device="cpu").predict(path).label_map for folder in (one, two)]
    assert (found[0] == found[1]).mean() > 0.99


@pytest.mark.slow
def test_a_second_stage_is_cross_validated_on_two_devices(dataset, study, tmp_path, command):
    settings = (
        *SECOND,
        f'cascade={{"first_stage": "{study}", "change_probability": 0.1, "change_radius": 1}}',
    )
    words = [word for setting in settings for word in ("--set", setting)]
    options = ("--recipe", "plain-unet", "--num-workers", 0, "--devices", "cpu,cpu")

    outcome = command("crossval", dataset, "-o", tmp_path / "second", *options, *words)

    assert outcome.code == 0, outcome.stderr
    record = json.loads((tmp_path / "second" / "crossval.json").read_text())
    assert record["num_cases"] == 4
    assert record["configurations"][0]["mean_dice"] > 0.9
    alone = tmp_path / "alone"
    shutil.copytree(tmp_path / "second", alone)
    outcome = command("predict", alone, dataset / "imagesTr", "-o", tmp_path / "out", "--device", "cpu")
    assert outcome.code == 0, outcome.stderr
    found = read_image(tmp_path / "out" / "case_0.nii.gz").array[0]
    predictor = scanseg.load(alone, device="cpu")
    expected = predictor.predict(dataset / "imagesTr" / "case_0_0000.nii.gz").label_map
    np.testing.assert_array_equal(found, expected)


def test_a_first_stage_is_needed(dataset, study, tmp_path):
    with pytest.raises(UsageError, match=r"--set cascade\.first_stage=FOLDER"):
        scanseg.train(dataset, tmp_path / "a", settings=(*SECOND, "cascade={}"), **OPTIONS)
    with pytest.raises(InputError, match=r"expected the output folder of a finished scanseg crossval"):
        scanseg.train(
            dataset, tmp_path / "b", settings=(*SECOND, f'cascade={{"first_stage": "{tmp_path}"}}'), **OPTIONS
        )
    other = tmp_path / "study"
    shutil.copytree(study, other)
    (other / "fold_1" / "validation" / "case_2.b2nd").unlink()
    with pytest.raises(InputError, match=r"no prediction of 1 of 4 cases \(case_2\)"):
        scanseg.train(
            dataset, tmp_path / "c", settings=(*SECOND, f'cascade={{"first_stage": "{other}"}}'), **OPTIONS
        )
    assert not any((tmp_path / name).exists() for name in "abc")


def test_second_stages_are_compared(study, dataset, tmp_path, command):
    short = ("training.iterations_per_epoch=2", f'cascade={{"first_stage": "{study}"}}')
    arms = [{"name": name, "settings": [f"training.optimizer.lr={name}"]} for name in ("0.02", "0.002")]
    content = {
        "title": "Second stages",
        "question": "Which rate?",
        "recipe": "plain-unet",
        "settings": [*SECOND, *short],
        "arms": arms,
        "seeds": [0],
    }
    path, output = tmp_path / "comparison.json", tmp_path / "out"
    path.write_text(json.dumps(content))

    outcome = command("compare", path, dataset, "-o", output, "--devices", "cpu", "--num-workers", 0)

    assert outcome.code == 0, outcome.stderr
    record = ComparisonRecord.read(output / "comparison.json")
    assert record.missing == ()
    for arm in record.arms:
        model = tmp_path / "alone"
        shutil.copytree(output / arm.runs[0].model, model)
        predicted = scanseg.load(model, device="cpu").predict(dataset / "imagesTr" / "case_2_0000.nii.gz")
        assert predicted.label_map.shape == (14, 24, 24)
        shutil.rmtree(model)


def test_a_second_stage_in_a_comparison_needs_a_first(dataset, tmp_path, command):
    arms = [{"name": name, "settings": [f"training.optimizer.lr={name}"]} for name in ("0.02", "0.002")]
    content = {"title": "t", "question": "q", "recipe": "plain-unet", "settings": [*SECOND, "cascade={}"]}
    path = tmp_path / "comparison.json"
    path.write_text(json.dumps(content | {"arms": arms}))
    outcome = command("compare", path, dataset, "-o", tmp_path / "out", "--num-workers", 0)
    assert outcome.code == 2
    assert "--set cascade.first_stage=FOLDER" in outcome.stderr


RIVALS = ("plain-unet", "plain-unet-2d", "plain-unet-cascade")


@pytest.fixture(scope="module")
def rivals(dataset, study, tmp_path_factory):
    """Cross-validate networks of volumes and of slices, and a second stage. The last two become the model."""
    folder = tmp_path_factory.mktemp("rivals") / "study"
    short = (*SETTINGS, "training.iterations_per_epoch=20")
    flat = [each.replace("[8, 16, 16]", "[16, 16]") for each in short if "strides" not in each]
    flat = [
        each.replace("[[3, 3, 3], [3, 3, 3]]", "[[3, 3], [3, 3]]") for each in flat if "kernel" not in each
    ]
    flat += ["network.strides=[[1, 1], [2, 2]]", "network.kernel_sizes=[[3, 3], [3, 3]]"]
    planned = {
        "plain-unet": ("plain-unet", short),
        "plain-unet-2d": ("plain-unet-2d", flat),
        "plain-unet-cascade": ("plain-unet", (*short, f'cascade={{"first_stage": "{study}"}}')),
    }
    for name, (recipe, settings) in planned.items():
        plan = scanseg.make_plan(dataset, recipe=recipe, settings=settings, num_workers=0)
        (folder / name).mkdir(parents=True)
        (folder / name / "plan.json").write_text(plan.model_copy(update={"recipe": name}).to_json())
    result = scanseg.cross_validate(
        dataset,
        folder,
        resume=True,
        settings=[f"cascade.first_stage={study}"],
        num_workers=0,
        devices=["cpu"],
    )
    write_ensemble(folder, EnsembleSpec(members=RIVALS[1:], average="probabilities"))
    return folder, result


def test_a_second_stage_and_a_network_of_slices_predict_together(rivals, dataset, tmp_path):
    folder, result = rivals
    pairs = [f"{RIVALS[0]} + {RIVALS[1]}", f"{RIVALS[0]} + {RIVALS[2]}", f"{RIVALS[1]} + {RIVALS[2]}"]
    assert [each.name for each in result.record.ensembles] == pairs
    assert all(each.mean_dice is not None for each in result.record.outcomes)
    alone, path = tmp_path / "alone", dataset / "imagesTr" / "case_0_0000.nii.gz"
    shutil.copytree(folder, alone)

    found = scanseg.load(alone, device="cpu").predict(path, probabilities=True, uncertainty=True)

    parts = [
        scanseg.load(folder / name, device="cpu").predict(path, probabilities=True).probabilities
        for name in RIVALS[1:]
    ]
    mean = np.mean(np.array(parts, dtype=np.float32), axis=0)
    np.testing.assert_allclose(found.probabilities, mean, atol=1e-3)  # float16 has 11 bits
    largest = np.sort(mean, axis=0)
    clear = largest[-1] - largest[-2] > 1e-3
    np.testing.assert_array_equal(found.label_map[clear], mean.argmax(0)[clear])
    assert found.disagreement.max() > 0


def test_a_pair_is_the_first_stage_of_a_cascade(rivals, dataset, tmp_path):
    folder, _ = rivals
    model = tmp_path / "model"
    settings = (*SETTINGS, "training.iterations_per_epoch=2", f'cascade={{"first_stage": "{folder}"}}')
    scanseg.train(dataset, model, settings=settings, **OPTIONS)

    store = Store.open(
        next(path for path in (tmp_path / "scanseg-stores").glob("*-after-*") if path.is_dir())
    )
    for case in store.index.cases:
        kept = read_array(folder / "ensembles" / "+".join(RIVALS[1:]) / f"{case.case}.b2nd")
        np.testing.assert_array_equal(store.read_predicted(case), kept)
    alone, path = tmp_path / "alone", dataset / "imagesTr" / "case_0_0000.nii.gz"
    shutil.copytree(model, alone)
    shutil.rmtree(model)
    predictor = scanseg.load(alone, device="cpu")
    seen = predictor.first_stage.predict(path).label_map
    np.testing.assert_array_equal(seen, scanseg.load(folder, device="cpu").predict(path).label_map)
    assert predictor.predict(path).label_map.shape == (14, 24, 24)
