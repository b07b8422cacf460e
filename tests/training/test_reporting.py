"""Progress of a training: the first note, losses within epochs, the log, warnings of slow steps."""

import json
import re
from types import SimpleNamespace

import pytest
import torch

import scanseg
from scanseg.errors import InterruptionError
from scanseg.experiments.curves import write_curves
from scanseg.models import ModelFolder
from scanseg.runtime import RunContext
from scanseg.specs import TrainingSpec
from scanseg.training.reporting import TrainingReporter
from scanseg.training.step_watch import StepWatch
from scanseg.training.time_limit import affordable_batches, finished_fraction


class Clock:
    """A clock that goes on by a second each time it is read."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        self.now += 1
        return self.now


def test_a_training_starts_with_a_note_about_itself(train, tmp_path):
    heard = []
    train(progress=heard.append)
    (note,) = [note for update in heard for note in update.notes]
    assert re.fullmatch(
        r"training xlstm-unet on cpu \(\d+ threads?\): 4 training and 1 validation case, 0\.\d\d million parameters, "
        rf"batches of \d+ x 16 x 16, 2 epochs, output {re.escape(str(tmp_path / 'model'))}",
        note,
    )


def test_losses_within_an_epoch_are_written_over_time(train, tmp_path, monkeypatch):
    monkeypatch.setattr("scanseg.training.loop.time", SimpleNamespace(monotonic=Clock().monotonic))
    steps = ("training.iterations_per_epoch=500",)
    train(epochs=1, max_minutes=0.5, settings=steps)
    folder = ModelFolder.open(tmp_path / "model")
    (epoch,) = folder.metrics.read()
    *within, last = folder.metrics.read_all()
    assert last == epoch
    assert len(within) > 10
    assert [line["epochs_done"] for line in within] == [round(line["iterations"] / 500, 4) for line in within]
    assert [line["seconds"] for line in within] == sorted(line["seconds"] for line in within)
    assert {line["epoch"] for line in within} == {1}
    mean = sum(line["loss"] for line in within) / len(within)
    assert epoch["loss"] == pytest.approx(mean, rel=0.2)
    write_curves(folder)
    assert folder.curves_path.stat().st_size > 10_000


def test_losses_of_steps_to_repeat_are_dropped(tmp_path):
    folder = ModelFolder(tmp_path, None)
    for epoch, done, iterations in ((1, 0.5, 5), (1, None, 10), (2, 1.3, 13), (2, 1.6, 16)):
        line = {"epoch": epoch, "iterations": iterations, "loss": 1.0}
        folder.metrics.append(line if done is None else line | {"epochs_done": done})
    assert folder.metrics.keep(1, iterations_done=14) is None
    assert [line["iterations"] for line in folder.metrics.read_all()] == [5, 10, 13]
    assert [line["epoch"] for line in folder.metrics.read()] == [1]


def test_the_log_has_notes_warnings_scores_and_errors_of_all_sessions(train, tmp_path):
    def stop(update):
        if update.task == "training":
            raise InterruptionError("stopped by the test", signal_number=2)

    with pytest.raises(InterruptionError):
        train(progress=stop)
    train(resume=True)
    lines = (tmp_path / "model" / "train.log").read_text().splitlines()
    times, texts = zip(*(line.split("  ", 1) for line in lines), strict=True)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", time) for time in times)
    assert sum(text.startswith("training xlstm-unet on cpu") for text in texts) == 2
    assert "error: stopped by the test" in texts
    assert re.fullmatch(r"validation Dice: disk [01]\.\d{4}, mean [01]\.\d{4}", texts[-2])
    assert re.fullmatch(r"finished: 2 epochs in 0:0\d:\d\d", texts[-1])


def test_warnings_of_the_data_set_are_in_the_log(dataset, plan, tmp_path):
    (dataset / "imagesTr" / "notes.txt").write_text("for people")
    result = scanseg.train(plan, tmp_path / "model", device="cpu", num_workers=0)
    log = (tmp_path / "model" / "train.log").read_text()
    assert result.warnings
    for warning in result.warnings:
        assert f"warning: {warning}" in log


def test_a_training_shows_progress_unless_it_is_switched_off(train, capsys):
    train(progress=True)
    assert "training xlstm-unet on cpu" in capsys.readouterr().err
    train(progress=False, resume=True, epochs=3)
    assert capsys.readouterr() == ("", "")


def test_a_signal_while_patches_are_scored_is_obeyed(train, tmp_path):
    heard = []

    def stop(update):
        heard.append(update.task)
        if update.task == "scoring patches" and heard.count("scoring patches") == 1:
            raise InterruptionError("stopped in scoring", signal_number=2)

    with pytest.raises(InterruptionError):
        train(progress=stop, settings=("training.validation_batches=3",))
    record = json.loads((tmp_path / "model" / "run.json").read_text())
    assert (record["status"], record["iterations_done"]) == ("interrupted", 4)
    assert train(resume=True).epochs_done == 2


@pytest.fixture
def reporter(train, tmp_path):
    def make(device, progress):
        train()
        context = RunContext(device="cpu", progress=progress)
        made = TrainingReporter(ModelFolder.open(tmp_path / "model"), context)
        made._device = torch.device(device)
        return made

    return make


def test_the_loss_is_shown_at_the_first_step_wherever_an_epoch_goes_on(reporter):
    """On a GPU the loss is read at intervals, counted from the start of the epoch, which may be long past."""
    heard = []
    made = reporter("cuda", heard.append)
    numbers = {"lr": 0.1, "iterations": 104, "iterations_per_epoch": 100, "epochs_done": 1}
    for losses in ((5.0, 4.0, 3.0, 2.0), (5.0, 4.0, 3.0, 2.0, 1.0)):
        made.after_step([torch.tensor(loss) for loss in losses], seconds=1.0, fraction=0.04, **numbers)
    assert [update.detail for update in heard] == ["epoch 1/2, loss 2.000"] * 2


class Times:
    """Clocks of a process that gets a part of the processors."""

    def __init__(self, part):
        self.now, self.part = 0.0, part

    def wall(self):
        return self.now

    def processor(self):
        return self.now * self.part


def watch(times, *, seconds, num_steps, on_cpu=True):
    made = StepWatch(on_cpu, clock=times.wall, processor_clock=times.processor)
    for _ in range(num_steps):
        with made.step():
            times.now += seconds
    return made


@pytest.mark.parametrize(("part", "warned"), [(0.4, True), (0.6, False), (2.0, False)])
def test_a_step_that_waits_for_processors_is_reported_once(part, warned):
    made = watch(Times(part), seconds=4.0, num_steps=4)
    warnings = made.busy_processors(num_threads=2)
    assert bool(warnings) is warned
    if warned:
        assert warnings[0].startswith(
            "3 steps took 0:00:12 but only 0:00:05 of processor time on 2 threads: other programs"
        )
    assert made.busy_processors(num_threads=2) == []


def test_steps_on_a_gpu_and_short_measurements_are_not_judged():
    assert watch(Times(0.1), seconds=4.0, num_steps=4, on_cpu=False).busy_processors(num_threads=2) == []
    assert watch(Times(0.1), seconds=4.0, num_steps=3).busy_processors(num_threads=2) == []


def test_a_training_of_days_is_reported_before_it_goes_on():
    made = watch(Times(1.0), seconds=22.0, num_steps=2)
    (warning,) = made.long_training(epochs=1000, iterations=250, num_left=249_998)
    assert warning.startswith("1000 epochs of 250 steps take about 63.7 days, since a step takes 22 s")
    assert made.long_training(epochs=1000, iterations=250, num_left=249_998) == []
    short = watch(Times(1.0), seconds=22.0, num_steps=2)
    assert short.long_training(epochs=10, iterations=250, num_left=2498) == []


def test_scoring_counts_in_the_time_limit():
    training = TrainingSpec(max_minutes=2.0, epochs=1000, validation_batches=20)
    # Steps of 20 s: scoring 20 batches would take 133 s, a tenth of the limit is 12 s.
    assert affordable_batches(training, iterations=3, seconds=60.0) == 1
    numbers = {"iterations_per_epoch": 250, "iterations": 5}
    assert finished_fraction(training, seconds=100.0, num_batches=1, **numbers) == pytest.approx(
        100 / (120 - 20 / 3)
    )
    assert finished_fraction(training, seconds=108.0, num_batches=20, **numbers) == 1
    assert finished_fraction(training, seconds=119.0, num_batches=0, **numbers) < 1
    # Steps of 10 ms: all batches are scored.
    assert affordable_batches(training, iterations=250, seconds=2.5) == 20
    assert affordable_batches(TrainingSpec(validation_batches=20), iterations=3, seconds=60.0) == 20
