"""Cases and jobs as jobs of submitit, here in processes of this machine."""

import json
import os
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

import scanseg
from scanseg.cohort.engines import open_engine
from scanseg.errors import InputError, InterruptionError, ScansegError, UsageError
from scanseg.progress import ignore_progress
from scanseg.runtime import RunContext
from tests.cohort.conftest import (
    read_arrays,
    read_comparison,
    read_outputs,
    write_comparison,
    write_pictures,
)
from tests.factories import SMALL_XLSTM_UNET_2D, write_disks, write_folds

TWO = {"jobs": 2, "gpus": 0, "cpus": 1}


@pytest.fixture
def local(monkeypatch):
    """Jobs are processes of this machine."""
    pytest.importorskip("submitit", reason="the extra slurm is not installed")
    monkeypatch.setattr("scanseg.cohort.slurm_engine.CLUSTER", "local")
    root = Path(__file__).resolve().parents[2]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(root / "src"), str(root)]))


@pytest.mark.slow  # starts two jobs, and one again: half a minute on a busy machine
@pytest.mark.parametrize(("number", "num_logs"), [(signal.SIGKILL, 3), (signal.SIGUSR2, 2)])
def test_two_shares_equal_a_local_run_if_a_job_is_lost(model, tmp_path, local, number, num_logs):
    images = write_pictures(tmp_path / "images", 5)
    scanseg.load(model, device="cpu").predict_folder(images, tmp_path / "one", probabilities=True)
    updates, killed = [], []

    def report(update):
        updates.append(update)
        if not killed:  # the jobs wait for their cases or predict them
            killed.append(_signal_a_job(tmp_path / "two-slurm", number))

    options = {"on": "slurm", "slurm_options": TWO, "probabilities": True}
    record = scanseg.predict_cohort(model, images, tmp_path / "two", progress=report, **options)
    assert killed
    assert [case.fault for case in record.cases] == [None] * 5
    assert record.device == "SLURM, 2 x cpu"
    found = read_outputs(tmp_path / "two")
    # A killed process may leave an unfinished file. The next prediction removes it.
    whole = {name: content for name, content in found.items() if ".writing-" not in name}
    assert whole == read_outputs(tmp_path / "one")
    assert updates[-1].done == updates[-1].total == 5
    logs = list((tmp_path / "two-slurm").rglob("*_log.err"))
    assert len(logs) == num_logs, "a killed job is submitted again, a preempted one goes on"
    outputs = [path.read_text() for path in (tmp_path / "two-slurm").rglob("*_log.out")]
    assert any("Requeued job" in text for text in outputs) == (number == signal.SIGUSR2)


def _signal_a_job(folder, number):
    """Send a signal to the process of a job. SIGUSR2 is that of a preemption."""
    while len(list(folder.rglob("facts-*"))) < 2:  # both jobs handle signals
        time.sleep(0.1)
    needle = str(next(folder.iterdir()))
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_text().split("\0")
            except OSError:
                continue
            if "submitit.core._submit" in words and needle in words:
                os.kill(int(entry.name), number)
                return int(entry.name)
    raise AssertionError("no job runs")


@dataclass(frozen=True)
class Step:
    """A job that dies, fails, or waits for a stop."""

    name: str
    folder: Path

    def run(self, context):
        """Do what the name says."""
        attempt = len(list(self.folder.glob(f"{self.name}-*")))
        (self.folder / f"{self.name}-{attempt}").touch()
        if self.name == "dies" or (self.name == "dies once" and attempt == 0):
            os._exit(9)
        if self.name == "fails":
            raise ScansegError("a faulty image")
        while self.name == "waits" and not context.should_stop():
            pass
        context.report_warnings([f"warning of {self.name}"])


@pytest.mark.slow  # starts seven jobs: half a minute on a busy machine
def test_lost_jobs_are_repeated_and_failed_ones_named(tmp_path, local):
    updates = []
    jobs = [Step(name, tmp_path) for name in ("works", "dies once", "fails", "dies")]
    context = RunContext(progress=updates.append)
    with (
        open_engine("slurm", slurm_options=TWO, output=tmp_path / "out") as engine,
        pytest.raises(ScansegError) as caught,
    ):
        engine.run_jobs(jobs, task="folds", context=context)
    assert "fails: a faulty image" in str(caught.value)
    assert "dies: job " in str(caught.value)
    log = Path(str(caught.value).partition("log: ")[2].partition(";")[0])
    assert log.is_file()
    counts = {job.name: len(list(tmp_path.glob(f"{job.name}-*"))) for job in jobs}
    assert counts == {"works": 1, "dies once": 2, "fails": 1, "dies": 3}
    warnings = [warning for update in updates for warning in update.warnings]
    assert "warning of dies once" in warnings
    assert any(each.startswith("dies once: job ") and each.endswith("repeated.") for each in warnings)


@pytest.mark.timeout(600)
@pytest.mark.slow  # trains two folds twice: a minute on a busy machine
def test_a_cross_validation_equals_a_local_run(tmp_path, local):
    dataset = write_disks(tmp_path / "disks", numbers=range(4))
    write_folds(dataset, ((0, 1), (2, 3)), ((2, 3), (0, 1)))
    epochs = ("training.epochs=2", "training.iterations_per_epoch=2", "training.validation_batches=1")
    options = {"settings": (*SMALL_XLSTM_UNET_2D, *epochs), "num_workers": 0, "progress": False}
    one, other = tmp_path / "one", tmp_path / "other"
    scanseg.cross_validate(dataset, one, devices=("cpu",), **options)
    result = scanseg.cross_validate(dataset, other, on="slurm", slurm_options=TWO, **options)
    assert result.record.num_cases == 4
    for name in ("fold_0/model.safetensors", "fold_1/model.safetensors"):
        assert (other / name).read_bytes() == (one / name).read_bytes(), name


@pytest.mark.timeout(600)
@pytest.mark.slow  # trains two arms twice: a minute on a busy machine
def test_a_comparison_equals_a_local_run(tmp_path, local, command):
    dataset = write_disks(tmp_path / "disks", numbers=range(4))
    write_folds(dataset, ((0, 1), (2, 3)), ((2, 3), (0, 1)))
    comparison = write_comparison(tmp_path / "blocks.json")
    words = ("compare", comparison, dataset, "--num-workers", 0, "-o")
    outcome = command(*words, tmp_path / "one", "--devices", "cpu")
    assert outcome.code == 0, outcome.stderr
    options = ("--on", "slurm", "--slurm-options", "jobs=2,gpus=0,cpus=1")
    outcome = command(*words, tmp_path / "other", *options)
    assert outcome.code == 0, outcome.stderr
    assert read_comparison(tmp_path / "other") == read_comparison(tmp_path / "one")
    assert len(list((tmp_path / "other-slurm").rglob("messages-*"))) == 2, "each arm was a job"


@pytest.mark.slow  # starts two jobs for each of two steps: half a minute on a busy machine
def test_preprocessing_in_jobs_equals_a_local_run(tmp_path, local, command):
    dataset = write_disks(tmp_path / "disks", numbers=range(5))
    words = ("preprocess", dataset, "--recipe", "xlstm-unet-2d", "--num-workers", 0, "--store")
    outcome = command(*words, tmp_path / "one")
    assert outcome.code == 0, outcome.stderr
    shutil.rmtree(tmp_path / "one-slurm", ignore_errors=True)
    outcome = command(*words, tmp_path / "two", "--on", "slurm", "--slurm-options", "jobs=2,cpus=1")
    assert outcome.code == 0, outcome.stderr
    (one,), (two,) = (tmp_path / "one").glob("*/"), (tmp_path / "two").glob("*/")
    assert read_arrays(two) == read_arrays(one)
    assert len(read_arrays(two)) == 16
    results = list((tmp_path / "two-slurm").rglob("cases-*/result-*"))
    assert len(results) % 5 == 0
    assert results, "the cases were preprocessed in jobs"


@dataclass(frozen=True)
class NamedNumber:
    """A case."""

    name: str


@dataclass(frozen=True)
class Measure:
    """A function of a case that dies, fails, or returns the name."""

    folder: Path

    def __call__(self, case):
        """Do what the name says."""
        attempt = len(list(self.folder.glob(f"{case.name}-*")))
        (self.folder / f"{case.name}-{attempt}").touch()
        if case.name == "dies" or (case.name == "dies once" and attempt == 0):
            os._exit(9)
        if case.name == "fails":
            raise InputError("a faulty image")
        return case.name


def _map(tmp_path, names, progress=ignore_progress):
    """Call `Measure` for cases in jobs."""
    cases = [NamedNumber(name) for name in names]
    context = RunContext(num_workers=0, progress=progress)
    with open_engine("slurm", slurm_options=TWO, output=tmp_path / "out", cases_in_jobs=True) as engine:
        return engine.map_cases(Measure(tmp_path), cases, task="measuring", context=context)


@pytest.mark.slow  # starts three jobs: half a minute on a busy machine
def test_cases_of_a_lost_job_are_repeated(tmp_path, local):
    updates = []
    names = ("first", "second", "dies once", "third", "fourth")
    assert _map(tmp_path, names, updates.append) == list(names)
    counts = {name: len(list(tmp_path.glob(f"{name}-*"))) for name in names}
    assert counts == {name: 2 if name == "dies once" else 1 for name in names}
    (warning,) = [warning for update in updates for warning in update.warnings]
    assert warning.startswith("case dies once: job ")
    assert (updates[-1].done, updates[-1].total) == (5, 5)


@pytest.mark.slow  # starts jobs one after the other: half a minute on a busy machine
@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("fails", InputError, "a faulty image"),
        ("dies", ScansegError, "measuring: 3 jobs ended at case dies .*mem=64G"),
    ],
)
def test_a_case_that_fails_ends_the_work(tmp_path, local, name, error, message):
    with pytest.raises(error, match=message):
        _map(tmp_path, ("first", name))
    assert len(list(tmp_path.glob(f"{name}-*"))) == (3 if name == "dies" else 1)


def test_a_stop_lets_jobs_save_their_state(tmp_path, local):
    running = tmp_path / "waits-0"
    context = RunContext(
        progress=ignore_progress, should_stop=lambda: signal.SIGTERM if running.exists() else None
    )
    with (
        open_engine("slurm", slurm_options=TWO, output=tmp_path / "out") as engine,
        pytest.raises(InterruptionError, match="continue with --resume"),
    ):
        engine.run_jobs([Step("waits", tmp_path)], task="folds", context=context)
    (messages,) = tmp_path.rglob("messages-0")
    assert json.loads(messages.read_text())[1] == ["warning of waits"], "the job ended by itself"


def test_options_reach_sbatch(tmp_path, monkeypatch):
    pytest.importorskip("submitit", reason="the extra slurm is not installed")
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.parent.mkdir()
    sbatch.write_text(f'#!/bin/sh\ncp "$1" {tmp_path}/script\necho "no such partition" >&2\nexit 1\n')
    sbatch.chmod(0o755)
    for name in ("srun", "scancel", "sacct"):
        (sbatch.parent / name).symlink_to("/bin/true")
    monkeypatch.setenv("PATH", f"{sbatch.parent}{os.pathsep}{os.environ['PATH']}")
    options = {"partition": "gpu", "mem": "32G", "time": "600", "jobs": "3", "cpus": "4"}
    jobs = [Step(name, tmp_path) for name in ("a", "b")]
    with (
        open_engine("slurm", slurm_options=options, output=tmp_path / "out") as engine,
        pytest.raises(UsageError, match=r"sbatch refused .*no such partition"),
    ):
        engine.run_jobs(jobs, task="folds", context=RunContext())
    lines = set((tmp_path / "script").read_text().splitlines())
    wanted = ("partition=gpu", "mem=32G", "time=600", "cpus-per-task=4", "gpus-per-node=1", "array=0-1%2")
    assert {f"#SBATCH --{each}" for each in wanted} <= lines


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--on", "slurm"), "sbatch was not found. Run the command on a login node"),
        (("--on", "slurm", "--slurm-options", "time=soon"), "time=soon: expected a whole number"),
        (("--on", "slurm", "--slurm-options", "gpu"), "expected key=value"),
        (("--slurm-options", "time=5"), "expected --on slurm. Add it."),
    ],
)
def test_wrong_usage_is_one_error(model, tmp_path, command, monkeypatch, words, message):
    pytest.importorskip("submitit", reason="the extra slurm is not installed")
    monkeypatch.setenv("PATH", str(tmp_path))
    outcome = command("predict", model, tmp_path, "-o", tmp_path / "out", *words)
    assert outcome.code == 2
    assert message in outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert not (tmp_path / "out-slurm").exists()


def test_a_missing_library_is_named(model, tmp_path, command, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    outcome = command("predict", model, tmp_path, "-o", tmp_path / "out", "--on", "slurm")
    assert outcome.code == 2
    assert outcome.stderr.endswith('Install it: pip install "scanseg[slurm]"\n')
