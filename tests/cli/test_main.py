"""Exit codes and error messages of the command."""

import signal
import subprocess
import sys
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
        (["weights", "verify"], "expected at least one record, got none"),
        (["check", "folder", "other"], "unexpected argument: other. "),
        (
            ["train", "folder", "-o", "m", "--set", "training.epochs", "3"],
            "unexpected argument: 3. Give one value per option",
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
            "error: a/b: expected a folder, got a file. Choose another path.\n",
        ),
        (OSError(28, "No space left on device"), 1, "error: No space left on device\n"),
        (
            MemoryError("Unable to allocate 7 PiB\nfor an array"),
            1,
            "error: not enough memory (Unable to allocate 7 PiB). Close other programs that use it, or choose another "
            "device (--device).\n",
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
    assert outcome.after_start.startswith(message)
    assert outcome.after_start.count("\n") == 1


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


SLEEPING = """
import sys, time, types
import scanseg
from scanseg.cli import main

def check(dataset, **options):
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        print("cleaned up", flush=True)

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
    assert (process.returncode, stdout, stderr) == (
        code,
        "cleaned up\n",
        "checking folder\nerror: interrupted\n",
    )


def test_module_runs_as_the_command() -> None:
    process = subprocess.run(
        [sys.executable, "-m", "scanseg", "chek"], capture_output=True, text=True, check=False
    )
    assert process.returncode == 2
    assert process.stderr.startswith('error: Unknown command "chek"')


def test_a_closed_pipe_is_no_error() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "scanseg", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""


BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "numpy", "pydantic", "scipy"):
            raise SystemExit(f"imported {name}")

sys.meta_path.insert(0, Blocker())
from scanseg.cli import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("check SET", "checking SET"),
        ("plan SET -o plan.json", "planning a training on SET"),
        ("train SET -o model", "preparing a training on SET in model"),
        ("train SET -o model --resume", "continuing the training in model"),
        ("crossval SET -o folds", "preparing a cross-validation on SET in folds"),
        ("preprocess SET --store stores", "preprocessing SET"),
        ("predict model IMAGES -o out", "segmenting IMAGES with model"),
        ("evaluate out REFS -o report.json", "scoring out against REFS"),
        ("evaluate out REFS -o report.json --instances numbers", "scoring out against REFS"),
        ("data convert folder IMAGES -o SET", "converting IMAGES"),
        ("data convert folder IMAGES --dry-run", "inspecting IMAGES"),
        ("data instances out -o cells", "converting out"),
    ],
)
def test_the_first_line_comes_before_heavy_imports(words: str, line: str, tmp_path: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-c", BLOCKED, *words.split()],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    shown, imported = process.stderr.splitlines()
    assert shown == line
    assert imported.startswith("imported ")


def test_further_processes_of_torchrun_print_no_first_line(
    command, fake_api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(*paths: Path, **options: object) -> None:
        raise InputError("stop")

    fake_api.train = train
    monkeypatch.setenv("RANK", "1")
    assert command("train", "folder", "-o", "m").stderr == "error: stop\n"
