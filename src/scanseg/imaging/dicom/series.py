"""Series of a folder or zip file."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from scanseg.errors import InputError, refuse_faults
from scanseg.imaging.dicom.container import Member, holds_dicom, list_members, opened
from scanseg.imaging.dicom.objects import require_reader
from scanseg.imaging.dicom.recognition import (
    can_read_dicom,
    find_dicom,
    has_dicom_ending,
    split_series_path,
)
from scanseg.imaging.dicom.slices import Slice, SliceOfSeries, read_slice
from scanseg.messages import counted, listed

_NOTHING = "not a file, and no folder or zip file with a DICOM series. Give an image."


@dataclass(frozen=True)
class Series:
    """A series of a folder or zip file, with its headers."""

    path: Path
    """Path of the series: the source, or `SOURCE/UID` if it holds several."""
    source: Path
    """Folder or zip file."""
    uid: str
    """Series instance UID."""
    modality: str
    number: str
    """Series number. Empty: missing."""
    description: str
    """Description of the series. Empty: missing."""
    slices: tuple[Slice, ...]
    """Slices, sorted by the names of their files."""

    @property
    def is_localizer(self) -> bool:
        """True if all slices are overviews for planning a scan."""
        return all(each.is_localizer for each in self.slices)

    @property
    def files(self) -> tuple[Path, ...]:
        """Files of the series, or the zip file."""
        if not self.source.is_dir():
            return (self.source,)
        return tuple(self.source / each.member.name for each in self.slices)

    def where(self, member: Member) -> str:
        """Return the name of a file of the series for messages.

        Args:
            member: File of the series.
        """
        return _where(self.source, member)


@dataclass(frozen=True)
class SeriesList:
    """The DICOM objects of a folder or zip file."""

    source: Path
    """Folder or zip file."""
    series: tuple[Series, ...] = ()
    """Series of images, sorted by UID."""
    others: tuple[str, ...] = ()
    """Objects that are no images, such as reports: kind and number."""
    faults: tuple[str, ...] = ()
    """Files that cannot be read, each with the reason. Their series are unknown."""


def list_series(source: Path) -> SeriesList:
    """List the series of a folder or zip file.

    Subfolders are searched too.

    Only headers are read. The last lists are kept, and read again if a file was changed, added or removed.

    Args:
        source: Folder or zip file.

    Raises:
        InputError: The reader is not installed, or the source is damaged or unsafe (links out of the folder, names
            out of the zip file, too many or too large files).
    """
    require_reader(source)
    return _scan(source, list_members(source))


@lru_cache(maxsize=8)
def _scan(source: Path, members: tuple[Member, ...]) -> SeriesList:
    """Read the headers of all files."""
    found, others, faults = list[SliceOfSeries](), Counter[str](), list[str]()
    with opened(source) as open_member:
        for member in members:
            try:
                with open_member(member) as file:
                    if holds_dicom(file):
                        read = read_slice(file, member, _where(source, member))
                    elif has_dicom_ending(member.name):
                        raise InputError(
                            f"{_where(source, member)}: expected DICOM by its name, got another content. Remove it."
                        )
                    else:
                        continue
            except OSError as error:
                faults.append(f"{_where(source, member)}: cannot be read ({error.strerror}).")
            except InputError as error:
                faults.append(str(error))
            else:
                if isinstance(read, str):
                    others[read] += 1
                elif read is not None:
                    found.append(read)
    kinds = tuple(f"{number} {kind}" for kind, number in sorted(others.items()))
    return SeriesList(source, _group(source, found), kinds, tuple(faults))


def _where(source: Path, member: Member) -> str:
    """Return the name of a file for messages."""
    return f"{source / member.name}"


def _group(source: Path, found: Sequence[SliceOfSeries]) -> tuple[Series, ...]:
    """Group slices into series."""
    grouped: dict[str, list[SliceOfSeries]] = defaultdict(list)
    for each in found:
        grouped[each.uid].append(each)
    images = [uid for uid, group in grouped.items() if not all(each.slice.is_localizer for each in group)]
    return tuple(
        Series(
            source if [uid] in ([*grouped], images) else source / uid,
            source,
            uid,
            group[0].modality,
            group[0].number,
            group[0].description,
            tuple(each.slice for each in group),
        )
        for uid, group in sorted(grouped.items())
    )


def find_series(path: Path) -> Series:
    """Return the series that a path names.

    Args:
        path: `FOLDER`, `FILE.zip`, `FOLDER/UID` or `FILE.zip/UID`. Localizers need their UID.

    Raises:
        InputError: The path names no series or several, or files are damaged, see `list_series`.
    """
    split = split_series_path(path)
    if split is None:
        raise InputError(f"{path}: no such folder, zip file or series.")
    source, uid = split
    if not can_read_dicom() and source.is_dir() and not find_dicom([source]):
        raise InputError(f"{path}: {_NOTHING}")
    found = list_series(source)
    refuse_faults(source, found.faults)
    if uid is not None:
        return choose_series([found], uid)
    chosen = [series for series in found.series if series.path == path]
    if len(chosen) == 1:
        return chosen[0]
    if not found.series and not found.others:
        raise InputError(f"{path}: {_NOTHING}")
    if not found.series:
        raise InputError(
            f"{path}: expected a DICOM series of images, got {listed(found.others)}. Give its images."
        )
    raise InputError(
        f"{path}: expected one series, got {counted(len(found.series), 'series', 'series')}. Give one of "
        f"{listed([str(series.path) for series in found.series])}."
    )


def choose_series(lists: Sequence[SeriesList], uid: str) -> Series:
    """Return the series of a UID.

    Args:
        lists: Series of folders and zip files.
        uid: The series instance UID, or its beginning if one series begins with it.

    Raises:
        InputError: No series or several begin with the UID.
    """
    every = [series for each in lists for series in each.series]
    exact = [series for series in every if series.uid == uid]
    found = exact or [series for series in every if series.uid.startswith(uid)]
    if len(found) == 1:
        return found[0]
    where = listed([str(each.source) for each in lists])
    if found:
        names = listed([f"{series.uid} in {series.source}" for series in found])
        raise InputError(
            f"{where}: expected one series of UID {uid}, got {names}. Give a longer UID or one folder."
        )
    names = listed([series.uid for series in every]) or "none"
    raise InputError(f"{where}: expected a series of UID {uid}, got {names}. Choose by scanseg dicom list.")
