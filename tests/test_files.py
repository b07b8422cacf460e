"""Files are written atomically, and errors name them."""

import errno
from pathlib import Path

import pytest

from scanseg.files import new_folder, write_text, written_whole


def test_a_file_that_cannot_be_replaced_is_named(tmp_path: Path) -> None:
    (tmp_path / "plan.json").mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        write_text(tmp_path / "plan.json", "{}")
    assert caught.value.filename == str(tmp_path / "plan.json")
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


def fill_the_disk(path: Path) -> None:
    """Write half of a file, then raise an error for a full disk."""
    path.write_text("half")
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    target.write_text("before")
    with pytest.raises(OSError, match="No space left") as caught, written_whole(target) as temporary:
        fill_the_disk(temporary)
    assert caught.value.filename == str(target)
    assert target.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_a_folder_that_cannot_be_created_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mkdir(path: Path, *arguments: object, **options: object) -> None:
        if path != tmp_path:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(PermissionError) as caught, new_folder(tmp_path / "objects"):
        pass
    assert caught.value.filename == str(tmp_path / "objects")


def test_another_file_that_cannot_be_read_keeps_its_name(tmp_path: Path) -> None:
    absent = tmp_path / "absent.json"
    with pytest.raises(FileNotFoundError) as caught, written_whole(tmp_path / "report.json"):
        absent.read_text()
    assert caught.value.filename == str(absent)
