"""Cores that a process may use, and threads of the command."""

import os
import subprocess
import sys

import pytest

from scanseg import cores


@pytest.fixture
def cgroup(tmp_path, monkeypatch):
    monkeypatch.setattr(cores, "_CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "number"), [("max 100000", 8), ("200000 100000", 2), ("150000 100000", 2), ("50000 100000", 1)]
)
def test_a_container_limits_the_cores(cgroup, text, number):
    (cgroup / "cpu.max").write_text(text + "\n")
    assert cores.available_cores() == number
    environment = {}
    cores.prepare_threads(environment)
    expected = {"OMP_WAIT_POLICY": "PASSIVE"}
    assert environment == (expected if number == 8 else expected | {"OMP_NUM_THREADS": str(number)})


def test_an_older_container_limits_the_cores(cgroup):
    (cgroup / "cpu").mkdir()
    (cgroup / "cpu" / "cpu.cfs_quota_us").write_text("300000\n")
    (cgroup / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert cores.available_cores() == 3
    (cgroup / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    assert cores.available_cores() == 8


@pytest.mark.parametrize("text", ["", "rubbish", "100000 0"])
def test_an_unknown_limit_is_none(cgroup, text):
    (cgroup / "cpu.max").write_text(text)
    assert cores.available_cores() == 8


def test_variables_of_the_user_are_kept(cgroup):
    (cgroup / "cpu.max").write_text("100000 100000\n")
    environment = {"OMP_WAIT_POLICY": "ACTIVE", "OMP_NUM_THREADS": "5"}
    before = dict(environment)
    cores.prepare_threads(environment)
    assert environment == before


def test_the_command_sets_the_wait_policy_before_torch_is_imported():
    code = (
        "import os, sys\n"
        "import scanseg.__main__ as command\n"
        "sys.argv = ['scanseg', 'info']\n"
        "assert 'torch' not in sys.modules\n"
        "assert command.main() == 0\n"
        "assert 'torch' in sys.modules\n"
        "print(os.environ['OMP_WAIT_POLICY'])\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "PASSIVE"


@pytest.mark.parametrize(("wanted", "expected"), [("3", 3), ("", 8), ("0", 8), ("4,2", 8)])
def test_threads_of_other_libraries_follow_openmp(cgroup, wanted, expected):
    assert cores.choose_threads({"OMP_NUM_THREADS": wanted}) == expected
    assert cores.choose_threads({}) == 8
