"""Pairs of recipes in a cross-validation: when they win, what they predict, and how a study goes on."""

import json
import os
import time

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import scanseg
from scanseg.errors import InputError, InterruptionError, UsageError
from scanseg.experiments import pairs
from scanseg.inference import Predictor
from scanseg.inference.postprocessing import postprocess
from scanseg.models import ModelFolder, member_folders, write_ensemble
from scanseg.preprocessing.compressed import read_array
from scanseg.preprocessing.store import Store
from scanseg.specs import CrossValidationRecord, EnsembleSpec
from scanseg.training.validation import write_prediction

from .conftest import SETTINGS

RECIPES = ("xlstm-unet", "xlstm-unet-2d")
PAIRS = "ensembles"
PAIR = "xlstm-unet + xlstm-unet-2d"
CPU = torch.device("cpu")
BEGIN = {"recipes": RECIPES, "settings": SETTINGS, "num_workers": 0, "devices": ["cpu"]}
GO_ON = {"resume": True, "num_workers": 0, "devices": ["cpu"]}


def read(folder, name):
    return json.loads((folder / name).read_text())


class Halves(torch.nn.Module):
    """Says of a picture, as large as its window, what is bright: right or wrong, sure or not, in each half."""

    def __init__(self, left, right):
        super().__init__()
        self.sureness = (left, right)

    def forward(self, batch):
        bright = torch.where(batch[:, :1] > 0.6, 1.0, -1.0)
        middle = batch.shape[-1] // 2
        halves = bright[..., :middle] * self.sureness[0], bright[..., middle:] * self.sureness[1]
        logit = torch.cat(halves, dim=-1)
        return torch.cat((-logit, logit), dim=1)


@pytest.fixture
def known(dataset, tmp_path, monkeypatch):
    """Make a cross-validation of two recipes with given networks, resume it, and return the result."""

    def make(networks, **options):
        study, settings = tmp_path / "study", (*SETTINGS, "training.epochs=1", "sampling.patch_size=[24, 24]")
        scanseg.cross_validate(dataset, study, **(BEGIN | {"settings": settings}), ensembles=False)
        by_recipe = dict(zip(RECIPES, networks, strict=True))
        monkeypatch.setattr(
            ModelFolder, "load_network", lambda folder, **_: by_recipe[folder.path.parent.name]
        )
        for path in study.glob("*/fold_*"):
            folder = ModelFolder.open(path)
            predictor = Predictor(folder.plan, by_recipe[path.parent.name], device=CPU)
            store = Store.open(next((tmp_path / "scanseg-stores").glob("disks-*")))
            for name in folder.read_run().validation_cases:
                case = store.case(name)
                image = store.read_image(case).astype(np.float32)
                write_prediction(folder, name, predictor.predict_preprocessed(image, case.geometry))
        return study, scanseg.cross_validate(dataset, study, **GO_ON, **options)

    return make


def test_a_pair_wins_where_each_is_sure_of_what_the_other_gets_wrong(known, dataset):
    study, result = known((Halves(5.0, -1.0), Halves(-1.0, 5.0)))

    record = result.record
    assert record.chosen == PAIR
    assert [each.postprocessed_mean_dice < 0.7 for each in record.configurations] == [True, True]
    (pair,) = record.ensembles
    assert (pair.members, pair.mean_dice) == (RECIPES, 1.0)
    assert read(study, "validation.json")["summary"]["mean_over_labels"]["dice"] == 1.0
    assert CrossValidationRecord.read(study / "crossval.json") == record
    assert read(study, "ensemble.json")["members"] == list(RECIPES)
    predictor = scanseg.load(study, device="cpu")
    for number in range(4):
        found = predictor.predict(dataset / "imagesTr" / f"case_{number}_0000.png").label_map
        real = np.asarray(Image.open(dataset / "labelsTr" / f"case_{number}.png"))
        np.testing.assert_array_equal(found, real)


@pytest.mark.parametrize(
    ("networks", "chosen"),
    [
        ((Halves(1.0, 1.0), Halves(-5.0, -5.0)), RECIPES[0]),
        ((Halves(-5.0, -5.0), Halves(1.0, 1.0)), RECIPES[1]),
        ((Halves(1.0, 1.0), Halves(5.0, 5.0)), RECIPES[0]),
    ],
    ids=["first", "second", "as good as the pair"],
)
def test_one_recipe_wins_where_the_other_only_harms(known, networks, chosen):
    study, result = known(networks)

    assert result.record.chosen == chosen
    assert len(result.record.ensembles) == 1
    assert read(study, "ensemble.json")["members"] == [f"{chosen}/fold_0", f"{chosen}/fold_1"]


def test_postprocessing_is_decided_on_the_pair(known, monkeypatch):
    speck = torch.zeros(24, 24, dtype=torch.bool)
    speck[0, 20:23] = True

    class Specked(Halves):
        """Sees a speck that is not there."""

        def forward(self, batch):
            logits = super().forward(batch)
            return torch.where(speck, torch.tensor([-9.0, 9.0]).view(1, 2, 1, 1), logits)

    study, result = known((Specked(5.0, -1.0), Specked(-1.0, 5.0)))

    assert result.record.chosen == PAIR
    (pair,) = result.record.ensembles
    assert pair.postprocessing.largest_foreground
    assert pair.mean_dice < pair.postprocessed_mean_dice == 1.0
    assert read(study, "ensemble.json")["postprocessing"]["largest_foreground"]


@pytest.fixture
def study(dataset, tmp_path):
    """A study of two trained recipes; the pair is made its model, if it is not."""
    folder = tmp_path / "study"
    scanseg.cross_validate(dataset, folder, **BEGIN)
    write_ensemble(folder, EnsembleSpec(members=RECIPES, average="probabilities"))
    return folder


def test_a_study_predicts_the_mean_of_its_members_probabilities(study, dataset, tmp_path):
    image = dataset / "imagesTr" / "case_0_0000.png"
    options = {"probabilities": True, "mirror": True}
    together = scanseg.load(study, device="cpu").predict(image, uncertainty=True, **options)
    parts = [scanseg.load(study / name, device="cpu").predict(image, **options) for name in RECIPES]

    mean = np.mean([part.probabilities.astype(np.float32) for part in parts], axis=0)
    np.testing.assert_allclose(together.probabilities, mean, atol=1e-3)  # float16 has 11 bits
    clear = np.abs(mean[1] - 0.5) > 1e-3
    np.testing.assert_array_equal(together.label_map[clear], mean.argmax(0)[clear])
    assert 0 < together.disagreement.max() <= 1
    assert (together.disagreement <= together.entropy).all()
    folds = [study / name / f"fold_{fold}" for name in RECIPES for fold in range(2)]
    assert member_folders(study) == folds


def test_validation_label_maps_are_the_mean_of_networks_that_have_not_seen_the_case(study):
    stores = {name: Store.open(next((study.parent / "scanseg-stores").glob("disks-*"))) for name in RECIPES}
    for number, fold in ((0, 1), (2, 0)):
        name = f"case_{number}"
        parts = []
        for recipe in RECIPES:
            folder = ModelFolder.open(study / recipe / f"fold_{fold}")
            assert name in folder.read_run().validation_cases
            predictor = Predictor(folder.plan, folder.load_network(device=CPU), device=CPU)
            image, case = stores[recipe].read_image(stores[recipe].case(name)), stores[recipe].case(name)
            view = predictor.predict_plan(
                image.astype(np.float32), case.geometry, predicted=None, mirror=False
            )
            parts.append(torch.cat([slab.clone() for slab in view.slabs], dim=1).softmax(0))
        mean = ((parts[0] + parts[1]) / 2)[:, 0]
        found = read_array(pairs.pair_prediction_path(study, RECIPES, name))
        clear = ((mean[1] - 0.5).abs() > 1e-5).numpy()
        np.testing.assert_array_equal(found[clear], mean.argmax(0).numpy()[clear])


def test_regions_and_an_ignore_label(dataset, tmp_path):
    description = read(dataset, "dataset.json")
    description |= {"labels": {"background": 0, "disk": [1], "ignore": 2}, "regions_class_order": [1]}
    (dataset / "dataset.json").write_text(json.dumps(description))
    for path in (dataset / "labelsTr").iterdir():
        label_map = np.array(Image.open(path))
        label_map[:4] = 2
        Image.fromarray(label_map).save(path)
    study = tmp_path / "study"

    result = scanseg.cross_validate(dataset, study, **BEGIN)

    (pair,) = result.record.ensembles
    assert pair.mean_dice > 0.5
    write_ensemble(study, EnsembleSpec(members=RECIPES, average="probabilities"))
    image = dataset / "imagesTr" / "case_1_0000.png"
    found = scanseg.load(study, device="cpu").predict(image, probabilities=True)
    parts = [
        scanseg.load(study / name, device="cpu").predict(image, probabilities=True).probabilities
        for name in RECIPES
    ]
    mean = np.mean(np.array(parts, dtype=np.float32), axis=0)
    assert mean.shape == (1, 24, 24)
    np.testing.assert_allclose(found.probabilities, mean, atol=1e-3)  # float16 has 11 bits
    clear = np.abs(mean[0] - 0.5) > 1e-3
    np.testing.assert_array_equal(found.label_map[clear], mean[0][clear] > 0.5)


def test_members_of_other_labels_are_refused(study):
    for fold in range(2):
        path = study / RECIPES[1] / f"fold_{fold}" / "plan.json"
        plan = json.loads(path.read_text())
        plan["dataset"]["labels"] = {"background": 0, "ring": 1}
        path.write_text(json.dumps(plan))

    with pytest.raises(InputError, match=r"xlstm-unet-2d cannot predict together with .*differ in dataset"):
        scanseg.load(study, device="cpu")


def test_what_pairs_have_predicted_is_kept_unless_weights_have_changed(dataset, study, monkeypatch):
    files = sorted((study / PAIRS / "+".join(RECIPES)).glob("*.b2nd"))
    assert [file.stem for file in files] == [f"case_{number}" for number in range(4)]
    before = [file.stat().st_mtime_ns for file in files]
    record = read(study, "crossval.json")
    files[0].unlink()
    changed = study / RECIPES[0] / "fold_0" / "model.safetensors"  # its validation cases are 2 and 3
    save_file(load_file(changed), changed, metadata={"written": "again"})
    copied = study / RECIPES[0] / "fold_1" / "model.safetensors"
    later = time.time() + 1
    os.utime(copied, (later, later))  # a copy has another date

    scanseg.cross_validate(dataset, study, **GO_ON)

    after = [file.stat().st_mtime_ns for file in files]
    assert [new == old for new, old in zip(after, before, strict=True)] == [False, True, False, False]
    assert read(study, "crossval.json") == record


def test_a_signal_stops_the_prediction_and_resume_goes_on(dataset, tmp_path, monkeypatch):
    study, heard = tmp_path / "study", []
    real = pairs.raise_if_stopped

    def stop(stopped, message):
        heard.append(message)
        real(lambda: 15 if len(heard) > 2 else None, message)

    monkeypatch.setattr(pairs, "raise_if_stopped", stop)
    with pytest.raises(InterruptionError, match="continue with --resume"):
        scanseg.cross_validate(dataset, study, **BEGIN)
    assert not (study / "crossval.json").exists()
    monkeypatch.setattr(pairs, "raise_if_stopped", real)

    result = scanseg.cross_validate(dataset, study, **GO_ON)

    assert [each.name for each in result.record.ensembles] == [PAIR]


def test_a_study_made_before_opens_and_gets_its_pairs_by_resume(dataset, tmp_path):
    study = tmp_path / "study"
    result = scanseg.cross_validate(dataset, study, **BEGIN, ensembles=False)
    assert result.record.ensembles == ()
    assert not (study / PAIRS).exists()
    for name, keys in (("crossval.json", ("ensembles",)), ("ensemble.json", ("average",))):
        content = {key: value for key, value in read(study, name).items() if key not in keys}
        (study / name).write_text(json.dumps(content))
    assert CrossValidationRecord.read(study / "crossval.json") == result.record
    picture = dataset / "imagesTr" / "case_0_0000.png"
    alone = scanseg.load(study / result.record.chosen, device="cpu").predict(picture)
    found = scanseg.load(study, device="cpu").predict(picture)
    np.testing.assert_array_equal(found.label_map, alone.label_map)

    again = scanseg.cross_validate(dataset, study, **GO_ON)

    assert again.record.configurations == result.record.configurations
    assert [each.name for each in again.record.ensembles] == [PAIR]


@pytest.mark.slow
def test_from_the_command_line_on_two_devices(dataset, tmp_path, command):
    words = [word for setting in SETTINGS for word in ("--set", setting)]
    words += [word for name in RECIPES for word in ("--recipe", name)]
    study = tmp_path / "study"

    outcome = command("crossval", dataset, "-o", study, "--devices", "cpu,cpu", "--num-workers", 0, *words)

    assert outcome.code == 0, outcome.stderr
    record = CrossValidationRecord.read(study / "crossval.json")
    assert [each.name for each in record.outcomes] == [*RECIPES, PAIR]
    assert f"one model of the {record.chosen} folds" in outcome.stdout.replace("\n", " ")
    assert len(list((study / PAIRS).glob("*/*.b2nd"))) == 4
    spec = EnsembleSpec(
        members=RECIPES,
        average="probabilities",
        postprocessing=record.ensembles[0].postprocessing,
    )
    write_ensemble(study, spec)
    out = tmp_path / "out"
    outcome = command(
        *("predict", study, dataset / "imagesTr", "-o", out, "--device", "cpu", "--uncertainty", "--mirror")
    )
    assert outcome.code == 0, outcome.stderr
    assert read(out, "prediction.json")["recipe"] == PAIR
    parts = [scanseg.load(study / name, device="cpu") for name in RECIPES]
    for number in range(4):
        image = dataset / "imagesTr" / f"case_{number}_0000.png"
        mean = np.mean(
            [part.predict(image, mirror=True, probabilities=True).probabilities for part in parts], axis=0
        )
        expected = postprocess(
            mean.argmax(0).astype(np.uint8), spec.postprocessing, labels=parts[0].plan.dataset.foreground
        )
        found = np.asarray(Image.open(out / f"case_{number}.png"))
        assert (found == expected).mean() > 0.99  # ties in float16
        assert np.asarray(Image.open(out / "disagreement" / f"case_{number}.png")).max() > 0


def test_settings_of_a_cascade_need_a_recipe_with_one(dataset, tmp_path):
    settings = (*SETTINGS, "cascade.first_stage=elsewhere")
    with pytest.raises(UsageError, match="none of xlstm-unet, xlstm-unet-2d has a cascade"):
        scanseg.cross_validate(dataset, tmp_path / "study", **(BEGIN | {"settings": settings}))
