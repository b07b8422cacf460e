"""A signal is an interrupt, also where a library made an error of its own of it."""

import os
import signal

import pytest

from scanseg.cli.interrupts import Interrupt, raise_on_signals


def import_while_stopped() -> None:
    """Fail as an extension does whose import a signal has broken."""
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except Interrupt as interrupt:
        raise ImportError("initialization failed") from interrupt


def test_an_import_that_a_signal_broke_is_an_interrupt() -> None:
    with pytest.raises(Interrupt) as caught, raise_on_signals():
        import_while_stopped()
    assert caught.value.exit_code == 130


def test_an_import_that_fails_by_itself_stays_an_import_error() -> None:
    with pytest.raises(ImportError, match="no such library"), raise_on_signals():
        raise ImportError("no such library")
