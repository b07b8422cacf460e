"""The dry run of every converter shows what a conversion would do, and writes nothing."""

import numpy as np
import pytest

import scanseg
from scanseg.dataset.raw import open_dataset
from scanseg.errors import InputError
from tests.papers.sources import SOURCES

from . import forms

WRITERS = {**SOURCES, "msd": SOURCES["hippocampus"]}


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_shown_is_what_is_converted(tmp_path, name):
    source, output = tmp_path / "source", tmp_path / "out"
    WRITERS[name](source)
    before = sorted(tmp_path.rglob("*"))
    found = scanseg.inspect_source(name, source, num_workers=0, progress=False)
    assert sorted(tmp_path.rglob("*")) == before
    result = scanseg.convert(name, source, output, num_workers=0, progress=False)
    assert (found.dataset, found.layout) == (result.dataset, result.layout)
    assert (found.num_cases, found.notes) == (result.num_cases, result.notes)
    spec = open_dataset(output).spec
    assert (found.channels, found.labels) == (spec.channel_names, spec.labels)


def polyps(source, numbers):
    for number in numbers:
        forms.picture(source / "images" / f"{number}.png")
        forms.mask(source / "masks" / f"{number}.png", np.ones((20, 24), bool))


def test_command(command, tmp_path):
    polyps(tmp_path / "source", range(10))
    words = ("data", "convert", "kvasir-seg", tmp_path / "source", "-o", tmp_path / "out", "--dry-run")
    outcome = command(*words, "--test-fraction", 0.2, "--num-workers", 0)
    assert outcome.code == 0, outcome.stderr
    first, *lines = outcome.stdout.splitlines()
    assert first.startswith("layout: ")
    assert lines == [
        "cases: 8 train, 2 test",
        "channels: R, G, B",
        "labels: background 0, polyp 1",
        "note: 2 of 10 cases drawn as test set (seed 0), as none is published",
        "nothing was written (--dry-run)",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_faults_are_reported_as_in_a_conversion(tmp_path):
    polyps(tmp_path / "source", range(3))
    (tmp_path / "source" / "images" / "1.png").write_bytes(b"no image")
    messages = []
    for inspect in (
        lambda: scanseg.inspect_source("kvasir-seg", tmp_path / "source", num_workers=0),
        lambda: scanseg.convert("kvasir-seg", tmp_path / "source", tmp_path / "out", num_workers=0),
    ):
        with pytest.raises(InputError, match="case 1: ") as caught:
            inspect()
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_options_of_own_folders_are_refused(command, tmp_path):
    polyps(tmp_path / "source", range(2))
    words = ("data", "convert", "kvasir-seg", tmp_path / "source", "--dry-run", "--labels", "polyp=255")
    outcome = command(*words)
    assert outcome.code == 2
    assert "only for `folder`" in outcome.stderr
