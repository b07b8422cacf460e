"""Signals become interrupts, also if a library raises its own error."""

import signal
import subprocess
import sys

import pytest

from scanseg.cli.interrupts import Interrupt, raise_on_signals


def import_while_stopped() -> None:
    """Raise the error of an extension whose import a signal interrupted."""
    try:
        signal.raise_signal(signal.SIGINT)  # to this thread: os.kill may choose another one
    except Interrupt as interrupt:
        raise ImportError("initialization failed") from interrupt


def test_an_interrupted_import_is_an_interrupt() -> None:
    with pytest.raises(Interrupt) as caught, raise_on_signals():
        import_while_stopped()
    assert caught.value.exit_code == 130


def test_a_failed_import_stays_an_import_error() -> None:
    with pytest.raises(ImportError, match="no such library"), raise_on_signals():
        raise ImportError("no such library")


BROKEN_START = """
import os, signal, sys, types
signal.signal(signal.SIGINT, signal.default_int_handler)
stub = types.ModuleType("cyclopts")
stub.__getattr__ = lambda name: os.kill(os.getpid(), signal.SIGINT)
sys.modules["cyclopts"] = stub
from scanseg.__main__ import main
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT to send")
def test_ctrl_c_during_the_imports_leaves_no_traceback() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BROKEN_START], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")
