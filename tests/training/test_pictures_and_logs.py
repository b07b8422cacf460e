"""What a person looks at while and after a training."""

import json
import re
import signal

import numpy as np
import pytest
from PIL import Image

import scanseg
from scanseg.errors import InterruptionError
from scanseg.experiments import job
from scanseg.imaging import read_label_map
from scanseg.models import ModelFolder
from scanseg.preprocessing import read_array


def test_a_picture_of_the_curves(train, tmp_path):
    train(settings=("training.validate_every=1",))

    with Image.open(tmp_path / "model" / "curves.png") as picture:
        assert picture.size == (1000, 400)


def test_the_picture_is_there_while_a_training_runs_and_where_it_is_stopped(train, tmp_path, monkeypatch):
    drawn = []
    picture = tmp_path / "model" / "curves.png"
    monkeypatch.setattr(job, "_SECONDS_BETWEEN_FIGURES", 0.0)

    def progress(progress):
        if progress.task == "training":
            drawn.append(picture.exists())
            if progress.done == 4:
                picture.unlink()
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(InterruptionError):
        train(progress=progress)

    assert drawn == [False, False, False, True]  # drawn after the first step of the second epoch
    assert picture.exists()


def test_curves_show_the_numbers_of_the_metrics():
    figure = pytest.importorskip("matplotlib.figure").Figure()
    from scanseg.figures import draw_loss, draw_validation_dice

    metrics = [
        {"epoch": 1, "loss": 1.5},
        {"epoch": 2, "loss": 0.5, "validation_dice": {"a": None, "b": 0.25}},
        {"epoch": 3, "loss": 0.25, "validation_dice": {"a": 0.75, "b": 0.5}},
    ]
    left, right = figure.subplots(1, 2)
    draw_loss(left, metrics)
    draw_validation_dice(right, metrics)

    assert left.lines[0].get_xydata().tolist() == [[1, 1.5], [2, 0.5], [3, 0.25]]
    assert {line.get_label(): line.get_xydata().tolist() for line in right.lines} == {
        "a": [[3, 0.75]],
        "b": [[2, 0.25], [3, 0.5]],
    }
    assert (right.get_xlabel(), left.get_ylabel()) == ("epoch", "training loss")


def test_curves_show_a_training_of_one_epoch():
    figure = pytest.importorskip("matplotlib.figure").Figure()
    from scanseg.figures import draw_loss

    axes = figure.subplots()
    draw_loss(axes, [{"epoch": 1, "loss": 1.5}])

    assert axes.lines[0].get_marker() == "."
    assert all(tick == round(tick) for tick in axes.get_xticks())


def test_the_console_is_told_of_loss_and_dice(train, tmp_path):
    heard = []
    train(settings=("training.validate_every=1",), progress=heard.append)

    said = [progress.detail for progress in heard if progress.task == "training"]
    lines = [json.loads(line) for line in (tmp_path / "model" / "metrics.jsonl").read_text().splitlines()]
    assert re.fullmatch(r"epoch 1/2, loss \d\.\d{3}", said[0])
    dice = lines[0]["validation_dice"]["disk"] or 0.0
    assert re.fullmatch(rf"epoch 2/2, loss \d\.\d{{3}}, patch Dice {dice:.3f}", said[-1])


def test_tensorboard_reads_the_same_numbers(train, tmp_path):
    pytest.importorskip(
        "tensorboard", reason="TensorBoard is not installed: pip install 'scanseg[tensorboard]'"
    )
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(settings=("training.validate_every=1",))

    events = EventAccumulator(str(tmp_path / "model" / "tensorboard"))
    events.Reload()
    lines = [json.loads(line) for line in (tmp_path / "model" / "metrics.jsonl").read_text().splitlines()]
    losses = [(event.step, event.value) for event in events.Scalars("loss")]
    assert losses == [(line["iterations"], pytest.approx(line["loss"])) for line in lines]
    dice = [event.value for event in events.Scalars("validation_dice/disk")]
    assert dice == [pytest.approx(line["validation_dice"]["disk"]) for line in lines]


def test_kept_predictions_are_files_that_viewers_open(train, dataset, tmp_path, monkeypatch):
    result = train(keep_predictions=True)
    folder = ModelFolder.open(tmp_path / "model")
    cases = folder.read_run().validation_cases
    for case in cases:
        path = tmp_path / "model" / "validation" / f"{case}.png"
        array = read_array(folder.prediction_path(case))
        np.testing.assert_array_equal(read_label_map(path).array[0], array)
    assert result.warnings == ()
    report = scanseg.evaluate(tmp_path / "model" / "validation", dataset / "labelsTr", only_predicted=True)
    assert report.summary.mean_over_labels.dice == pytest.approx(result.mean_dice)


def test_kept_predictions_without_images_are_reported(train, dataset, tmp_path):
    train()
    dataset.rename(tmp_path / "elsewhere")
    (warning,) = train(resume=True, keep_predictions=True).warnings
    assert warning.endswith("are kept as arrays (.b2nd) only")
