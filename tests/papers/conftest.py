"""These tests cover the papers' experiments: protocols, sources, reproductions, commands on the pages.

Their fixtures write small sources of the data sets in their published layouts.
"""

import pytest

from scanseg.experiments import job

from .sources import SOURCES


@pytest.fixture(autouse=True)
def _few_figures(plain_figures, monkeypatch):
    """Draw no curves of trainings, which `tests/training` covers, and other figures without a layout."""
    monkeypatch.setattr(job, "write_curves", lambda folder: None)


@pytest.fixture
def source(tmp_path):
    """Write a small source of a named data set and return its folder."""

    def write(data):
        folder = tmp_path / f"source-{data}"
        SOURCES[data](folder)
        return folder

    return write


@pytest.fixture
def acdc(source):
    """Seven patients in the official layout."""
    return source("acdc")


@pytest.fixture
def amos(source):
    """Six MRI cases of AMOS22."""
    return source("abdomen-mr")


@pytest.fixture
def cells(source):
    """Eight pictures with instance maps."""
    return source("dsb2018")
