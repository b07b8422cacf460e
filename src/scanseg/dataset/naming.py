"""Grouping of files into cases by nnU-Net's names `CASE_0000.ext`."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from scanseg.dataset.case_names import find_name_fault
from scanseg.errors import InputError
from scanseg.imaging import (
    DECODERS,
    DETACHED_ENDINGS,
    companion_path,
    count_channels,
    dicom_advice,
    files_of,
    find_dicom,
)
from scanseg.messages import counted, listed

_NUMBERED = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")

_SIDE_FILES = ("dataset.json", "prediction.json", "thumbs.db", "desktop.ini")
"""Names in lower case of files beside images that are no images. Hidden files are ignored too."""

_MOST_CHANNELS = 10
"""First number that identifies files as frames instead of channels, if nothing else does."""

CaseFiles = dict[str, tuple[Path, ...]]


@dataclass(frozen=True)
class FaultyCase:
    """A case whose files cannot be used together."""

    name: str
    files: tuple[Path, ...]
    """Files of the case that exist."""
    faults: tuple[str, ...]
    """Faults of the case. Each has the values and the way to fix it."""

    @property
    def named_faults(self) -> list[str]:
        """Faults with the name of the case."""
        return [f"case {self.name}: {fault}" for fault in self.faults]


@dataclass(frozen=True)
class GroupedFiles:
    """Files grouped by case."""

    cases: CaseFiles
    """Files of each usable case in the order of channels, sorted by name."""
    faulty: tuple[FaultyCase, ...] = ()
    """Cases that cannot be used."""
    faults: tuple[str, ...] = ()
    """Faults that make all cases uncertain."""

    @property
    def all_faults(self) -> list[str]:
        """All faults. Faults of cases begin with the case name."""
        return [*self.faults, *(fault for case in self.faulty for fault in case.named_faults)]


def list_files(folder: Path, *, file_ending: str) -> list[Path]:
    """List the visible files with an ending, sorted by name.

    Args:
        folder: Folder to list.
        file_ending: Ending with its dot.

    Raises:
        InputError: The folder is missing, or holds no such file.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder.")
    visible = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    files = [path for path in visible if path.name.endswith(file_ending)]
    if not files:
        dicom = find_dicom(sorted(path for path in folder.iterdir() if not path.name.startswith(".")))
        if dicom:
            raise InputError(
                f"{folder}: expected files that end in {file_ending}, got DICOM files such as "
                f"{dicom[0].relative_to(folder)}. {dicom_advice()}"
            )
        endings = sorted({ending_of(path.name) for path in visible})
        found = f"files that end in {listed(endings)}" if endings else _describe_folders(folder)
        raise InputError(f"{folder}: expected files that end in {file_ending}, got {found}.")
    return files


def _describe_folders(folder: Path) -> str:
    """Describe the contents of a folder without files."""
    inside = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return f"only folders: {listed(inside)}" if inside else "no files"


def find_unused_files(folder: Path, images: Collection[Path]) -> list[Path]:
    """Find the visible files of a folder that belong to no image.

    `dataset.json` and files of operating systems are left out, and so are the voxels of images in two files, and the
    spacings of TIFF files.

    Args:
        folder: Folder to search.
        images: Images of the folder that are used.
    """
    used = {path.name for path in images}
    beside = {name for path in images for name in _names_beside(path)}
    stems = {path.name.partition(".")[0] for path in images if path.name.lower().endswith(DETACHED_ENDINGS)}
    return [
        path
        for path in sorted(folder.iterdir())
        if path.is_file()
        and not path.name.startswith(".")
        and path.name not in used
        and path.name not in beside
        and path.name.partition(".")[0] not in stems
        and path.name.lower() not in _SIDE_FILES
    ]


def _names_beside(image: Path) -> list[str]:
    """Return the names of files that may belong to an image."""
    if image.name.lower().endswith(DETACHED_ENDINGS):
        return [file.name for file in files_of(image)]
    if DECODERS.get(ending_of(image.name).lower()) == "tiff":
        return [companion_path(image, is_label_map=kind).name for kind in (False, True)]
    return []


def ending_of(name: str) -> str:
    """Return the ending of a file name.

    It is a known ending, else the part from the last dot, else the whole name.

    Args:
        name: Name of a file.
    """
    known = next((ending for ending in DECODERS if name.lower().endswith(ending)), Path(name).suffix)
    return name[len(name) - len(known) :] if known else name


def split_channel(file: Path, file_ending: str) -> tuple[str, int | None]:
    """Split a file name into case and channel.

    The channel is `None` if the name does not end in four digits.
    """
    stem = file.name.removesuffix(file_ending)
    match = _NUMBERED.fullmatch(stem)
    return (match["case"], int(match["channel"])) if match else (stem, None)


def group_files(
    files: Sequence[Path],
    *,
    file_ending: str,
    num_channels: int,
    known_cases: Collection[str] | None = None,
    allow_grey: bool = False,
) -> GroupedFiles:
    """Group image files by case.

    If one file holds all channels, each file is a case. `_0000` at the end of its name is left out of the case name,
    unless the same name occurs with other numbers too (the frames of a film). If each case has one channel, files that
    look like further channels are a fault: `x_0001` beside `x_0000`, if no number of `x` is 10 or more. In all other
    data sets, each channel has one file.

    Args:
        files: Image files.
        file_ending: Ending of the files, with its dot.
        num_channels: Number of channels of each case.
        known_cases: Case names of label maps, which distinguish surplus channels from frames. `None`: no label maps
            exist.
        allow_grey: Take grey pictures as cases too, unless the files are numbered channels.

    Returns:
        The files of each case, and the faults.
    """
    numbered = any(split_channel(file, file_ending)[1] for file in files)
    allow_grey = allow_grey and not numbered
    if num_channels == 1 or allow_grey or holds_all_channels(files, num_channels, file_ending=file_ending):
        beyond = _further_channels(files, file_ending) if num_channels == 1 and known_cases is None else []
        if beyond:
            return GroupedFiles({}, faults=tuple(beyond))
        grouped = _one_file_each(files, file_ending, known_cases or ())
    else:
        grouped = _one_file_per_channel(files, file_ending, num_channels)
    return _without_faulty_names(grouped)


def _without_faulty_names(grouped: GroupedFiles) -> GroupedFiles:
    """Return the groups, with invalid case names as faults."""
    faults = {name: find_name_fault(name) for name in grouped.cases}
    named = tuple(
        FaultyCase(name, grouped.cases[name], (fault,)) for name, fault in faults.items() if fault is not None
    )
    cases = {name: files for name, files in grouped.cases.items() if faults[name] is None}
    return GroupedFiles(cases, (*grouped.faulty, *named), grouped.faults)


def holds_all_channels(files: Sequence[Path], num_channels: int, *, file_ending: str) -> bool:
    """Return whether one file holds all channels of a case.

    The first readable file decides. If no name has a number above 0, files of single channels would lack all other
    channels. The answer is then yes if any file holds all channels, or if no file is readable.

    Args:
        files: Image files.
        num_channels: Number of channels of each case.
        file_ending: Ending of the files, with its dot.
    """
    counts = _readable_counts(files)
    if any(split_channel(file, file_ending)[1] for file in files):
        return next(counts, None) == num_channels
    return next(counts, num_channels) == num_channels or num_channels in counts


def _readable_counts(files: Sequence[Path]) -> Iterator[int]:
    """Yield the number of channels of every readable file."""
    for file in files:
        with suppress(InputError):
            yield count_channels(file)


def _further_channels(files: Sequence[Path], file_ending: str) -> list[str]:
    """Return a fault for files that look like further channels, if any.

    Each case has one channel, so `x_0001` beside `x_0000` is a further one.
    """
    numbered = [(file, *split_channel(file, file_ending)) for file in files]
    numbers: dict[str, set[int]] = defaultdict(set)
    for _, case, channel in numbered:
        if channel is not None:
            numbers[case].add(channel)
    stacks = {case for case, found in numbers.items() if 0 in found and max(found) < _MOST_CHANNELS}
    further = [(file.name, case) for file, case, channel in numbered if channel and case in stacks]
    if not further:
        return []
    (name, case), single = further[0], len(further) == 1
    return [
        f"{listed([name for name, _ in further])}: {'a further channel' if single else 'further channels'}, expected "
        f"one channel for each case, such as {case}_0000{file_ending}. Move {'it' if single else 'them'} elsewhere, or "
        f"name the files to segment. The name of a separate image ends in _0000, such as "
        f"{name.removesuffix(file_ending)}_0000{file_ending}"
    ]


def _one_file_each(files: Sequence[Path], file_ending: str, known_cases: Collection[str]) -> GroupedFiles:
    """Return the cases if each file is one, and the faults."""
    parts = {file: split_channel(file, file_ending) for file in files}
    films = {case for case, channel in parts.values() if channel}
    extra = sorted(file.name for file, (case, channel) in parts.items() if channel and case in known_cases)
    if extra:
        fault = (
            f"{listed(extra)}: further channels, expected one file with all channels of dataset.json. Name every "
            "channel in channel_names, or remove the files."
        )
        return GroupedFiles({}, faults=(fault,))
    grouped: dict[str, list[Path]] = defaultdict(list)
    for file, (case, _) in parts.items():
        stem = file.name.removesuffix(file_ending)
        is_whole = case in films or (stem in known_cases and case not in known_cases)
        grouped[stem if is_whole else case].append(file)
    faulty = [
        FaultyCase(
            case,
            tuple(group),
            (f"{' and '.join(file.name for file in group)} have the same name. Rename all but one.",),
        )
        for case, group in grouped.items()
        if len(group) > 1
    ]
    cases = {case: tuple(group) for case, group in sorted(grouped.items()) if len(group) == 1}
    return GroupedFiles(cases, tuple(faulty))


def _one_file_per_channel(files: Sequence[Path], file_ending: str, num_channels: int) -> GroupedFiles:
    """Return the cases if each channel has a file, and the faults.

    The files of a case differ only in their four digits.
    """
    grouped: dict[str, dict[int, Path]] = defaultdict(dict)
    faulty = []
    for file in files:
        case, channel = split_channel(file, file_ending)
        if channel is None:
            fault = (
                f"{file.name}: expected a channel number, or {num_channels} channels in one file. Name the files "
                f"{case}_0000{file_ending}, {case}_0001{file_ending} ..."
            )
            faulty.append(FaultyCase(case, (file,), (fault,)))
        else:
            grouped[case][channel] = file
    complete = {}
    for case, channels in sorted(grouped.items()):
        missing = [
            f"{case}_{index:04d}{file_ending}" for index in range(num_channels) if index not in channels
        ]
        extra = [file.name for channel, file in sorted(channels.items()) if channel >= num_channels]
        faults = []
        if missing:
            faults.append(
                f"missing {', '.join(missing)}. Add the files of all channels, or one file that holds all "
                f"{num_channels}."
            )
        if extra:
            faults.append(f"{', '.join(extra)} beyond the {num_channels} channels. Remove them.")
        if faults:
            faulty.append(
                FaultyCase(case, tuple(file for _, file in sorted(channels.items())), tuple(faults))
            )
        else:
            complete[case] = tuple(channels[index] for index in range(num_channels))
    return GroupedFiles(complete, tuple(faulty))


def find_left_out(folder: Path, *, file_ending: str, only: Collection[Path] | None = None) -> list[str]:
    """Describe the content of a folder that is not used.

    Each kind has one sentence with the first ten names.

    Kinds are files of other endings, hidden images, and folders.

    Args:
        folder: Folder of images or label maps. It may be missing.
        file_ending: Ending of its files, with its dot.
        only: The files that are used. `None`: all with the ending.
    """
    if not folder.is_dir():
        return []
    paths = sorted(folder.iterdir())
    names = {path.name for path in paths}
    hidden = [
        path.name
        for path in paths
        if path.name.startswith(".")
        and path.name.endswith(file_ending)
        and not (
            path.name.startswith("._") and path.name[2:] in names
        )  # macOS keeps attributes of FILE in ._FILE
        and path.is_file()
    ]
    folders = [path.name for path in paths if path.is_dir() and not path.name.startswith(".")]
    images = [path for path in paths if path.is_file() and path.name.endswith(file_ending)]
    others = [path.name for path in find_unused_files(folder, images)]
    used = None if only is None else {path.resolve() for path in only}
    unlisted = [
        path.name
        for path in paths
        if used is not None
        and path.name.endswith(file_ending)
        and not path.name.startswith(".")
        and path.is_file()
        and path.resolve() not in used
    ]
    sentences = []
    if others:
        verb = "does" if len(others) == 1 else "do"
        sentences.append(
            f"{counted(len(others), 'file')} left out that {verb} not end in {file_ending}: {listed(others)}. Convert "
            "to this format, or correct file_ending in dataset.json"
        )
    if unlisted:
        sentences.append(
            f"{counted(len(unlisted), 'file')} left out, not listed in dataset.json: {listed(unlisted)}"
        )
    if hidden:
        sentences.append(f"{counted(len(hidden), 'hidden file')} left out: {listed(hidden)}. Rename to use")
    if folders:
        sentences.append(
            f"{counted(len(folders), 'folder')} left out: {listed(folders)}. Move images up to use them"
        )
    return [f"{folder.name}: {sentence}" for sentence in sentences]
