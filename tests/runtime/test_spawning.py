"""Signals to worker processes while they start and run."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scanseg.runtime.spawning import spawning

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

SHOW_BLOCKED = "import signal; print(*sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())))"


def test_processes_begin_with_signals_blocked() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with spawning():
        shown = subprocess.run([sys.executable, "-c", SHOW_BLOCKED], capture_output=True, check=True)
    assert {signal.SIGINT, signal.SIGTERM} <= set(map(int, shown.stdout.split()))
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_until_the_processes_are_started(number: signal.Signals) -> None:
    class Received(Exception):
        pass

    def handle(number: int, frame: object) -> None:
        raise Received

    before = signal.signal(number, handle)
    reached = []

    def start_while_stopped() -> None:
        with spawning():
            os.kill(os.getpid(), number)
            reached.append("the end of the block")

    try:
        with pytest.raises(Received):
            start_while_stopped()
        assert signal.getsignal(number) is handle
    finally:
        signal.signal(number, before)
    assert reached


def start_check(dataset: Path) -> "subprocess.Popen[str]":
    """Start a command that reads cases in two processes, and wait for these."""
    words = [sys.executable, "-m", "scanseg", "check", str(dataset), "--num-workers", "2"]
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    for _ in range(3000):
        if len(children.read_text().split()) == 3:  # two workers and the resource tracker
            return process
        time.sleep(0.01)
    raise TimeoutError(f"no workers: {process.communicate()}")


def assert_all_end(process: "subprocess.Popen[str]", *, within_seconds: float) -> None:
    """Check that all processes of an ended command end."""
    deadline = time.monotonic() + within_seconds
    try:
        while time.monotonic() < deadline:
            os.killpg(process.pid, 0)
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    pytest.fail("processes were left behind")


@pytest.mark.parametrize(
    ("number", "code", "delay_seconds"),
    [
        (signal.SIGINT, 130, 0.0),
        (signal.SIGTERM, 143, 0.4),
        pytest.param(signal.SIGINT, 130, 0.4, marks=pytest.mark.slow),  # each takes 5 s
        pytest.param(signal.SIGTERM, 143, 0.0, marks=pytest.mark.slow),
    ],
)
def test_signals_to_a_command_and_its_starting_workers(
    make_dataset, number: signal.Signals, code: int, delay_seconds: float
) -> None:
    with start_check(make_dataset(4)) as process:
        time.sleep(delay_seconds)
        os.killpg(process.pid, number)
        stdout, stderr = process.communicate(timeout=60)
    *progress, error = stderr.splitlines()
    assert (process.returncode, stdout, error) == (code, "", "error: interrupted")
    assert all(line.startswith(("checking", "still working")) for line in progress), stderr
    assert_all_end(process, within_seconds=5)


def test_workers_end_with_a_command_that_is_killed(make_dataset) -> None:
    with start_check(make_dataset(4)) as process:
        process.kill()
        process.communicate()
    assert_all_end(process, within_seconds=60)
