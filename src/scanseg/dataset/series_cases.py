"""DICOM series to predict in folders and zip files."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scanseg.dataset.folder_names import is_image_file
from scanseg.dataset.naming import FaultyCase, group_files
from scanseg.dataset.raw import RawCase
from scanseg.errors import InputError, refuse_faults
from scanseg.imaging import (
    Series,
    SeriesList,
    can_read_dicom,
    choose_series,
    find_dicom,
    has_dicom_content,
    leads_outside,
    list_series,
    stack_slices,
)
from scanseg.messages import counted, listed

_ZIP = ".zip"


@dataclass(frozen=True)
class SeriesCases:
    """Cases of DICOM series."""

    cases: tuple[RawCase, ...] = ()
    """Cases without label maps, sorted by name."""
    faulty: tuple[FaultyCase, ...] = ()
    """Series, folders and zip files that cannot be used."""
    warnings: tuple[str, ...] = ()
    """Localizers and other objects that are left out, one sentence for each folder or zip file."""
    used: frozenset[Path] = frozenset()
    """Files that belong to a series, and zip files with series."""


@dataclass
class _Found:
    """Series of several folders and zip files."""

    lists: list[SeriesList] = field(default_factory=list)
    faulty: list[FaultyCase] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def find_series_places(folder: Path) -> list[Path]:
    """Find the folders and zip files of DICOM series in a folder.

    Args:
        folder: Folder to search.

    Returns:
        The folder itself if DICOM files lie directly in it, else its subfolders with DICOM files and its zip files.
        Empty if pydicom is not installed. Beside images of other formats, DICOM files count by their content alone.
    """
    if not can_read_dicom() or not folder.is_dir():
        return []
    visible = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    loose = [path for path in visible if path.is_file() and not is_image_file(path) and not _is_zip(path)]
    found = find_dicom(loose)
    if any(map(has_dicom_content, found)) or (found and not any(map(is_image_file, visible))):
        return [folder]
    return [path for path in visible if (path.is_dir() and find_dicom([path])) or _is_zip(path)]


def _is_zip(path: Path) -> bool:
    return path.name.lower().endswith(_ZIP) and path.is_file()


def find_series_cases(
    places: Sequence[Path], *, num_channels: int, chosen: Sequence[str] = ()
) -> SeriesCases:
    """Find the cases of DICOM series, and check their headers.

    A folder or zip file with one series is a case of its name. If each case has several channels, or a name ends in
    four digits, names follow the rule of image files: `CASE_0000`, `CASE_0001` ... Of several series, each is a case
    `NAME_UID`.

    Args:
        places: Folders and zip files.
        num_channels: Number of channels of each case.
        chosen: UIDs of the series to use, or their beginnings. Empty: all.

    Raises:
        InputError: A chosen series is missing or not unique, or names look like further channels.
    """
    found = _list_all([path.resolve() if path.name in ("", "..") else path for path in places])
    wanted = {choose_series(found.lists, uid).path for uid in chosen}
    singles, cases, used = dict[Path, Series](), list[RawCase](), set[Path]()
    for each in found.lists:
        for series in each.series:
            used.update(series.files)
            if (wanted and series.path not in wanted) or (not wanted and _is_left_out(series, each)):
                continue
            name = _name_of(series)
            fault = _find_fault(series)
            if fault is not None:
                found.faulty.append(FaultyCase(name, (series.path,), (fault,)))
            elif series.path == series.source:
                singles[series.path] = series
            elif num_channels == 1:
                cases.append(RawCase(name, (series.path,), None))
            else:
                advice = f"expected {num_channels} series in folders CASE_0000, CASE_0001 ..., got one of several here."
                found.faulty.append(FaultyCase(name, (series.path,), (advice,)))
    cases += _group_channels(tuple(singles), num_channels, found.faulty)
    return SeriesCases(
        tuple(sorted(cases, key=lambda case: case.name)),
        tuple(found.faulty),
        () if wanted else tuple(found.warnings),
        frozenset(used),
    )


def _list_all(places: Sequence[Path]) -> _Found:
    """List the series of folders and zip files."""
    found = _Found()
    for place in places:
        fault = leads_outside(place)
        try:
            listing = list_series(place) if fault is None else None
        except InputError as error:
            fault = str(error)
        if fault is not None or listing is None or listing.faults:
            faults = (fault,) if fault is not None or listing is None else listing.faults
            found.faulty.append(FaultyCase(_stem(place), (place,), tuple(map(str, faults))))
            continue
        found.lists.append(listing)
        left_out = [
            f"series {series.uid} (localizer)" for series in listing.series if _is_left_out(series, listing)
        ]
        left_out += listing.others
        if left_out:
            found.warnings.append(
                f"{place}: {counted(len(left_out), 'kind')} of DICOM left out: {listed(left_out)}."
            )
    return found


def _is_left_out(series: Series, listing: SeriesList) -> bool:
    """Return whether a series is a localizer beside other series."""
    return series.is_localizer and not all(each.is_localizer for each in listing.series)


def _find_fault(series: Series) -> str | None:
    """Return the reason why a series is no volume."""
    try:
        stack_slices(series)
    except InputError as error:
        return str(error)
    return None


def _stem(place: Path) -> str:
    """Return the name of a folder or zip file without its ending."""
    return place.name[: -len(_ZIP)] if _is_zip(place) else place.name


def _name_of(series: Series) -> str:
    """Return the name of the case of a series."""
    stem = _stem(series.source)
    return stem if series.path == series.source else f"{stem}_{series.uid}"


def _group_channels(paths: Sequence[Path], num_channels: int, faulty: list[FaultyCase]) -> list[RawCase]:
    """Group folders and zip files of one series into cases."""
    by_ending: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        by_ending[path.name[len(_stem(path)) :]].append(path)
    cases = []
    for ending, group in by_ending.items():
        grouped = group_files(group, file_ending=ending, num_channels=num_channels)
        refuse_faults(group[0].parent, grouped.faults)
        faulty += grouped.faulty
        cases += [RawCase(name, images, None) for name, images in grouped.cases.items()]
    return cases
