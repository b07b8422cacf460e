"""A training whose end the clock decides."""

import re
from types import SimpleNamespace

import pytest

from scanseg.models import ModelFolder
from scanseg.specs import ScheduleSpec
from scanseg.training.schedules import learning_rate
from scanseg.training.step import TrainingStep


class Clock:
    """A clock that goes on by a second each time it is read."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        self.now += 1
        return self.now


@pytest.fixture
def metrics(train, tmp_path, monkeypatch):
    """Metrics of a training whose every reading of the clock takes a second."""

    def run(**options):
        monkeypatch.setattr("scanseg.training.loop.time", SimpleNamespace(monotonic=Clock().monotonic))
        result = train(**options)
        return result, ModelFolder.open(tmp_path / "model").metrics.read()

    return run


def test_the_clock_ends_the_training_and_the_learning_rate_falls_with_it(metrics):
    result, lines = metrics(epochs=1000, max_minutes=0.5, lr=0.01)

    seconds = [line["seconds"] for line in lines]
    assert 30 <= seconds[-1] <= 33
    assert seconds[-2] < 30
    assert seconds[-1] <= result.seconds <= seconds[-1] + 1  # scoring counts too
    assert 1 < result.epochs_done == len(lines) < 1000
    rates = [line["lr"] for line in lines]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.15 * rates[0]
    assert "validation_dice" in lines[-1]


def test_compiling_kernels_is_no_training_time(train, tmp_path, monkeypatch):
    clock = Clock()
    monkeypatch.setattr("scanseg.training.loop.time", clock)

    def compile_slowly(step, batch):
        if not step.compiling_seconds:
            clock.now += 100
            step.compiling_seconds = 100.0

    monkeypatch.setattr(TrainingStep, "_compile", compile_slowly)
    result = train(epochs=1000, max_minutes=0.5, lr=0.01)

    assert 30 <= result.seconds <= 34
    assert result.epochs_done > 1
    first, *_ = ModelFolder.open(tmp_path / "model").metrics.read()
    assert first["seconds"] < 30
    assert first["lr"] > 0.005


def test_epochs_end_it_where_the_clock_would_not(metrics):
    result, lines = metrics(epochs=3, max_minutes=60.0)

    assert result.epochs_done == len(lines) == 3
    # Progress is that of the iterations: the last step is the sixth of six.
    assert lines[-1]["lr"] == pytest.approx(learning_rate(ScheduleSpec(), lr=0.01, progress=5 / 6))


def reports(train, monkeypatch, **options):
    """What a listener hears of a training whose every reading of the clock takes a second."""
    monkeypatch.setattr("scanseg.training.loop.time", SimpleNamespace(monotonic=Clock().monotonic))
    heard = []
    result = train(**options, progress=heard.append)
    return result, [report for report in heard if report.task == "training"]


def test_progress_by_the_clock_is_told_in_seconds_and_iterations_as_they_are(train, monkeypatch):
    result, heard = reports(train, monkeypatch, epochs=1000, max_minutes=0.5)

    assert {report.unit for report in heard} == {"seconds"}
    assert {report.total for report in heard[:-1]} <= {
        29,
        30,
    }  # a second may be reserved for the last scoring
    assert [report.done < report.total for report in heard] == [True] * (len(heard) - 1) + [False]
    assert heard[4].detail.startswith("iteration 5, epoch 3 of at most 1000, loss ")
    # The clock may end the last epoch after the first of its two steps.
    iteration = int(re.match(r"iteration (\d+), ", heard[-1].detail)[1])
    assert iteration in (2 * result.epochs_done - 1, 2 * result.epochs_done)
    assert f", epoch {result.epochs_done} of at most 1000" in heard[-1].detail


def test_progress_by_the_clock_ends_with_the_epochs_where_they_are_done_sooner(train, monkeypatch):
    _, heard = reports(train, monkeypatch, epochs=3, max_minutes=60.0)

    assert len(heard) == 6
    assert heard[-1].done == heard[-1].total < 20
    assert all(report.total < 20 for report in heard)


def test_progress_without_a_clock_counts_iterations(train, monkeypatch):
    _, heard = reports(train, monkeypatch, epochs=3)

    assert [(report.done, report.total, report.unit) for report in heard] == [
        (done, 6, "things") for done in range(1, 7)
    ]
