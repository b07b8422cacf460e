"""Files of a folder or a zip file, which is never unpacked.

Links out of the folder, names out of the zip file, and files above a size are refused.
"""

import io
import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO

from scanseg.errors import InputError, reason_of, refuse_faults
from scanseg.imaging.dicom.recognition import begins_as_dicom

MOST_FILES = 100_000
"""Maximum number of files in a folder or zip file of series."""
MOST_BYTES = 2**29
"""Maximum size of a file in a zip file after decompression."""
MOST_TOTAL_BYTES = 2**34
"""Maximum size of all files of a zip file after decompression."""
_HEAD = 132
"""Number of bytes that identify DICOM."""
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1
_UNSAFE = "Unpack the file yourself if you trust its source, and give the folder."


@dataclass(frozen=True)
class Member:
    """A visible file of a folder or zip file."""

    name: str
    """Path inside the folder or zip file, with slashes."""
    num_bytes: int
    """Size, in a zip file after decompression."""
    modified_nanoseconds: int
    """Date of the last change, of the zip file itself if the member is in one."""


def list_members(source: Path) -> tuple[Member, ...]:
    """List the visible files of a source by name.

    Args:
        source: Folder, with its subfolders, or zip file.

    Raises:
        InputError: The source is missing or damaged, has too many or too large files, or a file is outside of it.
    """
    try:
        members = tuple(_list_folder(source) if source.is_dir() else _list_zip(source))
    except OSError as error:
        raise InputError(f"{source}: cannot be read ({reason_of(error)}).") from error
    return tuple(sorted(members, key=lambda member: member.name))


@contextmanager
def opened(source: Path) -> Iterator[Callable[[Member], BinaryIO]]:
    """Open a folder or zip file for reading.

    Args:
        source: Folder or zip file.

    Yields:
        Function that opens a file. A file of a zip file is read into memory.
    """
    if source.is_dir():
        yield lambda member: (source / member.name).open("rb")
        return
    with _open_zip(source) as archive:
        yield lambda member: _read_member(source, archive, member)


def holds_dicom(file: BinaryIO) -> bool:
    """Return whether an open file is DICOM by its content.

    Args:
        file: File at its beginning. Its place is unchanged.
    """
    head = file.read(_HEAD)
    file.seek(0)
    return begins_as_dicom(head)


def _list_folder(folder: Path) -> Iterator[Member]:
    """Yield the visible files of a folder.

    Folders behind links are not searched.
    """
    root, faults, count = folder.resolve(), list[str](), 0
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in (*folders, *files) if not name.startswith(".")):
            path = Path(place) / name
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                faults.append(_describe_link(path))
            elif path.is_file():
                count += 1
                status = path.stat()
                yield Member(path.relative_to(folder).as_posix(), status.st_size, status.st_mtime_ns)
        if count > MOST_FILES:
            raise InputError(f"{folder}: expected at most {MOST_FILES} files, got more. Choose a subfolder.")
    refuse_faults(folder, faults)


def _describe_link(path: Path) -> str:
    """Return the fault of a link out of a folder."""
    return (
        f"expected files inside the folder, got the link {path.name} to {path.resolve()}. Copy the file, or give its "
        "own folder"
    )


def leads_outside(path: Path) -> str | None:
    """Return the fault of a link that leads out of its folder.

    Args:
        path: File or folder.

    Returns:
        The fault. `None`: the path is no link, or its target is in the same folder.
    """
    is_outside = path.is_symlink() and not path.resolve().is_relative_to(path.parent.resolve())
    return _describe_link(path) if is_outside else None


def _open_zip(path: Path) -> zipfile.ZipFile:
    """Open a zip file.

    Raises:
        InputError: The file is damaged or no zip file.
    """
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError) as error:
        raise InputError(
            f"{path}: expected a zip file, got a damaged or unknown one ({reason_of(error)}). Copy or download it "
            "again."
        ) from error


def _list_zip(path: Path) -> Iterator[Member]:
    """Yield the visible files of a zip file."""
    modified = path.stat().st_mtime_ns
    with _open_zip(path) as archive:
        infos = [info for info in archive.infolist() if not info.is_dir()]
    refuse_faults(path, _find_zip_faults(infos))
    for info in infos:
        if not any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(info.filename).parts):
            yield Member(info.filename, info.file_size, modified)


def _find_zip_faults(infos: Sequence[zipfile.ZipInfo]) -> list[str]:
    """Return the faults of the members of a zip file."""
    if len(infos) > MOST_FILES:
        return [f"expected at most {MOST_FILES} files, got {len(infos)}. Choose a smaller zip file"]
    total = sum(info.file_size for info in infos)
    if total > MOST_TOTAL_BYTES:
        return [
            f"expected at most {MOST_TOTAL_BYTES} bytes after decompression, got {total}. Choose a smaller zip file"
        ]
    faults = [fault for info in infos for fault in [_find_member_fault(info)] if fault is not None]
    names = [info.filename for info in infos]
    if len(set(names)) < len(names):
        faults.append("expected each name once, got names that occur twice. Pack the files again")
    return faults


def _find_member_fault(info: zipfile.ZipInfo) -> str | None:
    """Return the fault of a member of a zip file, if any."""
    name = info.filename
    if ".." in PurePosixPath(name).parts or name.startswith("/") or _is_windows_path(name):
        return f"expected names inside the zip file, got {name!r}. {_UNSAFE}"
    if stat.S_ISLNK(info.external_attr >> 16):
        return f"expected files, got the symbolic link {name!r}. Pack the file itself"
    if info.flag_bits & _ENCRYPTED:
        return f"expected files without password, got the encrypted {name!r}. Pack it without password"
    if info.file_size > MOST_BYTES:
        return f"expected files of at most {MOST_BYTES} bytes, got {info.file_size} in {name!r}. {_UNSAFE}"
    if info.compress_type not in _METHODS:
        return f"expected stored or deflated files, got another compression of {name!r}. Pack the files again"
    return None


def _is_windows_path(name: str) -> bool:
    """Return whether a name leads elsewhere on Windows."""
    return "\\" in name or bool(PureWindowsPath(name).drive)


def _read_member(path: Path, archive: zipfile.ZipFile, member: Member) -> BinaryIO:
    """Return the content of a member, or the beginning of other files."""
    try:
        with archive.open(member.name) as stream:
            head = stream.read(_HEAD)
            rest = stream.read(member.num_bytes) if begins_as_dicom(head) else b""
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError) as error:
        raise InputError(
            f"{path}: {member.name}: damaged ({reason_of(error)}). Pack the files again."
        ) from error
    return io.BytesIO(head + rest)
