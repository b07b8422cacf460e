"""Properties of the conversions of all data sets."""

import errno
import json
import sys

import numpy as np
import pytest

from scanseg.converters import NAMED_DATASETS, convert_dataset
from scanseg.converters.published import published_split
from scanseg.converters.sources import note_unused
from scanseg.errors import InputError, UsageError
from scanseg.runtime import RunContext

from . import forms
from .forms import convert, refused, transunet

# all data sets


def test_published_splits_are_in_the_package():
    synapse = list(published_split("synapse").values())
    assert (synapse.count("train"), synapse.count("test")) == (18, 12)
    acdc = list(published_split("acdc").values())
    assert [acdc.count(part) for part in ("train", "validation", "test")] == [70, 10, 20]


@pytest.mark.parametrize("name", NAMED_DATASETS)
def test_an_unknown_layout_is_refused_with_the_known_layouts(name, tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "notes.txt").write_text("nothing")
    message = refused(name, tmp_path / "source", tmp_path / "out")
    assert NAMED_DATASETS[name].homepage in message
    for layout in NAMED_DATASETS[name].layouts:
        assert layout.files in message
    with pytest.raises(InputError, match="no such folder"):
        convert_dataset(
            NAMED_DATASETS[name], tmp_path / "absent", tmp_path / "out", context=RunContext(num_workers=0)
        )


def test_existing_files_are_not_replaced(tmp_path):
    forms.picture(tmp_path / "source" / "images" / "1.png")
    forms.mask(tmp_path / "source" / "masks" / "1.png", np.ones((20, 24), bool))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("x")
    named = NAMED_DATASETS["kvasir-seg"]
    with pytest.raises(UsageError, match="already exists"):
        convert_dataset(named, tmp_path / "source", tmp_path / "out", context=RunContext(num_workers=0))
    with pytest.raises(UsageError, match="is inside the source"):
        convert_dataset(
            named, tmp_path / "source", tmp_path / "source" / "out", context=RunContext(num_workers=0)
        )
    with pytest.raises(UsageError, match="test fraction"):
        convert_dataset(
            named, tmp_path / "source", tmp_path / "new", test_fraction=1.0, context=RunContext(num_workers=0)
        )


def test_without_h5py_the_message_advises_its_installation(tmp_path, monkeypatch):

    transunet(tmp_path / "source")
    monkeypatch.setitem(sys.modules, "h5py", None)
    message = refused("synapse", tmp_path / "source", tmp_path / "out")
    assert 'pip install "scanseg[h5]"' in message


def test_command(command, tmp_path):
    listed = command("data", "list")
    assert listed.code == 0
    assert all(name in listed.stdout for name in NAMED_DATASETS)
    forms.picture(tmp_path / "source" / "images" / "1.png")
    forms.mask(tmp_path / "source" / "masks" / "1.png", np.ones((20, 24), bool))
    outcome = command("data", "convert", "kvasir-seg", tmp_path / "source", "-o", tmp_path / "out")
    assert outcome.code == 0, outcome.stderr
    assert "kvasir-seg, 1 train case; from" in outcome.stdout
    record = json.loads((tmp_path / "out" / "conversion.json").read_text())
    assert record["cases"] == {"train": 1}
    unknown = command("data", "convert", "kvasir", tmp_path / "source", "-o", tmp_path / "x")
    assert unknown.code == 2
    assert "'kvasir' is unknown. Choose one of synapse" in unknown.stderr


def test_an_interrupt_leaves_nothing_behind(tmp_path, monkeypatch):
    from scanseg.converters import conversion

    for number in range(3):
        forms.picture(tmp_path / "source" / "images" / f"{number}.png")
        forms.mask(tmp_path / "source" / "masks" / f"{number}.png", np.ones((20, 24), bool))
    write = conversion.write_sample

    def interrupted(folder, case, sample, *, file_ending):
        write(folder, case, sample, file_ending=file_ending)
        if case.name == "1":
            raise KeyboardInterrupt

    monkeypatch.setattr(conversion, "write_sample", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert_dataset(
            NAMED_DATASETS["kvasir-seg"],
            tmp_path / "source",
            tmp_path / "out",
            context=RunContext(num_workers=0),
        )
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_full_disk_is_reported_once(tmp_path, monkeypatch):
    from scanseg.imaging import writing

    for number in range(3):
        forms.picture(tmp_path / "source" / "images" / f"{number}.png")
        forms.mask(tmp_path / "source" / "masks" / f"{number}.png", np.ones((20, 24), bool))

    def fill_the_disk(path, numbers):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writing, "write_pillow", fill_the_disk)
    with pytest.raises(OSError, match="No space left on device") as caught:
        convert_dataset(
            NAMED_DATASETS["kvasir-seg"],
            tmp_path / "source",
            tmp_path / "out",
            context=RunContext(num_workers=0),
        )
    assert caught.value.errno == errno.ENOSPC
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_in_worker_processes(tmp_path):
    for number in range(3):
        forms.picture(tmp_path / "source" / "images" / f"{number}.png")
        forms.numbers(tmp_path / "source" / "instances" / f"{number}.png", forms.two_cells())
    _, dataset = convert("dsb2018", tmp_path / "source", tmp_path / "out", num_workers=2, test_fraction=0)
    assert len(dataset.cases) == 3


@pytest.mark.parametrize("name", ["notes.txt", "extra.nii", "old"])
def test_content_that_is_not_converted_is_noted(tmp_path, name):
    folder = tmp_path / "images"
    folder.mkdir()
    for used in ("a.png", "b.png", ".hidden", "Thumbs.db"):
        (folder / used).touch()
    if name == "old":
        (folder / name).mkdir()
    else:
        (folder / name).touch()
    (note,) = note_unused(folder, lambda path: path.suffix == ".png")
    assert note == f"1 entry of images is left out: {name}"
    assert note_unused(tmp_path / "absent", lambda path: False) == ()
