"""Compiling before a timed run: processes at the same time, failures and the time limit are seen."""

import sys

from benchmarks.warm import main, run_all


def python(code):
    return [sys.executable, "-c", code]


def test_codes_of_all_commands_and_of_those_cut_off():
    commands = {
        "good": python("pass"),
        "bad": python("raise SystemExit(3)"),
        "long": python("import time; time.sleep(60)"),
        "never": python("pass"),
    }
    assert run_all(commands, num_processes=3, max_seconds=0) == dict.fromkeys(commands)
    codes = run_all(commands, num_processes=4, max_seconds=4)
    assert codes == {"good": 0, "bad": 3, "long": None, "never": 0}


def test_entries_are_run(capsys):
    assert main(["--device", "cpu", "--tiny", "--processes", "1", "mlstm/*"]) == 0
    assert "mlstm/1x4x4096x64/float32: exit 0" in capsys.readouterr().out
