"""Comparison of two records."""

import json
from pathlib import Path

import pytest

from benchmarks.compare import main

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"


def row(entry="mlstm/a/bfloat16", call="forward", eager=2.0, replay=1.0, **others):
    timings = {"eager": eager and {"median_ms": eager}, "replay": replay and {"median_ms": replay}}
    return {"entry": entry, "call": call, "status": "measured", "settings": {"batch": 1}, **timings, **others}


@pytest.fixture
def write(tmp_path):
    def write(name, *rows, **facts):
        facts = {"device": "NVIDIA H200", "threads": 16, "versions": {"torch": "2.11.0"}, **facts}
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps({**facts, "rows": list(rows)}))
        return str(path)

    return write


def test_modes_are_compared_with_their_own_kind(write, capsys):
    assert main([write("old", row()), write("new", row(eager=3.0, replay=0.5))]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "| row | old ms | new ms | new / old |",
        "|---|---|---|---|",
        "| mlstm/a/bfloat16 forward, launched | 2 | 3 | 1.50 |",
        "| mlstm/a/bfloat16 forward, replayed | 1 | 0.5 | 0.50 |",
    ]


@pytest.mark.parametrize(("new", "code"), [(2.19, 0), (2.21, 1)])
def test_a_slower_row_fails_above_the_limit(write, capsys, new, code):
    assert main([write("old", row()), write("new", row(eager=new)), "--fail-above", "10%"]) == code
    assert ("slower by more than 10%: mlstm/a/bfloat16 forward, launched" in capsys.readouterr().err) == bool(
        code
    )


def test_rows_of_one_record_are_named(write, capsys):
    old = write("old", row(), row("mlstm/b/bfloat16", replay=None))
    new = write("new", row(), row("mlstm/c/bfloat16", replay=None))
    assert main([old, new, "--fail-above", "1%"]) == 0
    shown = capsys.readouterr().out
    assert "only in the old record:\n- mlstm/b/bfloat16 forward, launched\n" in shown
    assert "only in the new record:\n- mlstm/c/bfloat16 forward, launched\n" in shown


def test_other_settings_are_not_compared(write, capsys):
    assert main([write("old", row(replay=None)), write("new", row(replay=None, settings={"batch": 2}))]) == 0
    shown = capsys.readouterr().out
    assert "because the settings differ" in shown
    assert "| mlstm/a" not in shown


def test_a_row_that_failed_is_named_and_fails(write, capsys):
    failed = {**row(eager=None, replay=None), "status": "failed", "reason": "RuntimeError: broken"}
    words = [write("old", row(replay=None)), write("new", failed)]
    assert main(words) == 0
    assert "- mlstm/a/bfloat16 forward, launched: failed: RuntimeError: broken" in capsys.readouterr().out
    assert main([*words, "--fail-above", "50%"]) == 1


def test_different_machines_are_stated(write, capsys):
    old = write("old", row(), device="NVIDIA H100", versions={"torch": "2.11.0", "cudnn": 91900})
    main([old, write("new", row(), versions={"torch": "2.12.0", "cudnn": 91900})])
    shown = capsys.readouterr().out
    assert "different device: NVIDIA H100, then NVIDIA H200" in shown
    assert "different torch: 2.11.0, then 2.12.0" in shown
    assert "different cudnn" not in shown


@pytest.mark.parametrize(
    "content", ["{}", "[]", "no JSON", '{"rows": []}', '{"nonfinite_gradients": 0}', None]
)
def test_other_files_are_refused(write, tmp_path, capsys, content):
    other = tmp_path / "other.json"
    if content is not None:
        other.write_text(content)
    assert main([write("old", row()), str(other)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {other}: ")
    assert "Choose a record of benchmarks.run" in error


def test_records_of_different_kinds_are_refused(write, capsys):
    growth = RESULTS / "growth-h100-2026-11-24.json"
    assert main([write("old", row()), str(growth)]) == 2
    assert "expected a record of entries" in capsys.readouterr().err


@pytest.mark.parametrize("limit", ["10", "ten%", "-1%"])
def test_a_limit_is_a_percentage(write, capsys, limit):
    with pytest.raises(SystemExit) as ended:
        main([write("old", row()), write("new", row()), f"--fail-above={limit}"])
    assert ended.value.code == 2


@pytest.mark.parametrize(
    "name", ["h200-2026-11-29.json", "growth-h100-2026-11-24.json", "steps-enc-2026-11-24.json"]
)
def test_each_kind_of_record_equals_itself(capsys, name):
    path = str(RESULTS / name)
    assert main([path, path, "--fail-above", "0%"]) == 0
    shown = capsys.readouterr().out
    assert "| 1.00 |" in shown
    assert "only in" not in shown
