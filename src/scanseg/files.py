"""Files and folders that are either whole or not there."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a temporary path beside a file; it takes the file's place when the block ends without an error.

    Args:
        path: The file to write. Its whole name is kept as the end of the temporary name, since libraries choose
            a format by the ending.

    Raises:
        OSError: The file cannot be written; it has the name of the file, not the temporary one.
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
    """Write a text file (UTF-8), whole or not at all."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside a place; it takes the place when the block ends without an error.

    Args:
        path: The folder to make; nothing is there, or an empty folder.

    Raises:
        OSError: It cannot be written; what cannot has its name in the folder, not in the temporary one.
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
    """Return the full disk, or the used up quota, that an error came from; no fault of what was being written."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _DISK_FAULTS:
            return cause
        cause = cause.__cause__
    return None
