"""Prediction by several workers of this machine."""

import multiprocessing
from typing import get_args

import pytest

import scanseg
from scanseg.cli import options
from scanseg.cohort import EngineName, ModelChoice
from scanseg.cohort.model_worker import ModelWorker
from scanseg.errors import InputError, UsageError
from scanseg.specs import PredictionRecord
from tests.cohort.conftest import read_outputs


@pytest.fixture
def expected(model, pictures, tmp_path):
    """Files of a prediction on one device."""
    scanseg.load(model, device="cpu").predict_folder(
        pictures, tmp_path / "one", probabilities=True, uncertainty=True
    )
    return read_outputs(tmp_path / "one")


def test_results_equal_one_device_if_a_worker_is_killed_and_a_case_is_faulty(
    model, pictures, expected, tmp_path
):
    (pictures / "faulty_0000.png").write_bytes(b"no picture")
    output, warnings, killed = tmp_path / "two", [], []

    def report(update):
        warnings.extend(update.warnings)
        if update.done == 2 and not killed:
            killed.append(multiprocessing.active_children()[0])
            killed[0].kill()

    options = {"probabilities": True, "uncertainty": True}
    with pytest.raises(InputError, match="case faulty"):
        scanseg.predict_cohort(model, pictures, output, devices=("cpu", "cpu"), progress=report, **options)
    assert killed
    assert any("ended with exit code -9" in warning for warning in warnings)
    assert multiprocessing.active_children() == []
    assert read_outputs(output) == expected
    record = PredictionRecord.read(output / "prediction.json")
    assert record.device == "2 x cpu (1 thread)"
    assert {case.device for case in record.cases if case.fault is None} == {"cpu (1 thread)"}
    assert [case.case for case in record.cases if case.fault is not None] == ["faulty"]
    (pictures / "faulty_0000.png").unlink()
    again = scanseg.load(model, device="cpu").predict_folder(pictures, output, skip_existing=True, **options)
    assert [case.skipped for case in again.cases] == [True] * 8


def test_a_worker_predicts_a_small_case_while_it_loads(model, monkeypatch):
    calls = []

    def predict(predictor, *, segment):
        calls.append((predictor, segment))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("scanseg.cohort.model_worker.predict_small_case", predict)
    worker = ModelWorker(ModelChoice(model), "cpu", 1)
    assert calls == [(worker._predictor, False)]
    assert worker.facts().device.startswith("cpu")


def test_the_command_passes_its_options_on(model, pictures, tmp_path, command, monkeypatch):
    calls = []

    def predict(*arguments, **options):
        calls.append((arguments, options))
        return scanseg.load(model, device="cpu").predict_folder(pictures, tmp_path / "out")

    monkeypatch.setattr("scanseg.api.predict_cohort", predict)
    outcome = command(
        "predict", model, pictures, "-o", tmp_path / "out", "--devices", "cuda:0, cuda:1", "--weights", "best"
    )
    assert outcome.code == 0, outcome.stderr
    (arguments, options), *_ = calls
    assert arguments == (str(model), (pictures,), tmp_path / "out")
    assert options["devices"] == ("cuda:0", "cuda:1")
    assert (options["weights"], options["on"]) == ("best", None)


def test_the_command_has_the_engines_of_the_package():
    annotated, *_ = get_args(options.Engine)
    assert get_args(get_args(annotated)[0]) == get_args(EngineName)


def test_wrong_choices_are_refused_before_any_work(model, pictures, tmp_path, command):
    words = ("predict", model, pictures, "-o", tmp_path / "out")
    for more, message in (
        (("--devices", "cpu,cuda:7"), "device 'cuda:7' is not available"),
        (("--devices", "cpu", "--device", "cpu"), "--device and --devices exclude each other"),
        (("--on", "ray", "--devices", "cpu"), "--on chooses the devices of its cluster"),
        (("--ray-address", "host:1"), "Add --on ray"),
    ):
        outcome = command(*words, *more)
        assert outcome.code == 2, outcome.stderr
        assert message in outcome.stderr
    with pytest.raises(UsageError, match="either devices of this machine or a cluster"):
        scanseg.predict_cohort(model, pictures, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert multiprocessing.active_children() == []
