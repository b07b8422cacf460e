"""Running the command inside the test's process, with the Python API replaced."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest

import scanseg
from scanseg.cli import main


@dataclass(frozen=True)
class Outcome:
    """What a person sees of a command that ended."""

    code: int
    stdout: str
    stderr: str


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run `scanseg WORDS...`."""

    def run(*words: object) -> Outcome:
        capsys.readouterr()
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture
def fake_api(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """An empty `scanseg.api`, for a test to put functions into."""
    return _replace("api", monkeypatch)


@pytest.fixture
def fake_module(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Replace a room by an empty module."""
    return lambda name: _replace(name, monkeypatch)


def _replace(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module: Any = ModuleType(f"scanseg.{name}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(scanseg, name, module, raising=False)
    return module
