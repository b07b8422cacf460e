"""These tests cover the demo: its data set, its training and its picture."""

from dataclasses import replace

import pytest

from scanseg.demo import anatomy


@pytest.fixture
def coarse_brain(monkeypatch):
    read_template = anatomy.read_template

    def read_coarsely():
        brain, tissues = read_template()
        coarse = (slice(None, None, 4),) * 3
        spacing = tuple(4 * size for size in brain.spacing)
        return replace(brain, array=brain.array[(slice(None), *coarse)], spacing=spacing), tissues[coarse]

    monkeypatch.setattr(anatomy, "read_template", read_coarsely)
