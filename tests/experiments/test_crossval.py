"""Cross-validation, from a data set to one model of all folds."""

import json
import shutil
import signal
import time
from functools import partial
from threading import Thread

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import scanseg
from scanseg.errors import InputError, InterruptionError, ScansegError, UsageError
from scanseg.experiments import crossval
from scanseg.inference import windows
from scanseg.planning import TrainingSource, prepare_store
from scanseg.runtime import RunContext
from scanseg.specs import Plan
from tests.factories import write_colour_disks, write_disks

from .conftest import SETTINGS

OPTIONS = {"settings": SETTINGS, "num_workers": 0, "devices": ["cpu"]}


def read(folder, name):
    return json.loads((folder / name).read_text())


def test_all_folds_become_one_model(dataset, tmp_path, command):
    words = [word for setting in SETTINGS for word in ("--set", setting)]
    study = tmp_path / "study"

    outcome = command("crossval", dataset, "-o", study, "--devices", "cpu", "--num-workers", 0, *words)

    assert outcome.code == 0, outcome.stderr
    assert "disk" in outcome.stdout
    record = read(study, "crossval.json")
    assert (record["num_cases"], record["chosen"]) == (4, "xlstm-unet")
    folds = record["configurations"][0]["folds"]
    assert [fold["model"] for fold in folds] == ["fold_0", "fold_1"]
    # Two cases in each fold, and one label: the mean over all cases is that of the folds.
    assert record["configurations"][0]["mean_dice"] == pytest.approx(
        np.mean([fold["mean_dice"] for fold in folds])
    )
    report = read(study, "validation.json")
    assert sorted(case["case"] for case in report["cases"]) == [f"case_{number}" for number in range(4)]
    assert report["summary"]["mean_over_labels"]["dice"] == pytest.approx(
        record["configurations"][0]["postprocessed_mean_dice"]
    )
    outcome = command(
        "predict", study, dataset / "imagesTr", "-o", tmp_path / "predictions", "--device", "cpu"
    )
    assert outcome.code == 0, outcome.stderr
    predicted, real = (
        np.stack([np.asarray(Image.open(folder / f"case_{number}.png")) for number in range(4)])
        for folder in (tmp_path / "predictions", dataset / "labelsTr")
    )
    assert 2 * (predicted & real).sum() / (predicted.sum() + real.sum()) > 0.8  # measured: 0.95


@pytest.mark.parametrize(
    ("write", "recipe"),
    [(write_disks, "xlstm-unet"), (partial(write_colour_disks, num_cases=5), "xlstm-unet-fast")],
)
def test_the_default_recipe_is_that_of_one_training(write, recipe, tmp_path, monkeypatch):
    def stop(jobs, **_):
        raise InterruptedError

    monkeypatch.setattr(crossval, "run_jobs", stop)
    dataset, study = write(tmp_path / "data"), tmp_path / "study"
    with pytest.raises(InterruptedError):
        scanseg.cross_validate(dataset, study, devices=["cpu"], num_workers=0, progress=False)
    planned = scanseg.make_plan(dataset, device="cpu", num_workers=0, progress=False)
    plan = Plan.read(study / "plan.json")
    assert (plan.recipe, plan.size) == (planned.recipe, planned.size)
    assert plan.recipe == recipe


def test_the_logits_of_the_folds_are_averaged(dataset, tmp_path, monkeypatch):
    study = tmp_path / "study"
    scanseg.cross_validate(dataset, study, **OPTIONS)
    image = dataset / "imagesTr" / "case_0_0000.png"
    seen = []
    keep = windows.mean_logits

    def note(networks, images, *, flips):
        seen.append(keep(networks, images, flips=flips))
        return seen[-1]

    monkeypatch.setattr(windows, "mean_logits", note)

    for path in (study, study / "fold_0", study / "fold_1"):
        scanseg.load(path, device="cpu").predict(image)

    together, first, second = seen
    torch.testing.assert_close(together, (first + second) / 2)
    assert not torch.allclose(first, second)


def test_recipes_compete(dataset, tmp_path):
    result = scanseg.cross_validate(
        dataset, tmp_path / "study", recipes=("xlstm-unet", "xlstm-unet-2d"), **OPTIONS
    )

    names = [each.name for each in result.record.configurations]
    dice = [each.postprocessed_mean_dice for each in result.record.configurations]
    assert names == ["xlstm-unet", "xlstm-unet-2d"]
    assert result.record.chosen == names[int(np.argmax(dice))]
    members = read(tmp_path / "study", "ensemble.json")["members"]
    assert members == [f"{result.record.chosen}/fold_{fold}" for fold in range(2)]
    models = [fold.model for each in result.record.configurations for fold in each.folds]
    assert models == [f"{name}/fold_{fold}" for name in names for fold in range(2)]

    again = scanseg.cross_validate(dataset, tmp_path / "study", resume=True, devices=["cpu"], num_workers=0)

    assert again.record == result.record
    assert not (tmp_path / "study" / "plan.json").exists()
    options = {"resume": True, "devices": ["cpu"], "num_workers": 0}
    with pytest.raises(
        UsageError, match=r"is a cross-validation of xlstm-unet, xlstm-unet-2d\. Resume all of them"
    ):
        scanseg.cross_validate(dataset, tmp_path / "study", recipes=("xlstm-unet",), **options)


def test_a_study_of_one_recipe_does_not_become_one_of_two(dataset, tmp_path):
    study = tmp_path / "study"
    with pytest.raises(StoppedError):
        scanseg.cross_validate(dataset, study, **OPTIONS, progress=stop_in("fold 0"))

    with pytest.raises(UsageError, match="is a cross-validation of xlstm-unet alone"):
        scanseg.cross_validate(
            dataset, study, recipes=("xlstm-unet", "xlstm-unet-2d"), resume=True, devices=["cpu"]
        )


def test_every_fold_begins_with_the_weights_also_after_resume(dataset, tmp_path):
    model, study = tmp_path / "model", tmp_path / "study"
    scanseg.train(dataset, model, settings=SETTINGS, device="cpu", num_workers=0)
    options = {"devices": ["cpu"], "num_workers": 0}
    with pytest.raises(StoppedError):
        scanseg.cross_validate(dataset, study, initial_weights=model, **options, progress=stop_in("fold 1"))
    shutil.rmtree(study / "fold_1")
    with pytest.raises(UsageError, match=rf"have {model} initial weights, not elsewhere"):
        scanseg.cross_validate(dataset, study, initial_weights="elsewhere", resume=True, **options)

    scanseg.cross_validate(dataset, study, resume=True, **options)

    assert [read(study / f"fold_{fold}", "run.json")["initial_weights"] for fold in range(2)] == [
        str(model)
    ] * 2


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="signals of POSIX")
def test_a_study_that_is_ended_lets_its_trainings_save_their_state(dataset, tmp_path):
    study = tmp_path / "study"
    settings = (*SETTINGS, "training.epochs=100000")

    def stop():
        folders = [study / f"fold_{fold}" for fold in range(2)]
        while not all((folder / "metrics.jsonl").is_file() for folder in folders):
            time.sleep(0.1)
        signal.raise_signal(signal.SIGTERM)

    Thread(target=stop, daemon=True).start()
    with pytest.raises(InterruptionError, match="--resume"):
        scanseg.cross_validate(dataset, study, settings=settings, num_workers=0, devices=["cpu", "cpu"])

    for fold in range(2):
        run = read(study / f"fold_{fold}", "run.json")
        assert run["status"] == "interrupted"
        assert any((study / f"fold_{fold}" / "state").iterdir())


def test_devices_train_folds_at_the_same_time(dataset, tmp_path):
    alone, spread = tmp_path / "alone", tmp_path / "spread"
    scanseg.cross_validate(dataset, alone, **OPTIONS)
    scanseg.cross_validate(dataset, spread, **(OPTIONS | {"devices": ["cpu", "cpu"]}))

    for fold in ("fold_0", "fold_1"):
        ours, theirs = (load_file(folder / fold / "model.safetensors") for folder in (spread, alone))
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_device_that_is_not_there_is_told_of_before_anything_is_done(dataset, tmp_path):
    options = OPTIONS | {"devices": ["cpu", "cuda:77"]}
    with pytest.raises(UsageError, match="device 'cuda:77' is not available"):
        scanseg.cross_validate(dataset, tmp_path / "study", **options)
    assert not (tmp_path / "study").exists()


def test_a_fold_that_fails_elsewhere_is_told_of(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(crossval, "require_devices", lambda devices: None)  # lost on the way, say
    options = OPTIONS | {"devices": ["cuda:78", "cuda:77"]}
    with pytest.raises(ScansegError, match=r"fold \d on cuda:77: device 'cuda:77' is not available"):
        scanseg.cross_validate(dataset, tmp_path / "study", **options)


class StoppedError(Exception):
    """Stands for a process that is killed."""


def stop_in(fold):
    """A listener that dies when a fold is trained."""

    def progress(progress):
        if progress.task == "training" and fold in progress.detail:
            raise StoppedError

    return progress


def test_what_is_done_is_kept(dataset, tmp_path):
    study = tmp_path / "study"
    with pytest.raises(StoppedError):
        scanseg.cross_validate(dataset, study, **OPTIONS, progress=stop_in("fold 1"))
    before = (study / "fold_0" / "model.safetensors").stat().st_mtime_ns
    with pytest.raises(UsageError, match="--resume"):
        scanseg.cross_validate(dataset, study, **OPTIONS)

    with pytest.raises(
        UsageError, match=r"training\.epochs is 3, not 4; recipe is xlstm-unet, not plain-unet"
    ):
        scanseg.cross_validate(
            dataset,
            study,
            recipes=("plain-unet",),
            settings=("training.epochs=4",),
            devices=["cpu"],
            resume=True,
        )

    result = scanseg.cross_validate(dataset, study, num_workers=0, devices=["cpu"], resume=True)

    assert (study / "fold_0" / "model.safetensors").stat().st_mtime_ns == before
    assert len(result.record.configurations[0].folds) == 2


def test_folds_trained_apart_are_made_one_model(dataset, tmp_path):
    study = tmp_path / "study"
    study.mkdir()
    plan = study / "plan.json"
    plan.write_text(scanseg.make_plan(dataset, settings=SETTINGS, num_workers=0).to_json())
    options = {"device": "cpu", "num_workers": 0, "store": tmp_path / "stores", "keep_predictions": True}
    for fold in range(2):
        scanseg.train(plan, study / f"fold_{fold}", fold=fold, **options)
    before = [(study / f"fold_{fold}" / "run.json").read_text() for fold in range(2)]

    scanseg.cross_validate(
        plan, study, resume=True, store=tmp_path / "stores", devices=["cpu"], num_workers=0
    )

    assert before == [(study / f"fold_{fold}" / "run.json").read_text() for fold in range(2)]
    with pytest.raises(InputError, match=r"is an ensemble\. Choose one of its members: .*fold_0, .*fold_1"):
        scanseg.train(plan, tmp_path / "model", initial_weights=study, device="cpu")
    assert scanseg.load(study, device="cpu").plan.dataset.name == "disks"


def test_members_that_do_not_predict_alike_are_refused(dataset, tmp_path):
    study = tmp_path / "study"
    scanseg.cross_validate(dataset, study, **OPTIONS)
    plan = read(study / "fold_1", "plan.json")
    plan["preprocessing"]["crop_to_nonzero"] = not plan["preprocessing"]["crop_to_nonzero"]
    (study / "fold_1" / "plan.json").write_text(json.dumps(plan))

    with pytest.raises(InputError, match=r"fold_1 cannot predict together with .*preprocessing"):
        scanseg.load(study, device="cpu")


def test_each_fold_has_the_minutes_and_the_batch_that_were_given(dataset, tmp_path, command):
    study = tmp_path / "study"
    settings = [setting for setting in SETTINGS if not setting.startswith("sampling.batch_size")]
    words = [word for setting in (*settings, "training.epochs=100000") for word in ("--set", setting)]
    call = ("crossval", dataset, "-o", study, "--devices", "cpu", "--num-workers", 0)

    outcome = command(*call, *words, "--max-minutes", 0.01, "--batch-size", 3)

    assert outcome.code == 0, outcome.stderr
    for fold in ("fold_0", "fold_1"):
        plan, run = read(study / fold, "plan.json"), read(study / fold, "run.json")
        assert (plan["training"]["max_minutes"], plan["sampling"]["batch_size"]) == (0.01, 3)
        assert run["status"] == "finished"
        assert run["training_seconds"] >= 0.6
        assert run["epochs_done"] < 100000
    refused = command(*call, "--resume", "--max-minutes", 5, "--batch-size", 2)
    assert (refused.code, refused.stdout) == (2, "")
    assert "sampling.batch_size is 3, not 2; training.max_minutes is 0.01, not 5.0" in refused.stderr
    assert command(*call, "--resume", "--max-minutes", 0.01).code == 0
    assert command(*call, "--resume").code == 0


def test_a_study_in_several_processes_is_refused(dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", "2")

    with pytest.raises(UsageError, match="without torchrun, and with --devices"):
        scanseg.cross_validate(dataset, tmp_path / "study", **OPTIONS)


def test_a_plan_with_a_recipe_and_a_recipe_twice_are_refused(dataset, tmp_path):
    plan = tmp_path / "plan.json"
    plan.write_text(scanseg.make_plan(dataset, settings=SETTINGS, num_workers=0).to_json())

    with pytest.raises(UsageError, match="is a plan and has its recipe"):
        scanseg.cross_validate(plan, tmp_path / "study", recipes=("xlstm-unet",), **OPTIONS)
    names = {"recipes": "no-recipe", "devices": "cpu", "settings": SETTINGS[0], "num_workers": 0}
    # Text is one name, not a sequence of letters.
    with pytest.raises(UsageError, match="recipe 'no-recipe': expected one of xlstm-unet, "):
        scanseg.cross_validate(dataset, tmp_path / "other", **names)
    with pytest.raises(UsageError, match="one is given twice"):
        scanseg.cross_validate(dataset, tmp_path / "study", recipes=("xlstm-unet",) * 2, **OPTIONS)


@pytest.mark.parametrize("given", ["dataset", "plan", "plan and store"])
def test_a_fold_without_validation_cases_is_refused_before_any_training(dataset, tmp_path, command, given):
    cases = [f"case_{number}" for number in range(4)]
    folds = [{"train": cases[:3], "val": cases[3:]}, {"train": cases, "val": []}]
    (dataset / "splits_final.json").write_text(json.dumps(folds))
    source, where, folder = dataset, dataset, tmp_path / "stores"
    if given != "dataset":
        plan = scanseg.make_plan(dataset, settings=SETTINGS, num_workers=0)
        source = where = tmp_path / "plan.json"
        source.write_text(plan.to_json())
    if given == "plan and store":
        training_source = TrainingSource(source, plan=plan)
        prepared = prepare_store(plan, training_source, folder, context=RunContext(num_workers=0))
        shutil.rmtree(dataset)
        where = prepared.store.folder

    outcome = command(
        "crossval",
        source,
        "-o",
        tmp_path / "study",
        "--devices",
        "cpu",
        "--num-workers",
        0,
        "--store",
        folder,
    )

    assert (outcome.code, outcome.stdout) == (1, "")
    assert outcome.after_start.startswith(
        f"error: {where}: fold 1 has no validation cases (splits_final.json), "
    )
    assert outcome.after_start.count("\n") == 1
    assert not list(tmp_path.glob("study/**/run.json"))


@pytest.mark.parametrize("exists", [False, True])
def test_there_must_be_something_to_go_on_with(dataset, tmp_path, exists):
    if exists:
        (tmp_path / "study").mkdir()
    with pytest.raises(UsageError, match=r"study: nothing to resume\. .* leave --resume out"):
        scanseg.cross_validate(dataset, tmp_path / "study", resume=True, devices=["cpu"])
