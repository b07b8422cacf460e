"""The benchmark of several devices, with a stand-in for the prediction."""

import json
from types import SimpleNamespace

import pytest

import scanseg
from benchmarks import cohort
from scanseg.errors import InputError


@pytest.fixture
def predicted(monkeypatch):
    """Choices of devices that were predicted. One device takes twice the time of two."""
    choices = []

    def predict(model, images, output, *, devices, progress):
        choices.append(devices)
        assert (model / "model.safetensors").is_file()
        output.mkdir()
        names = [path.name for path in sorted(images.iterdir())]
        for name in names:
            (output / name).write_text("label map")
        cases = [SimpleNamespace(case=name, label_map=name) for name in names]
        seconds, device = 4.0 / len(devices), ", ".join(devices)
        return SimpleNamespace(
            cases=cases, seconds=seconds, device=device, recipe="xlstm-unet-fast", precision="float32"
        )

    monkeypatch.setattr(scanseg, "predict_cohort", predict)
    return choices


def test_two_devices_are_compared_with_one(predicted, tmp_path, capsys):
    output = tmp_path / "record.json"
    words = ["--synthetic", "2", "--devices", "cpu", "cpu,cpu", "--repetitions", "1", "-o", str(output)]
    assert cohort.main(words) == 0
    assert predicted == [["cpu"], ["cpu"], ["cpu", "cpu"]], "the first prediction is not counted"
    rows = json.loads(output.read_text())["rows"]
    assert [row["cases_per_second"] for row in rows] == [0.5, 1.0]
    assert [row["speedup"] for row in rows] == [1.0, 2.0]
    capsys.readouterr()
    assert cohort.main(["--table", str(output), "--price", "3.6"]) == 0
    assert "| 1.000 | 2.00 | 0.28 | 1.00 |" in capsys.readouterr().out


def test_other_label_maps_end_the_measurement(predicted, tmp_path, monkeypatch):
    contents = iter(range(9))
    monkeypatch.setattr(cohort, "read_label_maps", lambda output, record: {"case": next(contents)})
    with pytest.raises(InputError, match="label maps differ from those of cpu"):
        cohort.main(["--synthetic", "1", "--devices", "cpu", "cpu,cpu", "--repetitions", "1"])


def test_costs_follow_the_formula():
    assert cohort.cost_per_thousand(0.5, 1.80) == pytest.approx(1.0)
