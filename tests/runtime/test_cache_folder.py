"""Folder of cached files."""

import sys
from pathlib import Path

import pytest

from scanseg.runtime import cache_folder


@pytest.mark.parametrize(
    ("system", "variables", "folder"),
    [
        ("linux", {}, "home/.cache/scanseg"),
        ("linux", {"XDG_CACHE_HOME": "other"}, "other/scanseg"),
        ("darwin", {}, "home/Library/Caches/scanseg"),
        ("win32", {}, "home/AppData/Local/scanseg/Cache"),
        ("win32", {"LOCALAPPDATA": "local"}, "local/scanseg/Cache"),
    ],
)
def test_each_system_has_its_folder(monkeypatch, tmp_path, system, variables, folder):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, str(tmp_path / value))
    assert cache_folder() == tmp_path / folder


def test_a_relative_folder_is_ignored(monkeypatch, tmp_path):
    """The standard says so."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    assert cache_folder() == tmp_path / ".cache" / "scanseg"
