import importlib
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from scanseg.dataset.raw import RawCase
from scanseg.errors import InputError, ScansegError, UsageError
from scanseg.progress import ignore_progress
from scanseg.runtime import RunContext
from scanseg.runtime import workers as module
from scanseg.runtime.workers import WorkerPool, choose_workers, keep_workers, map_cases, started_early

CASES = [RawCase(f"case_{number}", (), None) for number in range(4)]


TREATMENT = """
import os
import threading
from scanseg.errors import InputError

class OddError(Exception):
    def __init__(self, name, *, number):
        super().__init__(f"{name} is odd")

def make_lock(_):
    return threading.Lock()

def treat(case, *, how):
    if case.name == "case_2":
        if how == "input":
            raise InputError(f"case {case.name}: wrong.")
        if how == "odd":
            raise OddError(case.name, number=2)
        if how == "memory":
            raise MemoryError("Unable to allocate 7 PiB")
        if how == "bug":
            raise ZeroDivisionError("case_2")
        if how == "death":
            os._exit(3)
    if how == "process":
        open(os.path.join(os.path.dirname(__file__), f"process {os.getpid()}"), "w").close()
        return os.getpid()
    return os.environ["OMP_NUM_THREADS"] if how == "threads" else case.name.upper()
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Treat the cases by a function of a module that workers can import."""
    (tmp_path / "treatment.py").write_text(TREATMENT)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "treatment", raising=False)

    def run(how, num_workers, progress=ignore_progress):
        function = partial(importlib.import_module("treatment").treat, how=how)
        return map_cases(
            function, CASES, context=RunContext(num_workers=num_workers, progress=progress), task="treating"
        )

    return run


@pytest.mark.parametrize("num_workers", [0, 2])
def test_results_are_in_the_order_of_the_cases(run, num_workers):
    updates = []
    assert run("well", num_workers, updates.append) == ["CASE_0", "CASE_1", "CASE_2", "CASE_3"]
    assert [(p.task, p.done, p.total) for p in updates] == [("treating", done, 4) for done in range(5)]
    assert sorted(p.detail for p in updates) == ["", "case_0", "case_1", "case_2", "case_3"]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_errors_propagate_unchanged(run, num_workers):
    with pytest.raises(InputError, match=r"case case_2: wrong\."):
        run("input", num_workers)
    with pytest.raises(ZeroDivisionError):
        run("bug", num_workers)


def test_an_error_that_cannot_be_pickled_becomes_text(run):
    with pytest.raises(RuntimeError, match=r"OddError: case_2 is odd\n(.|\n)*treatment\.py"):
        run("odd", 1)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_too_little_memory_is_reported_with_the_case(run, num_workers):
    with pytest.raises(
        ScansegError, match=r"treating: .*memory.*for case case_2 \(Unable.*\)\. Use fewer work"
    ):
        run("memory", num_workers)


def test_errors_of_a_worker_pool(run):
    treatment = importlib.import_module("treatment")
    pool = WorkerPool(1)

    with pytest.raises(ZeroDivisionError) as caught:
        pool.take(pool.submit(partial(treatment.treat, how="bug"), CASES[2]))
    assert "treatment.py" in "".join(caught.value.__notes__)
    with pytest.raises(RuntimeError, match="OddError: case_2 is odd"):
        pool.take(pool.submit(partial(treatment.treat, how="odd"), CASES[2]))
    with pytest.raises(TypeError, match="the result cannot be pickled"):
        pool.take(pool.submit(treatment.make_lock, None))
    assert pool.take(pool.submit(partial(treatment.treat, how="well"), CASES[1])) == "CASE_1"
    pool.close()


def test_python_ends_with_an_open_pool():
    script = (
        "from scanseg.runtime.workers import WorkerPool\n"
        "pool = WorkerPool(1)\n"
        "print(pool.take(pool.submit(len, 'abc')))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "3\n", "")


def test_no_more_workers_than_allowed_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 8}, raising=False)

    assert choose_workers(None) == 3


def test_a_worker_that_ends_is_reported(run):
    with pytest.raises(ScansegError, match="treating: a worker process was ended from outside"):
        run("death", 1)


def is_running(pid):
    return Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes() != b""


@pytest.mark.skipif(not Path("/proc").exists(), reason="reads /proc")
def test_workers_are_kept_for_the_next_call_and_end_with_the_block(run):
    with keep_workers():
        first = run("process", 1)
        with keep_workers():
            assert run("process", 1) == first
        assert is_running(first[0])
        two = run("process", 2)
    assert len(set(first)) == 1
    assert not any(is_running(pid) for pid in {*first, *two})
    assert run("process", 1) != first


def started(tmp_path):
    """Return the processes that have treated a case."""
    return {int(path.name.split()[1]) for path in tmp_path.glob("process *")}


@pytest.fixture
def early(run, monkeypatch):
    """Start one process early, for `run`."""
    monkeypatch.setattr(module, "_FEWEST_EARLY", 1)

    def early(how="process"):
        function = partial(importlib.import_module("treatment").treat, how=how)
        return started_early(function, CASES, context=RunContext(num_workers=1))

    return early


@pytest.mark.skipif(not Path("/proc").exists(), reason="reads /proc")
@pytest.mark.parametrize("how", ["process", "input"])
def test_workers_that_start_early_are_those_of_the_next_block(run, early, tmp_path, how):
    with early(how):
        with keep_workers():
            process = run("process", 1)[0]
        assert not is_running(process)
        with keep_workers():
            assert run("process", 1)[0] != process
    assert len(started(tmp_path)) == 2


@pytest.mark.skipif(not Path("/proc").exists(), reason="reads /proc")
def test_workers_that_start_early_end_without_a_block(early, tmp_path):
    with pytest.raises(UsageError), early():
        raise UsageError("The output exists.")
    assert not any(is_running(pid) for pid in started(tmp_path))


def test_few_workers_do_not_start_early(run, tmp_path):
    function = partial(importlib.import_module("treatment").treat, how="process")
    with started_early(function, CASES, context=RunContext(num_workers=module._FEWEST_EARLY - 1)):
        pass
    assert started(tmp_path) == set()


@pytest.mark.parametrize("how", ["input", "death"])
def test_workers_are_not_kept_after_an_error(run, how):
    with keep_workers():
        before = run("process", 1)
        with pytest.raises(ScansegError):
            run(how, 1)
        assert not is_running(before[0])
        assert run("process", 1) != before


def test_negative_number_of_workers(run):
    with pytest.raises(UsageError, match=r"num_workers: .*got -1"):
        run("well", -1)


def test_workers_have_one_thread_each_and_the_environment_is_as_before(run, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = dict(os.environ)
    assert run("threads", 1) == ["1"] * 4
    assert dict(os.environ) == before


def test_a_script_without_main_guard_uses_workers(make_dataset, tmp_path):
    """Short scripts often lack `if __name__ == "__main__":`."""
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\nimport scanseg\n"
        f"print(scanseg.check(Path({str(make_dataset(2))!r}), num_workers=2, progress=False).num_cases)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "2\n", "")
