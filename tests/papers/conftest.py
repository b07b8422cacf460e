"""Small sources in the forms in which people have the papers' data sets."""

import pytest

from .sources import SOURCES


@pytest.fixture
def source(tmp_path):
    """Write a small source of a data set that has a name; returns its folder."""

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
def arms(source):
    """Eight pictures with a number for each object."""
    return source("dsb2018")
