"""Properties of the conversions of all data sets."""

import errno
import gzip
import json
import sys
from importlib import metadata

import numpy as np
import pytest

from scanseg.converters import NAMED_DATASETS, convert_dataset
from scanseg.converters.arrays import read_hdf5, read_npz
from scanseg.converters.published import published_split
from scanseg.converters.sources import note_unused
from scanseg.errors import InputError, UsageError
from scanseg.imaging import read_label_map
from scanseg.runtime import RunContext
from scanseg.version import __version__

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


def test_a_source_tree_that_is_not_installed_converts(tmp_path, monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", absent)
    forms.picture(tmp_path / "source" / "images" / "1.png")
    forms.mask(tmp_path / "source" / "masks" / "1.png", np.ones((20, 24), bool))
    convert("kvasir-seg", tmp_path / "source", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "conversion.json").read_text())["scanseg"] == __version__


def test_command(command, tmp_path):
    listed = command("data", "list")
    assert listed.code == 0
    assert all(name in listed.stdout for name in NAMED_DATASETS)
    forms.picture(tmp_path / "source" / "images" / "1.png")
    forms.mask(tmp_path / "source" / "masks" / "1.png", np.ones((20, 24), bool))
    outcome = command("data", "convert", "kvasir-seg", tmp_path / "source", "-o", tmp_path / "out")
    assert outcome.code == 0, outcome.stderr
    assert "out: out, 1 train case; by kvasir-seg from" in outcome.stdout
    record = json.loads((tmp_path / "out" / "conversion.json").read_text())
    assert record["cases"] == {"train": 1}
    unknown = command("data", "convert", "kvasir", tmp_path / "source", "-o", tmp_path / "x")
    assert unknown.code == 2
    assert "'kvasir' is unknown. Choose one of synapse" in unknown.stderr


def test_an_interrupt_leaves_nothing_behind(tmp_path, monkeypatch):
    from scanseg.converters import converted_case

    for number in range(3):
        forms.picture(tmp_path / "source" / "images" / f"{number}.png")
        forms.mask(tmp_path / "source" / "masks" / f"{number}.png", np.ones((20, 24), bool))
    write = converted_case.write_sample

    def interrupted(folder, case, sample, **options):
        write(folder, case, sample, **options)
        if case.name == "1":
            raise KeyboardInterrupt

    monkeypatch.setattr(converted_case, "write_sample", interrupted)
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

    def fill_the_disk(path, numbers, **options):
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


# arrays


def write_npz(path, **arrays):
    np.savez_compressed(path, **arrays)
    return path


def write_npy(path):
    with path.open("wb") as stream:
        np.save(stream, ARRAY)


def damage(path, *, first):
    """Change the compressed bytes of an archive."""
    content = bytearray(path.read_bytes())
    content[first : first + 30] = bytes(30)
    path.write_bytes(content)


def rename_compression(path):
    """Give the members of an archive a compression that Python does not know."""
    content = path.read_bytes()
    path.write_bytes(content.replace(b"-\0\0\0\x08\0", b"-\0\0\0\x13\0"))


ARRAY = np.random.default_rng(0).random((9, 10))


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: damage(write_npz(path, image=ARRAY), first=200), "damaged or pickled"),
        (lambda path: rename_compression(write_npz(path, image=ARRAY)), "damaged or pickled"),
        (
            lambda path: path.write_bytes(write_npz(path, image=ARRAY).read_bytes()[:300]),
            "damaged or pickled",
        ),
        (lambda path: path.write_bytes(b""), "damaged or pickled"),
        (lambda path: np.savez(path, image=np.array([{}], dtype=object)), "damaged or pickled"),
        (
            write_npy,
            "expected an .npz file of several arrays, got one array",
        ),
        (lambda path: write_npz(path, img=ARRAY), "expected arrays image, got img"),
        (lambda path: write_npz(path, image=np.array(["a"])), "expected real numbers in image, got <U1"),
        (lambda path: write_npz(path, image=ARRAY * 1j), "expected real numbers in image, got complex128"),
    ],
)
def test_unusable_archives_have_a_clear_message(tmp_path, write, words):
    path = tmp_path / "a.npz"
    write(path)
    with pytest.raises(InputError, match=rf"a\.npz: .*{words}"):
        read_npz(path, ("image",))


def test_unusable_hdf5_files_have_a_clear_message(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["image"] = ARRAY
        file.create_group("label")
        file["text"] = "abc"
        file["link"] = h5py.SoftLink("/nothing")
    np.testing.assert_array_equal(read_hdf5(path, ("image",))[0], ARRAY)
    for name, words in (
        ("label", "expected arrays, got groups label"),
        ("text", "expected real numbers in text"),
        ("link", "no HDF5 file, or damaged"),
        ("other", "expected arrays other, got image, label, link, text"),
    ):
        with pytest.raises(InputError, match=rf"a\.h5: {words}"):
            read_hdf5(path, ("image", name))
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(InputError, match=r"a\.h5: no HDF5 file, or damaged"):
        read_hdf5(path, ("image",))


def write_without_position(source, *, sound, lost):
    """Write volumes, some of them without a position in the headers of image and label map."""
    for case in (*sound, *lost):
        image, label_map = source / f"imagesTr/{case}_0000.nii.gz", source / f"labelsTr/{case}.nii.gz"
        forms.write_pair(image, label_map, forms.labels_of(range(3)))
        for path in (image, label_map) if case in lost else ():
            content = bytearray(gzip.decompress(path.read_bytes()))
            content[252:256] = bytes(4)  # qform_code and sform_code
            path.write_bytes(gzip.compress(bytes(content)))
    forms.describe(
        source,
        channel_names={"0": "MRI"},
        labels={"background": 0, "one": 1, "two": 2},
        numTraining=len(sound) + len(lost),
        file_ending=".nii.gz",
    )


def test_warnings_about_files_become_notes(tmp_path):
    """A lost position of a source is as important as that of a training case."""
    write_without_position(tmp_path / "source", sound=["a"], lost=["b"])
    result, _ = convert("msd", tmp_path / "source", tmp_path / "out")
    words = "expected a position in the header, got none"
    found = [note for note in result.notes if words in note]
    assert [note.split(": ")[:2] for note in found] == [
        ["case b", "imagesTr/b_0000.nii.gz"],
        ["case b", "labelsTr/b.nii.gz"],
    ]
    assert json.loads((tmp_path / "out/conversion.json").read_text())["notes"] == list(result.notes)


def test_the_first_notes_are_printed_and_all_are_recorded(command, tmp_path):
    write_without_position(tmp_path / "source", sound=[], lost=[f"c{number:02d}" for number in range(12)])
    outcome = command(
        "data", "convert", "msd", tmp_path / "source", "-o", tmp_path / "out", "--num-workers", "0"
    )
    assert outcome.code == 0, outcome.stderr
    assert outcome.stdout.count("note: 12 cases (c00, c01, ") == 2
    assert outcome.stdout.count("note: case c") == 0
    assert len(json.loads((tmp_path / "out/conversion.json").read_text())["notes"]) == 24


@pytest.mark.parametrize("ending", [".jpg", ".png"])
def test_labelled_test_cases_of_pictures(tmp_path, ending):
    """Label maps of JPEG images are PNG files."""
    source = tmp_path / "source"
    inside = np.zeros((20, 24), bool)
    inside[3:9] = True
    for part, case in (("Tr", "a"), ("Ts", "b")):
        forms.picture(source / f"images{part}/{case}_0000{ending}")
        forms.mask(source / f"labels{part}/{case}.png", inside, value=1)
    (source / "labelsTs/notes.txt").touch()
    forms.describe(
        source,
        channel_names={"0": "R", "1": "G", "2": "B"},
        labels={"background": 0, "one": 1},
        numTraining=1,
        file_ending=ending,
    )
    result, _ = convert("msd", source, tmp_path / "out")
    assert result.num_cases == {"train": 1, "test": 1}
    assert "1 entry of labelsTs is left out: notes.txt" in result.notes
    np.testing.assert_array_equal(read_label_map(tmp_path / "out/labelsTs/b.png").array[0], inside)
    (source / "labelsTs/b.png").rename(source / "labelsTs/c.png")
    message = refused("msd", source, tmp_path / "again")
    assert "case b: no label map labelsTs/b.png" in message
    assert "case c: label map c.png without an image in imagesTs" in message
