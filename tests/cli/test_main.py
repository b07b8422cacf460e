"""How the command ends: exit codes, and what it says."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import scanseg
from scanseg.errors import InputError, UsageError


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["chek", "folder"], 'Unknown command "chek". Did you mean "check"?'),
        (["check"], 'Command "check" parameter DATASET requires an argument.'),
        (["check", "folder", "--verbose"], "Unknown option: --verbose."),
        (["train", "folder"], 'Command "train" parameter --output requires an argument.'),
        (["train", "folder", "-o", "m", "--epochs", "many"], "Invalid value for --epochs"),
        (["train", "folder", "-o", "m", "--epoch", "3"], "Unknown option: --epoch. Did you mean --epochs?"),
        (["train", "folder", "-o", "m", "--recipe", "unet"], "--recipe. Choose from: "),
        (["train", "folder", "-o", "m", "--fold", "every"], "Invalid value"),
        (["weights", "verify"], "name at least one record"),
        (["check", "folder", "other"], "not understood: other. "),
        (
            ["train", "folder", "-o", "m", "--set", "training.epochs", "3"],
            "not understood: 3. An option takes one value",
        ),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(command, words: list[str], message: str) -> None:
    outcome = command(*words)
    assert outcome.code == 2
    assert message in outcome.stderr
    assert outcome.stderr.startswith("error: ")
    assert outcome.stderr.count("\n") == 1
    assert outcome.stdout == ""


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InputError("a/b.nii.gz: is [truncated]"), 1, "error: a/b.nii.gz: is [truncated]\n"),
        (UsageError("device 'gpu' is unknown"), 2, "error: device 'gpu' is unknown\n"),
        (PermissionError(13, "Permission denied", "a/b"), 1, "error: a/b: Permission denied\n"),
        (
            FileExistsError(17, "File exists", "a/b"),
            1,
            "error: a/b is a file, where a folder is to be made; ",
        ),
        (OSError(28, "No space left on device"), 1, "error: No space left on device\n"),
        (
            MemoryError("Unable to allocate 7 PiB\nfor an array"),
            1,
            "error: the memory does not suffice (Unable to allocate 7 PiB); end what else uses it, or choose another "
            "device (--device)\n",
        ),
    ],
)
def test_expected_errors_have_no_traceback(
    command, fake_api, error: Exception, code: int, message: str
) -> None:
    def check(dataset: Path, **options: object) -> None:
        raise error

    fake_api.check = check
    outcome = command("check", "folder")
    assert (outcome.code, outcome.stdout) == (code, "")
    assert outcome.stderr.startswith(message)
    assert outcome.stderr.count("\n") == 1


@pytest.mark.parametrize("error", [ZeroDivisionError(), RuntimeError("a shape of a tensor")])
def test_a_bug_keeps_its_traceback(command, fake_api, error: Exception) -> None:
    def check(dataset: Path, **options: object) -> None:
        raise error

    fake_api.check = check
    with pytest.raises(type(error)) as caught:
        command("check", "folder")
    assert caught.value is error


def test_version(command) -> None:
    outcome = command("--version")
    assert (outcome.code, outcome.stdout) == (0, f"{scanseg.__version__}\n")


def test_help_names_every_command(command) -> None:
    for words in ([], ["--help"]):
        outcome = command(*words)
        assert outcome.code == 0
        for name in ("check", "plan", "train", "predict", "evaluate", "weights", "info", "demo"):
            assert f" {name} " in outcome.stdout


def test_help_runs_on_over_the_lines_of_a_docstring_and_tells_defaults_that_say_something(
    command, monkeypatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    assert "a data set takes over its plan too. Where the labels differ" in command("train", "--help").stdout
    assert "[default: ]" not in command("reproduce", "--help").stdout
    objects = command("data", "instances", "--help").stdout
    assert "[default: 0]" in objects
    studies = command("study", "--help").stdout
    assert "STUDY [DATASET]" in studies
    assert "Writes comparison.json" in studies


SLEEPING = """
import sys, time, types
import scanseg
from scanseg.cli import main

def check(dataset, **options):
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        print("cleared away", flush=True)

scanseg.api = sys.modules["scanseg.api"] = types.ModuleType("scanseg.api")
scanseg.api.check = check
sys.exit(main(["check", "folder"]))
"""


@pytest.mark.skipif(
    sys.platform == "win32", reason="Windows cannot send SIGTERM to a process that handles it"
)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_the_command_in_order(number: signal.Signals, code: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SLEEPING], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, stdout, stderr) == (code, "cleared away\n", "error: interrupted\n")


def installed_command() -> Path:
    """Find the command that installing the package made."""
    return next(Path(sys.executable).parent.glob("scanseg*"))


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"]])
def test_help_takes_under_half_a_second(words: list[str]) -> None:
    """Measured 0.12 s on an idle machine; where the system tells it, time spent waiting for other tests is left out."""
    seconds = []
    for _ in range(3):
        wall, before = time.perf_counter(), os.times()
        subprocess.run([installed_command(), *words], check=True, capture_output=True)
        after = os.times()
        computed = sum(after[2:4]) - sum(before[2:4])
        seconds.append(computed if computed > 0 else time.perf_counter() - wall)
    assert min(seconds) < 0.5


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from scanseg.cli import main; main(['train', '--help']); "
        "sys.exit(str({'torch', 'numpy', 'pydantic', 'SimpleITK'} & set(sys.modules)))"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert process.stderr == "set()\n"


def test_module_runs_as_the_command() -> None:
    process = subprocess.run(
        [sys.executable, "-m", "scanseg", "chek"], capture_output=True, text=True, check=False
    )
    assert process.returncode == 2
    assert process.stderr.startswith('error: Unknown command "chek"')


def test_a_reader_that_goes_away_is_no_error() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "scanseg", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
