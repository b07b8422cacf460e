"""Damaged and hostile folders and zip files of DICOM end in one clear error."""

import zipfile
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scanseg.errors import InputError
from scanseg.imaging import list_series, read_image
from scanseg.imaging.dicom import container
from tests.dicom_series import make_series, save, write_series

VOLUME = np.random.default_rng(0).integers(0, 3000, (3, 6, 7)).astype(np.int16)


@pytest.fixture
def series(tmp_path):
    return write_series(tmp_path / "series", VOLUME)


def pack(series, path, *, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for file in sorted(series.iterdir()):
            archive.write(file, f"study/{file.name}")
    return path


def add(path, name, content=b"x", **fields):
    """Add a member of any name and header to a zip file."""
    info = zipfile.ZipInfo(name)
    info.filename = name  # ZipInfo changes some names
    for field, value in fields.items():
        setattr(info, field, value)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(info, content)


def refused(path, text):
    with pytest.raises(InputError, match=text) as caught:
        read_image(path)
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_a_zip_file_is_read_without_being_unpacked(series, tmp_path, method):
    path = pack(series, tmp_path / "a.zip", method=method)
    add(path, "README.txt", b"no image" * 100)
    add(path, "__MACOSX/study/._IM0000", b"resource")
    before = sorted(tmp_path.rglob("*"))
    np.testing.assert_array_equal(read_image(path).array[0], VOLUME)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/etc/evil", "..\\evil", "C:\\evil", "C:evil"])
def test_names_out_of_the_zip_file(series, tmp_path, name):
    path = pack(series, tmp_path / "a.zip")
    add(path, name)
    refused(path, r"a\.zip: expected names inside the zip file, got '.*evil'")
    assert not (tmp_path.parent / "evil").exists()


def test_links_in_a_zip_file(series, tmp_path):
    path = pack(series, tmp_path / "a.zip")
    add(path, "link", b"/etc/passwd", external_attr=0o120777 << 16, create_system=3)
    refused(path, r"expected files, got the symbolic link 'link'")


def test_sizes_of_zip_files(series, tmp_path, monkeypatch):
    path = pack(series, tmp_path / "a.zip")
    size = max(file.stat().st_size for file in series.iterdir())
    monkeypatch.setattr(container, "MOST_BYTES", size - 1)
    refused(path, f"expected files of at most {size - 1} bytes, got {size}")
    monkeypatch.setattr(container, "MOST_BYTES", size)
    monkeypatch.setattr(container, "MOST_TOTAL_BYTES", 3 * size - 1)
    refused(path, "bytes after decompression, got")
    monkeypatch.setattr(container, "MOST_TOTAL_BYTES", 3 * size)
    monkeypatch.setattr(container, "MOST_FILES", 2)
    refused(path, "at most 2 files, got 3")
    refused(series, "at most 2 files, got more")
    monkeypatch.setattr(container, "MOST_FILES", 3)
    np.testing.assert_array_equal(read_image(path).array[0], VOLUME)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "bomb.zip"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a.dcm", "w", force_zip64=True) as file,
    ):
        for _ in range(2**29 // 2**20 + 1):
            file.write(bytes(2**20))
    assert path.stat().st_size < 2**20
    refused(path, "expected files of at most 536870912 bytes")


def test_other_compressions_passwords_and_names_that_occur_twice(series, tmp_path):
    refused(pack(series, tmp_path / "a.zip", method=zipfile.ZIP_LZMA), "stored or deflated files")
    path = pack(series, tmp_path / "b.zip")
    content = bytearray(path.read_bytes())
    place = content.index(b"PK\1\2") + 8
    content[place] |= 1
    path.write_bytes(content)
    refused(path, "got the encrypted")
    path = pack(series, tmp_path / "c.zip")
    with pytest.warns(UserWarning, match="Duplicate"):
        add(path, "study/IM0000")
    refused(path, "names that occur twice")


def test_files_that_are_no_zip_files(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK\3\4" + bytes(200))
    refused(tmp_path / "a.zip", "expected a zip file, got a damaged or unknown one")


def test_a_damaged_member(series, tmp_path):
    path = pack(series, tmp_path / "a.zip", method=zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    place = content.index(VOLUME[1].tobytes())
    content[place] ^= 1
    path.write_bytes(content)
    refused(path, r"IM0001: damaged .*CRC")


@pytest.mark.parametrize("kind", ["file", "folder", "relative"])
def test_links_out_of_the_folder(series, tmp_path, kind):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret.dcm").write_text("secret")
    target = {
        "file": tmp_path / "outside/secret.dcm",
        "folder": tmp_path / "outside",
        "relative": "../outside/secret.dcm",
    }[kind]
    (series / "link").symlink_to(target)
    refused(series, "expected files inside the folder, got the link link to .*outside")


def test_links_inside_the_folder_are_copies(series):
    (series / "link").symlink_to(series / "IM0001")
    np.testing.assert_array_equal(read_image(series).array[0], VOLUME)


def test_text_named_as_dicom(series):
    (series / "notes.dcm").write_text("no image" * 40)
    refused(series, r"notes\.dcm: expected DICOM by its name, got another content")


def test_truncated_pixels_are_found_in_the_header(series):
    content = (series / "IM0001").read_bytes()
    (series / "IM0001").write_bytes(content[:-10])
    refused(
        series,
        r"IM0001: expected a complete DICOM file, got a damaged one \(74 bytes of pixels instead of 84\)",
    )
    assert len(list_series(series).faults) == 1


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_cut_and_changed_files_give_one_error_or_an_image(tmp_path, data):
    folder = tmp_path / "fuzzed"
    for number, dataset in enumerate(make_series(VOLUME)):
        save(dataset, folder / f"IM{number}")
    content = bytearray((folder / "IM1").read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (folder / "IM1").write_bytes(content)
    with suppress(InputError):
        assert read_image(folder).num_axes == 3
