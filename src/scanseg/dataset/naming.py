"""Grouping of files into cases by nnU-Net's names `CASE_0000.ext`."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from scanseg.errors import InputError
from scanseg.imaging import DECODERS, DETACHED_ENDINGS, companion_path, count_channels
from scanseg.messages import listed

_NUMBERED = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")

_SIDE_FILES = ("dataset.json", "prediction.json", "thumbs.db", "desktop.ini")
"""Names in lower case of files beside images that are no images. Hidden files are ignored too."""

_MOST_CHANNELS = 10
"""First number that identifies files as frames instead of channels, if nothing else does."""

CaseFiles = dict[str, tuple[Path, ...]]


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
        endings = sorted({_ending_of(path) for path in visible})
        found = f"files that end in {listed(endings)}" if endings else _describe_folders(folder)
        raise InputError(f"{folder}: expected files that end in {file_ending}, got {found}.")
    return files


def _describe_folders(folder: Path) -> str:
    """Describe the contents of a folder without files."""
    inside = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return f"only folders: {listed(inside)}" if inside else "no files"


def count_other_endings(folder: Path, *, file_ending: str) -> dict[str, int]:
    """Count the visible files of a folder with other endings.

    Not counted are `dataset.json` and files of operating systems, the voxels of images whose headers have the ending,
    and the spacings of TIFF files.

    Args:
        folder: Folder to search.
        file_ending: Ending of the images, with its dot.

    Returns:
        Number of files by ending.
    """
    paths = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    images = [path for path in paths if path.name.endswith(file_ending)]
    beside: set[str] = set()
    if file_ending.lower() in DETACHED_ENDINGS:
        stems = {path.name[: -len(file_ending)] for path in images}
        beside = {path.name for path in paths if path.name.partition(".")[0] in stems}
    elif DECODERS.get(file_ending.lower()) == "tiff":
        beside = {companion_path(path).name for path in images}
    others = (
        path
        for path in paths
        if not path.name.endswith(file_ending)
        and path.name.lower() not in _SIDE_FILES
        and path.name not in beside
    )
    return dict(Counter(map(_ending_of, others)))


def _ending_of(path: Path) -> str:
    """Return the ending of a file name.

    It is a known ending, else the part from the last dot, else the whole name.
    """
    name = path.name
    known = next((ending for ending in DECODERS if name.lower().endswith(ending)), path.suffix)
    return name[len(name) - len(known) :] if known else name


def split_channel(file: Path, file_ending: str) -> tuple[str, int | None]:
    """Split a file name into case and channel.

    The channel is `None` if the name does not end in four digits.
    """
    stem = file.name[: -len(file_ending)]
    match = _NUMBERED.fullmatch(stem)
    return (match["case"], int(match["channel"])) if match else (stem, None)


def group_files(
    files: Sequence[Path],
    *,
    file_ending: str,
    num_channels: int,
    known_cases: Collection[str] | None = None,
) -> tuple[CaseFiles, list[str]]:
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

    Returns:
        The files of each case in the order of channels, and the faults.
    """
    if num_channels == 1 or holds_all_channels(files, num_channels, file_ending=file_ending):
        beyond = _further_channels(files, file_ending) if num_channels == 1 and known_cases is None else []
        grouped, faults = _one_file_each(files, file_ending, known_cases or ())
        return ({}, beyond) if beyond else (grouped, faults)
    return _one_file_per_channel(files, file_ending, num_channels)


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
        f"{name[: -len(file_ending)]}_0000{file_ending}"
    ]


def _one_file_each(
    files: Sequence[Path], file_ending: str, known_cases: Collection[str]
) -> tuple[CaseFiles, list[str]]:
    """Return the cases if each file is one, and the faults."""
    parts = {file: split_channel(file, file_ending) for file in files}
    films = {case for case, channel in parts.values() if channel}
    extra = sorted(file.name for file, (case, channel) in parts.items() if channel and case in known_cases)
    if extra:
        return {}, [
            f"{listed(extra)}: further channels, expected one file with all channels of dataset.json. Name every "
            "channel in channel_names, or remove the files."
        ]
    grouped: dict[str, list[Path]] = defaultdict(list)
    for file, (case, _) in parts.items():
        stem = file.name[: -len(file_ending)]
        is_whole = case in films or (stem in known_cases and case not in known_cases)
        grouped[stem if is_whole else case].append(file)
    faults = [
        f"case {case}: {' and '.join(file.name for file in group)} have the same name. Rename all but one."
        for case, group in grouped.items()
        if len(group) > 1
    ]
    return {case: tuple(group) for case, group in sorted(grouped.items()) if len(group) == 1}, faults


def _one_file_per_channel(
    files: Sequence[Path], file_ending: str, num_channels: int
) -> tuple[CaseFiles, list[str]]:
    """Return the cases if each channel has a file, and the faults.

    The files of a case differ only in their four digits.
    """
    grouped: dict[str, dict[int, Path]] = defaultdict(dict)
    faults = []
    for file in files:
        case, channel = split_channel(file, file_ending)
        if channel is None:
            faults.append(
                f"{file.name}: expected a channel number, or {num_channels} channels in one file. Name the files "
                f"{case}_0000{file_ending}, {case}_0001{file_ending} ..."
            )
        else:
            grouped[case][channel] = file
    complete = {}
    for case, channels in sorted(grouped.items()):
        missing = [
            f"{case}_{index:04d}{file_ending}" for index in range(num_channels) if index not in channels
        ]
        extra = [file.name for channel, file in sorted(channels.items()) if channel >= num_channels]
        if missing:
            faults.append(
                f"case {case}: missing {', '.join(missing)}. Add the files of all channels, or one file that holds all "
                f"{num_channels}."
            )
        if extra:
            faults.append(f"case {case}: {', '.join(extra)} beyond the {num_channels} channels. Remove them.")
        if not missing and not extra:
            complete[case] = tuple(channels[index] for index in range(num_channels))
    return complete, faults
