"""A training that goes on is the training that began."""

import json
import platform
import shutil
import signal
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

import scanseg
from scanseg.errors import InputError, InterruptionError, UsageError
from scanseg.models import ModelFolder
from scanseg.runtime import signals
from scanseg.runtime.signals import watch_signals
from tests.factories import disk, write_case, write_disks

from .conftest import SETTINGS


class StoppedError(Exception):
    """Stands for a process that is killed."""


def kill_in(task):
    """A listener that dies in a task."""

    def progress(progress):
        if progress.task == task:
            raise StoppedError

    return progress


def signal_in(task):
    """A listener that has SIGINT sent in a task, once: a second would end the tests."""
    sent = []

    def progress(progress):
        if progress.task == task and not sent:
            sent.append(task)
            signal.raise_signal(signal.SIGINT)

    return progress


@pytest.fixture
def run(tmp_path):
    """Read the run's record."""
    return lambda: json.loads((tmp_path / "model" / "run.json").read_text())


def write_splits(dataset, train, validation):
    """Write one fold, by the numbers of its cases."""
    fold = {"train": [f"case_{n}" for n in train], "val": [f"case_{n}" for n in validation]}
    (dataset / "splits_final.json").write_text(json.dumps([fold]))


def test_a_new_division_does_not_bring_validation_cases_into_training(train, dataset, run):
    write_splits(dataset, (0, 1, 2), (3, 4))
    with pytest.raises(StoppedError):
        train(progress=kill_in("training"))
    write_splits(dataset, (2, 3, 4), (0, 1))
    write_case(dataset, "case_7", disk(7))

    train(resume=True)

    assert run()["train_cases"] == ["case_0", "case_1", "case_2"]
    assert run()["validation_cases"] == ["case_3", "case_4"]
    assert run()["status"] == "finished"


def test_cases_that_are_gone_are_named(train, dataset, run):
    write_splits(dataset, (0, 1, 2), (3, 4))
    with pytest.raises(StoppedError):
        train(progress=kill_in("training"))
    before = run()
    write_splits(dataset, (0,), (2, 3))
    for number in (1, 4):
        (dataset / "imagesTr" / f"case_{number}_0000.png").unlink()
        (dataset / "labelsTr" / f"case_{number}.png").unlink()

    with pytest.raises(InputError, match=r"lacks cases .* case_1, case_4"):
        train(resume=True)
    assert run() == before


def test_one_that_was_killed_while_cases_were_loaded_goes_on(train, run):
    with pytest.raises(StoppedError):
        train(fold=2, progress=kill_in("loading"))
    assert (run()["fold"], run()["iterations_done"]) == (2, 0)

    assert train(resume=True).epochs_done == 2
    assert (run()["fold"], run()["status"]) == (2, "finished")


def test_a_training_that_was_killed_before_its_record_keeps_fold_and_weights(train, tmp_path, run):
    train()
    (tmp_path / "model").rename(tmp_path / "first")
    with pytest.raises(StoppedError):
        train(fold=2, initial_weights=tmp_path / "first", progress=kill_in("loading"))
    (tmp_path / "model" / "run.json").unlink()

    with pytest.raises(UsageError, match=r"fold is 2, not 1; initial weights are .*first, not .*other"):
        train(resume=True, fold=1, initial_weights=tmp_path / "other")
    train(resume=True)
    assert (run()["fold"], run()["initial_weights"]) == (2, str(tmp_path / "first"))


def test_a_training_that_was_killed_before_its_plan_starts_again(train, tmp_path, run):
    with pytest.raises(StoppedError):
        train(progress=kill_in("loading"))
    for name in ("run.json", "plan.json", "train.log"):
        (tmp_path / "model" / name).unlink()
    train(resume=True, fold=1)
    assert run()["fold"] == 1


def test_the_record_has_every_command_that_resumed_the_training(train, run):
    with pytest.raises(InterruptionError):
        train(progress=signal_in("training"))
    first = run()
    (session,) = first["sessions"]
    assert session["ended"] is not None
    assert session["iterations_done"] == first["iterations_done"]
    assert session["host"] == platform.node()
    assert len(first["data_digest"]) == 64
    assert (first["seed"], first["mirror_validation"]) == (0, False)

    train(resume=True)
    assert run()["sessions"][0] == session
    assert len(run()["sessions"]) == 2
    assert run()["sessions"][1]["iterations_done"] == run()["iterations_done"]
    assert run()["data_digest"] == first["data_digest"]


def test_records_of_one_session_are_read(train, tmp_path, run):
    train()
    content = run()
    (session,) = content.pop("sessions")
    content.pop("data_digest")
    older = {"command", "started", "device", "precision", "versions", "num_processes"}
    content |= {name: session[name] for name in older}
    (tmp_path / "model" / "run.json").write_text(json.dumps(content))
    record = ModelFolder.open(tmp_path / "model").read_run()
    assert record.sessions[0].device == session["device"]
    assert record.sessions[0].ended is None
    assert (record.sessions[0].iterations_done, record.data_digest) == (content["iterations_done"], None)


def test_a_training_of_an_older_version_before_its_record_is_asked_for_its_fold(train, tmp_path, run):
    with pytest.raises(StoppedError):
        train(fold=2, progress=kill_in("loading"))
    for name in ("run.json", "setup.json"):
        (tmp_path / "model" / name).unlink()

    with pytest.raises(UsageError, match="--fold"):
        train(resume=True)
    train(resume=True, fold=2)
    assert run()["fold"] == 2

    (tmp_path / "model" / "run.json").unlink()
    with pytest.raises(InputError, match=r"no run\.json"):
        train(resume=True, fold=2)


def test_a_training_whose_checkpoint_is_gone_does_not_begin_anew(train, tmp_path, run):
    with pytest.raises(InterruptionError):
        train(progress=signal_in("training"))
    shutil.rmtree(tmp_path / "model" / "state")
    before = run()

    with pytest.raises(
        InputError, match=r"records \d+ iterations?, but their checkpoint \(state/\) is missing"
    ):
        train(resume=True)
    assert run() == before


def test_a_finished_training_is_scored_again_without_its_checkpoint(train, tmp_path, run):
    result = train()
    model = tmp_path / "model"
    shutil.rmtree(model / "state")
    weights, report = (model / "model.safetensors").read_bytes(), (model / "validation.json").read_bytes()
    before, tasks = run(), []

    again = train(resume=True, progress=lambda update: tasks.append(update.task))
    assert again == replace(result, was_finished=True, warnings=again.warnings)
    assert {"training", "validating"}.isdisjoint(tasks)

    (model / "validation.json").unlink()
    again = train(resume=True, progress=lambda update: tasks.append(update.task))
    assert again.was_finished
    assert "validating" in tasks
    assert "training" not in tasks
    assert run() == before
    assert (model / "validation.json").read_bytes() == report
    assert (model / "model.safetensors").read_bytes() == weights


def test_a_finished_training_is_continued_for_longer(train, tmp_path, run):
    schedule = {"settings": ('training.schedule={"kind": "constant"}',)}
    train(epochs=3, **schedule)
    model = tmp_path / "model"
    expected = load_file(model / "model.safetensors")
    model.rename(tmp_path / "long")
    train(epochs=1, **schedule)
    assert run()["epochs_done"] == 1
    with pytest.raises(
        UsageError, match=r"training\.epochs=1: the training is finished with 1 epoch in 0\.\d"
    ):
        train(resume=True, epochs=1, max_minutes=60)
    with pytest.raises(UsageError, match=r"training\.max_minutes=1e-05: the training is finished"):
        train(resume=True, epochs=3, max_minutes=1e-5)
    assert run()["epochs_done"] == 1
    assert not train(resume=True, epochs=3).was_finished
    assert (run()["epochs_done"], run()["status"]) == (3, "finished")
    assert [session["epochs"] for session in run()["sessions"]] == [1, 3]
    assert json.loads((model / "plan.json").read_text())["training"]["epochs"] == 3
    for name, tensor in load_file(model / "model.safetensors").items():
        assert torch.equal(tensor, expected[name]), name
    assert train(resume=True).was_finished


def test_a_training_that_stopped_early_is_not_continued_in_silence(train, run):
    stopped = 'training.early_stop={"patience_epochs": 1, "measure": "loss"}'
    result = train(epochs=30, settings=(stopped, "training.optimizer.lr=1e-12"))
    assert result.epochs_done < 30
    with pytest.raises(UsageError, match=r"training\.early_stop: the training is finished"):
        train(resume=True, epochs=40)


def test_a_signal_while_cases_are_loaded(train, run):
    with pytest.raises(InterruptionError, match="--resume"):
        train(progress=signal_in("loading"))
    assert (run()["status"], run()["iterations_done"]) == ("interrupted", 0)
    assert train(resume=True).epochs_done == 2


def test_a_signal_in_validation(train, tmp_path, run):
    with pytest.raises(
        InterruptionError, match=r"stopped in validation, .* continue with --resume"
    ) as caught:
        train(progress=signal_in("validating"))
    assert caught.value.signal_number == signal.SIGINT
    assert run()["status"] == "finished"
    assert (tmp_path / "model" / "model.safetensors").is_file()
    assert not (tmp_path / "model" / "validation.json").exists()

    train(resume=True)
    assert (tmp_path / "model" / "validation.json").is_file()


def test_a_fold_that_is_neither_a_number_nor_all(train):
    with pytest.raises(UsageError, match="fold first does not exist"):
        train(fold="first")


def test_the_same_options_may_be_given_again(train):
    options = {"fold": 1, "epochs": 3, "lr": 0.01, "settings": ("training.seed=5",)}
    with pytest.raises(StoppedError):
        train(**options, progress=kill_in("training"))

    assert train(**options, resume=True).epochs_done == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 0.5}, r"training.optimizer.lr is 0.01, not 0.5"),
        ({"fold": 3}, "fold is 0, not 3"),
        ({"recipe": "plain-unet"}, "recipe is xlstm-unet, not plain-unet"),
        (
            {"settings": ("sampling.patch_size=[32, 32]",)},
            r"sampling.patch_size is \[16, 16\], not \[32, 32\]",
        ),
        ({"seed": 4, "fold": 3}, "training.seed is 0, not 4; fold is 0, not 3"),
    ],
)
def test_other_options_are_refused_by_name(train, options, message):
    with pytest.raises(StoppedError):
        train(progress=kill_in("training"))
    with pytest.raises(UsageError, match=message):
        train(**options, resume=True)


def test_a_network_that_cannot_be_built_is_refused_before_work_begins(dataset, plan, train, tmp_path):
    wrong = ("sampling.patch_size=[15, 16]",)
    with pytest.raises(InputError, match="15"):
        train(settings=wrong)
    with pytest.raises(InputError, match="15"):
        scanseg.make_plan(dataset, settings=(*SETTINGS, *wrong), num_workers=0)
    assert {path.name for path in tmp_path.iterdir()} == {"disks", "plan.json"}

    train()


def test_data_sets_of_one_name_have_stores_of_their_own(tmp_path):
    folders = [
        write_disks(tmp_path / parent / "disks", numbers=numbers)
        for parent, numbers in (("a", range(4)), ("b", range(4, 8)))
    ]
    for folder in folders:
        scanseg.train(
            str(folder),
            str(folder.parent / "model"),
            store=str(tmp_path / "stores"),
            settings=SETTINGS,
            device="cpu",
            num_workers=0,
        )

    cases = [
        {path.name for path in (store / "cases").iterdir()} for store in (tmp_path / "stores").glob("disks-*")
    ]
    assert sorted(map(sorted, cases)) == [[f"case_{n}" for n in range(4)], [f"case_{n}" for n in range(4, 8)]]


def test_a_plan_trains_from_its_store_alone(train, dataset, tmp_path):
    train()
    shutil.rmtree(dataset)
    shutil.rmtree(tmp_path / "model")

    assert train().epochs_done == 2


def test_a_source_that_is_not_there(tmp_path):
    for name in ("plan.json", "dataset"):
        with pytest.raises(InputError, match=rf"{name}: no such file or folder"):
            scanseg.train(tmp_path / name, tmp_path / "model")


def test_paths_may_be_text(dataset, plan, train, tmp_path):
    assert scanseg.check(str(dataset), num_workers=0).num_cases == 5
    assert scanseg.make_plan(str(dataset), settings=SETTINGS, num_workers=0).to_json() == plan.read_text()
    train()
    predictor = scanseg.load(str(tmp_path / "model"), device="cpu")
    predictor.predict_folder(dataset / "imagesTr", tmp_path / "predictions")

    report = scanseg.evaluate(str(tmp_path / "predictions"), str(dataset / "labelsTr"), num_workers=0)

    assert report.summary.num_cases == 5


def test_a_signal_sent_twice_at_once_is_one_and_a_later_one_acts_as_always(monkeypatch, request):
    now = [100.0]
    monkeypatch.setattr(signals.time, "monotonic", lambda: now[0])
    # A shell ignores the interrupt for what it runs in the background: these tests, perhaps.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    with watch_signals() as stopped:
        signal.raise_signal(signal.SIGTERM)
        now[0] += 1
        signal.raise_signal(signal.SIGINT)
        assert stopped() == signal.SIGTERM
        now[0] += 2
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_second_training_in_one_folder_is_refused_and_the_first_goes_on(train, run):
    refused = []

    def start_another(progress):
        if progress.task == "training" and not refused:
            with pytest.raises(
                UsageError, match=r"a training is running in .*model\. Wait for it, stop it, or choose"
            ) as error:
                train(resume=True)
            refused.append(error)

    train(progress=start_another)
    assert len(refused) == 1
    assert run()["status"] == "finished"


def test_a_plan_whose_data_set_has_moved_is_told_where_to_look(train, dataset, tmp_path):
    moved = tmp_path / "elsewhere" / dataset.name
    moved.parent.mkdir()
    dataset.rename(moved)
    with pytest.raises(
        InputError, match=r"disks: the data set of the plan is missing.*--set dataset_path=FOLDER"
    ):
        train()
    train(settings=[f"dataset_path={moved}"])
