"""A training that goes on is the training that began."""

import json
import shutil
import signal
from types import SimpleNamespace

import pytest
import torch

import scanseg
from scanseg.errors import InputError, InterruptionError, UsageError
from scanseg.runtime import signals
from scanseg.runtime.signals import watch_signals
from scanseg.specs import TrainingSpec
from scanseg.training.loop import TrainingLoop
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


def test_one_that_was_killed_before_its_record_is_asked_for_its_fold(train, tmp_path, run):
    with pytest.raises(StoppedError):
        train(fold=2, progress=kill_in("loading"))
    (tmp_path / "model" / "run.json").unlink()

    with pytest.raises(UsageError, match="--fold"):
        train(resume=True)
    train(resume=True, fold=2)
    assert run()["fold"] == 2

    (tmp_path / "model" / "run.json").unlink()
    with pytest.raises(InputError, match=r"no run\.json"):
        train(resume=True, fold=2)


def test_a_training_whose_checkpoint_is_gone_does_not_begin_anew(train, tmp_path, run):
    train()
    weights = (tmp_path / "model" / "model.safetensors").read_bytes()
    shutil.rmtree(tmp_path / "model" / "state")
    before = run()

    with pytest.raises(
        InputError, match=r"records \d+ iterations, but their checkpoint \(state/\) is missing"
    ):
        train(resume=True)
    assert run() == before
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == weights


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
        ({"epochs": 4}, "training.epochs is 2, not 4"),
        ({"fold": 3}, "fold is 0, not 3"),
        ({"recipe": "plain-unet"}, "recipe is xlstm-unet, not plain-unet"),
        (
            {"settings": ("sampling.patch_size=[32, 32]",)},
            r"sampling.patch_size is \[16, 16\], not \[32, 32\]",
        ),
        ({"epochs": 4, "fold": 3}, "training.epochs is 2, not 4; fold is 0, not 3"),
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


def test_a_loss_is_told_of_at_the_first_step_wherever_an_epoch_goes_on():
    """On a GPU the loss is read now and then only, counted from the epoch's begin, which may be long past."""
    heard = []
    run = SimpleNamespace(
        _shown_loss=None,
        _shown_dice=None,
        _device=torch.device("cuda"),
        _plan=SimpleNamespace(training=TrainingSpec(epochs=2)),
        _iterations=100,
        _fraction_done=0.04,
        step=SimpleNamespace(iterations_done=104),
        epochs_done=1,
        _context=SimpleNamespace(progress=heard.append),
    )

    TrainingLoop._report(run, [torch.tensor(loss) for loss in (5.0, 4.0, 3.0, 2.0)])
    TrainingLoop._report(run, [torch.tensor(loss) for loss in (5.0, 4.0, 3.0, 2.0, 1.0)])

    assert [progress.detail for progress in heard] == ["epoch 1/2, loss 2.000"] * 2


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
