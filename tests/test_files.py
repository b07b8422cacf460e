"""Files are written atomically, and errors name them."""

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scanseg.files import is_unused, new_folder, remove_unfinished, temporary_path, write_text, written_whole


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


def dead_process() -> int:
    """Return the number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def write_old(path: Path, *, age: float) -> Path:
    """Write a file that was changed some seconds ago."""
    path.write_text("half")
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def test_unfinished_files_of_ended_processes_are_removed(tmp_path: Path) -> None:
    dead, machine = dead_process(), temporary_path(Path("x")).name.partition("@")[2][:6]
    removed = [
        write_old(tmp_path / f".writing-{dead}-plan.json", age=0),
        write_old(tmp_path / f".writing-{dead}@{machine}-a-b.json", age=0),
        write_old(tmp_path / f".writing-{os.getpid()}-reused.json", age=3600 * 24 * 365),
        write_old(tmp_path / ".writing-0-plan.json", age=0),
        write_old(tmp_path / ".writing-4000000000-plan.json", age=0),
        write_old(tmp_path / f".writing-{os.getpid()}@ffffff-other-machine.json", age=3600 * 25),
    ]
    folder = tmp_path / f".writing-{dead}-store"
    (folder / "cases").mkdir(parents=True)
    kept = [
        write_old(tmp_path / f".writing-{os.getpid()}-mine.json", age=0),
        write_old(tmp_path / ".writing-1-of-the-first-process.json", age=0),
        write_old(tmp_path / f".writing-{dead}@ffffff-other-machine.json", age=60),
        write_old(tmp_path / ".writing-x-plan.json", age=3600 * 48),
        write_old(tmp_path / "writing-1-plan.json", age=3600 * 48),
        write_old(tmp_path / ".lock", age=3600 * 48),
    ]
    write_text(tmp_path / "other.json", "{}")
    assert not [path for path in (*removed, folder) if path.exists()]
    assert all(path.exists() for path in kept)


def test_a_linked_folder_is_not_emptied(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/image.png").touch()
    (tmp_path / "out").mkdir()
    (tmp_path / f"out/.writing-{dead_process()}-link").symlink_to(tmp_path / "data")
    remove_unfinished(tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
    assert (tmp_path / "data/image.png").exists()


@pytest.mark.parametrize(
    ("names", "unused"),
    [
        ((), True),
        ((".lock",), True),
        ((".store.lock", ".writing-7-plan.json"), True),
        ((".writing-7@abcdef-plan.json", "fold_0/.writing-8-plan.json", "fold_1/"), True),
        (("plan.json",), False),
        (("fold_0/plan.json",), False),
        ((".writing-7-plan.json", "notes.txt"), False),
        ((".DS_Store",), False),
    ],
)
def test_a_folder_with_only_unfinished_files_is_unused(
    tmp_path: Path, names: list[str], unused: bool
) -> None:
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if name.endswith("/") else path.touch()
    assert is_unused(tmp_path) is unused


def test_a_new_folder_replaces_unfinished_ones(tmp_path: Path) -> None:
    target, dead = tmp_path / "raw", dead_process()
    (target / "empty").mkdir(parents=True)
    (target / f".writing-{dead}-a").touch()
    (target / ".lock").touch()
    (tmp_path / f".writing-{dead}-raw").mkdir()
    temporary_path(target).mkdir()  # of an ended process with the same number
    with new_folder(target) as folder:
        (folder / "dataset.json").write_text("{}")
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]
    assert [path.name for path in target.iterdir()] == ["dataset.json"]


def test_a_killed_writer_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    """The next writer removes the unfinished file."""
    code = (
        "import os, sys; from pathlib import Path; from scanseg.files import written_whole\n"
        "with written_whole(Path(sys.argv[1])) as path:\n    path.write_text('half'); os._exit(9)"
    )
    (tmp_path / "run.json").write_text("before")
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "run.json")], check=False)
    assert (tmp_path / "run.json").read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 2
    write_text(tmp_path / "plan.json", "{}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plan.json", "run.json"]
