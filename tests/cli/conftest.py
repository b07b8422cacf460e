"""These tests cover the command line: commands, options, exit codes, progress, interrupts.

Their fixtures replace the Python API.
"""

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

import scanseg


@pytest.fixture
def fake_api(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """An empty `scanseg.api`, for a test to put functions into."""
    return _replace("api", monkeypatch)


@pytest.fixture
def fake_module(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Replace a module by an empty one."""
    return lambda name: _replace(name, monkeypatch)


def _replace(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module: Any = ModuleType(f"scanseg.{name}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(scanseg, name, module, raising=False)
    return module
