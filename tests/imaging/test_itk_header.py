"""Headers of NRRD and MetaImage files are checked before SimpleITK, which crashes on some."""

import subprocess
import sys

import numpy as np
import pytest

from scanseg.errors import InputError
from scanseg.imaging import count_channels, read_image
from tests.factories import write_volume

ARRAY = np.arange(126, dtype=np.int16).reshape(3, 6, 7)
LONG = b"A" * 300


def change(path, field, value):
    """Replace the value of a field in a header."""
    separator = b": " if path.suffix in (".nrrd", ".nhdr") else b" = "
    lines = path.read_bytes().split(b"\n")
    number = next(number for number, line in enumerate(lines) if line.startswith(field + separator))
    lines[number] = field + separator + value
    path.write_bytes(b"\n".join(lines))


@pytest.mark.parametrize(
    ("name", "field", "value", "words"),
    [
        ("a.mhd", b"ElementDataFile", b"a%s%n.raw", "expected the name of a file"),
        ("a.mhd", b"ElementDataFile", b"a.raw %4O%K%x%1f", "expected the name of a file"),
        ("a.mhd", b"ElementDataFile", b"%d%d.raw 1 2 1", "expected the name of a file"),
        ("a.mha", b"ElementDataFile", b"%", "expected the name of a file"),
        ("a.mha", b"NDims", b"3\nElementDataFile : %n", "expected the name of a file"),
        ("a.mha", b"NDims", b"64", "expected 2 to 4 axes, got NDims '64'"),
        ("a.mha", b"NDims", b"-1", "expected 2 to 4 axes"),
        ("a.nrrd", b"dimension", b"99", "expected 2 to 4 axes"),
        ("a.nrrd", b"type", LONG, "words of at most 120 bytes"),
        ("a.nrrd", b"space", LONG, "words of at most 120 bytes"),
        ("a.nrrd", b"encoding", LONG, "words of at most 120 bytes"),
        ("a.nrrd", b"space origin", LONG, "words of at most 120 bytes"),
        ("a.nrrd", b"kinds", b"domain " + LONG, "words of at most 120 bytes"),
        ("a.nhdr", b"data file", b"a.raw\n: " + LONG, "words of at most 120 bytes"),
        ("a.nhdr", b"data file", b"%n.raw", "expected the name of a file"),
        ("a.nhdr", b"kinds", b"domain domain domain\nDataFile: %n.raw", "expected one value of data file"),
    ],
)
@pytest.mark.parametrize("read", [lambda path: read_image([path]), count_channels])
def test_fields_that_crash_the_reader_are_refused(tmp_path, name, field, value, words, read):
    path = tmp_path / name
    write_volume(path, ARRAY)
    change(path, field, value)
    with pytest.raises(InputError, match=rf"{name}: .*{words}") as caught:
        read(path)
    assert len(str(caught.value)) < 400


def test_numbered_files_and_long_comments_are_read(tmp_path):
    write_volume(tmp_path / "a.mhd", ARRAY)
    data = tmp_path / "a.raw"
    content = data.read_bytes()
    for number in range(3):
        (tmp_path / f"slice{number + 1:02d}.raw").write_bytes(content[number * 84 :][:84])
    change(tmp_path / "a.mhd", b"ElementDataFile", b"slice%02d.raw 1 3 1")
    np.testing.assert_array_equal(read_image([tmp_path / "a.mhd"]).array[0], ARRAY)

    write_volume(tmp_path / "b.nrrd", ARRAY)
    header, _, voxels = (tmp_path / "b.nrrd").read_bytes().partition(b"\n\n")
    (tmp_path / "b.nrrd").write_bytes(
        header + b"\n# " + LONG + b"\ncontent: " + LONG + b"\nkey:=" + LONG + b"\n\n" + voxels
    )
    np.testing.assert_array_equal(read_image([tmp_path / "b.nrrd"]).array[0], ARRAY)


def test_the_reader_does_not_crash(tmp_path):
    """The process would end with a signal."""
    path = tmp_path / "a.nrrd"
    write_volume(path, ARRAY)
    change(path, b"type", LONG)
    code = "import sys, pathlib, scanseg.imaging as imaging; imaging.read_image([pathlib.Path(sys.argv[1])])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "InputError" in done.stderr
