"""A training goes on with damaged metrics, and warns once."""

import json

import pytest

DAMAGE = {
    "rubbish": b"\xff\x00rubbish\n",
    "a line without an epoch": b'{"loss": 0.5}\n',
    "a repeated key": b'{"epoch": 1, "epoch": 2}\n',
    "levels": b"[" * 5000 + b"\n",
    "digits": b'{"epoch": ' + b"1" * 5000 + b"}\n",
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_metrics_do_not_stop_a_training(train, plan, tmp_path, command, name):
    train(epochs=1)
    path = tmp_path / "model/metrics.jsonl"
    path.write_bytes(DAMAGE[name] + path.read_bytes())
    words = ("train", plan, "-o", tmp_path / "model", "--resume", "--device", "cpu", "--num-workers", 0)
    words += ("--epochs", 2)
    outcome = command(*words)
    assert outcome.code == 0, outcome.stderr
    assert outcome.stderr.count(f"warning: {path}: 1 damaged line left out") == 1
    assert [json.loads(line)["epoch"] for line in path.read_text().splitlines()] == [1, 2]
    assert "warning" not in command(*words).stderr


def test_the_warning_is_a_value(train, tmp_path):
    train(epochs=1)
    with (tmp_path / "model/metrics.jsonl").open("ab") as stream:
        stream.write(b"rubbish\n" * 3)
    (warning,) = train(resume=True, epochs=2).warnings
    assert (
        warning
        == f"{tmp_path / 'model/metrics.jsonl'}: 3 damaged lines left out, so the curves lack these epochs"
    )
    assert train(resume=True).warnings == ()
