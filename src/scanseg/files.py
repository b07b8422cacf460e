"""Atomic writing of files and folders, and removal of unfinished ones.

A file or folder that is being written is named `.writing-PID@MACHINE-NAME` and renamed at its end. If its process is
killed, the unfinished file remains. The next process that writes to the folder removes it.
"""

import errno
import hashlib
import os
import re
import shutil
import socket
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

LOCK_FILE = ".lock"
"""File name of the lock of a folder."""

_DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT)
"""Error numbers of a full disk and of an exhausted quota."""
_UNFINISHED = re.compile(r"\.writing-(\d{1,10})(?:@([0-9a-f]{6}))?-.+", re.DOTALL)
_LOCK = re.compile(r"\.(.*\.)?lock", re.DOTALL)
_SECONDS_OF_OTHERS = 24 * 3600.0
"""Age from which unfinished files of other machines are abandoned. Their processes cannot be looked up."""
_SECONDS_OF_REUSE = 60.0
"""A process that started this much later than its unfinished file was changed has only the same number."""
_SECONDS_BETWEEN_REMOVALS = 60.0
_last_removal: dict[Path, float] = {}
"""Time of the last removal of unfinished files by folder."""


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path for an atomic write.

    At the end of the block it replaces the file. After an error the file is unchanged and the temporary file is
    removed.

    Args:
        path: File to write. The temporary name ends with the whole file name, since libraries choose a format by the
            ending.

    Yields:
        Temporary path in the same folder.

    Raises:
        OSError: The file cannot be written. The error names the file, not the temporary one.
    """
    _remove_now_and_then(path.parent)
    temporary = temporary_path(path)
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        if error.errno is None or error.filename not in (None, temporary, str(temporary)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file (UTF-8) atomically.

    Args:
        path: File to write.
        text: Content.

    Raises:
        OSError: The file cannot be written.
    """
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder for an atomic write.

    At the end of the block it gets its final name. After an error no folder remains.

    Args:
        path: Folder to create. It must be missing or unused (`is_unused`).

    Yields:
        Temporary folder beside it.

    Raises:
        OSError: A file or folder cannot be written. The error names the final path, not the temporary one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_unfinished(path.parent)
    temporary = temporary_path(path)
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        yield temporary
        if path.exists():
            _remove_unused(path)
        temporary.rename(path)
    except OSError as error:
        if error.errno is None or not Path(str(error.filename)).is_relative_to(temporary):
            raise
        named = path / Path(str(error.filename)).relative_to(temporary)
        raise OSError(error.errno, error.strerror, str(named)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def make_folder(folder: Path) -> None:
    """Create a folder, or remove unfinished files of ended processes from it.

    Args:
        folder: Folder to write to.

    Raises:
        OSError: The folder cannot be created.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_unfinished(folder)


def temporary_path(path: Path) -> Path:
    """Return the path of a file while this process writes it.

    Args:
        path: Final path.
    """
    return path.with_name(f".writing-{os.getpid()}@{_machine()}-{path.name}")


def is_unused(folder: Path, *, besides: Collection[str] = ()) -> bool:
    """Return whether a folder holds only locks, unfinished files and unused folders.

    Args:
        folder: The folder.
        besides: Names of further files that do not count.
    """
    with os.scandir(folder) as entries:
        return all(
            _UNFINISHED.fullmatch(entry.name)
            or _LOCK.fullmatch(entry.name)
            or entry.name in besides
            or (entry.is_dir(follow_symlinks=False) and is_unused(Path(entry.path), besides=besides))
            for entry in entries
        )


def remove_unfinished(folder: Path) -> None:
    """Remove the unfinished files and folders of ended processes.

    Files of running processes are kept. Files of other machines are kept for a day. Files that cannot be removed are
    left.

    Args:
        folder: Folder to search, without its subfolders. It may be missing.
    """
    _last_removal[folder] = time.monotonic()
    found: list[os.DirEntry[str]] = []
    with suppress(OSError), os.scandir(folder) as entries:
        found = [entry for entry in entries if _UNFINISHED.fullmatch(entry.name)]
    for entry in found:
        with suppress(OSError):
            if not _is_abandoned(entry):
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                Path(entry.path).unlink()


def _remove_now_and_then(folder: Path) -> None:
    """Remove unfinished files from a folder at most once a minute."""
    last = _last_removal.get(folder)
    if last is None or time.monotonic() - last > _SECONDS_BETWEEN_REMOVALS:
        remove_unfinished(folder)


def _remove_unused(folder: Path) -> None:
    """Remove an unused folder.

    Raises:
        OSError: The folder holds files, or a running process writes to it.
    """
    remove_unfinished(folder)
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            _remove_unused(path)
        elif _LOCK.fullmatch(path.name):
            path.unlink()
    folder.rmdir()


def _is_abandoned(entry: "os.DirEntry[str]") -> bool:
    """Return whether the process of an unfinished file or folder has ended."""
    match = _UNFINISHED.fullmatch(entry.name)
    assert match is not None
    changed = entry.stat(follow_symlinks=False).st_mtime
    process, machine = int(match[1]), match[2]
    if os.name != "posix" or machine not in (None, _machine()):
        return time.time() - changed > _SECONDS_OF_OTHERS
    if not _is_running(process):
        return True
    started = _start_time(process)
    return started is not None and started > changed + _SECONDS_OF_REUSE


def _is_running(process: int) -> bool:
    """Return whether a process of this machine is running."""
    if process == 0:
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True  # the process of another user
    return True


def _start_time(process: int) -> float | None:
    """Return the start of a process in seconds since 1970, if known."""
    try:
        ticks = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19])
        uptime = float(Path("/proc/uptime").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None
    return time.time() - uptime + ticks / os.sysconf("SC_CLK_TCK")


@cache
def _machine() -> str:
    """Return a short name of the machine that numbers the processes.

    It changes with each start of the machine, and differs between containers.
    """
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
    with suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").stat().st_ino))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:6]


def find_disk_fault(error: BaseException) -> OSError | None:
    """Return a full disk or exhausted quota that caused an error.

    Args:
        error: Error, searched with its causes.

    Returns:
        The cause. `None`: another kind of error.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _DISK_FAULTS:
            return cause
        cause = cause.__cause__
    return None
