"""Processes that compile kernels: results, errors, and their end."""

import importlib.util
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scanseg.ops._support import compile_processes
from scanseg.ops._support.compile_processes import (
    FEWEST_CORES,
    CompileProcesses,
    start_compile_processes,
    stop_compile_processes,
)
from scanseg.ops._support.compile_requests import request_of
from scanseg.ops._support.launching import KERNELS_IN_THREADS

pytestmark = pytest.mark.skipif(os.name != "posix", reason="processes are forked")
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)


def is_alive(group):
    """Return whether a process of a group exists."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for_end(group, seconds=20):
    end = time.monotonic() + seconds
    while is_alive(group) and time.monotonic() < end:
        time.sleep(0.05)
    return not is_alive(group)


@pytest.fixture(scope="module")
def on_a_simulated_gpu(tmp_path_factory):
    """Return the results of two programs that compile the same kernels, one after the other, in the same cache."""
    pytest.importorskip("triton")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("cache"))
    program = Path(__file__).with_name("imagined_gpu.py")
    results = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", program, str(FEWEST_CORES)],
            env=environment,
            timeout=280,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        results.append(json.loads(done.stdout))
    return results


def test_all_kernels_but_the_first_are_compiled_in_processes(on_a_simulated_gpu):
    first, _ = on_a_simulated_gpu
    assert first["in_processes"] == [True] * (len(first["reported"]) - KERNELS_IN_THREADS)
    assert first["compiled_later"] == []


def test_kernels_on_disk_start_no_processes(on_a_simulated_gpu):
    first, second = on_a_simulated_gpu
    assert second["in_processes"] == []
    assert sorted(second["compiled"]) == sorted(first["compiled"])


@needs_triton
def test_a_faulty_request_is_left_to_the_caller_and_the_end_leaves_nothing():
    processes = CompileProcesses(1)
    group = processes._process.pid
    assert processes.compile(pickle.dumps("no request")) is False
    assert processes.is_running
    processes.close()
    assert wait_for_end(group)
    assert not processes.is_running
    assert processes.compile(b"") is False


@needs_triton
def test_they_end_with_the_program_that_started_them():
    program = (
        "from scanseg.ops._support.compile_processes import CompileProcesses; import pickle; p = CompileProcesses(2); "
        "p.compile(pickle.dumps(0)); print(p._process.pid, flush=True); input()"
    )
    started = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with started:
        group = int(started.stdout.readline())
        assert is_alive(group)
        started.send_signal(signal.SIGKILL)
    assert wait_for_end(group)


def test_few_cores_compile_in_threads():
    assert start_compile_processes(FEWEST_CORES - 1) is None


def test_a_program_that_cannot_be_started_is_left_out(monkeypatch):
    def refuse(*arguments, **options):
        raise OSError("too many processes")

    monkeypatch.setattr(compile_processes.subprocess, "Popen", refuse)
    assert start_compile_processes(FEWEST_CORES) is None
    stop_compile_processes()


def test_a_function_of_another_kind_is_no_request():
    assert request_of("key", lambda: None) is None
