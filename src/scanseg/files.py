"""Atomic writing of files and folders."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT)
"""Error numbers of a full disk and of an exhausted quota."""


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
    temporary = path.with_name(f".writing-{os.getpid()}-{path.name}")
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
        path: Folder to create. It must be missing or empty.

    Yields:
        Temporary folder beside it.

    Raises:
        OSError: A file or folder cannot be written. The error names the final path, not the temporary one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".writing-{os.getpid()}-{path.name}")
    try:
        temporary.mkdir()
        yield temporary
        if path.exists():
            path.rmdir()
        temporary.rename(path)
    except OSError as error:
        if error.errno is None or not Path(str(error.filename)).is_relative_to(temporary):
            raise
        named = path / Path(str(error.filename)).relative_to(temporary)
        raise OSError(error.errno, error.strerror, str(named)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


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
