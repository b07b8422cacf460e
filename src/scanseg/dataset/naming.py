"""Which files of a folder belong to one case: nnU-Net's naming `CASE_0000.ext`."""

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
"""Files that lie beside images and are none, in lower case; others of the kind begin with a dot."""

_MOST_CHANNELS = 10
"""Numbers from here on are those of frames, where nothing else tells frames from channels."""

CaseFiles = dict[str, tuple[Path, ...]]


def list_files(folder: Path, *, file_ending: str) -> list[Path]:
    """List the visible files of a folder with an ending, sorted by name.

    Args:
        folder: The folder.
        file_ending: The ending, with its dot.

    Raises:
        InputError: The folder is not there, or holds no such file.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder.")
    visible = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    files = [path for path in visible if path.name.endswith(file_ending)]
    if not files:
        there = sorted({_ending_of(path) for path in visible})
        holds = f"its files end in {listed(there)}" if there else _say_of_empty(folder)
        raise InputError(f"{folder}: no file ends in {file_ending}; {holds}.")
    return files


def _say_of_empty(folder: Path) -> str:
    """Say of a folder without files what it holds."""
    inside = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return f"it holds folders alone: {listed(inside)}" if inside else "it holds no files"


def count_other_endings(folder: Path, *, file_ending: str) -> dict[str, int]:
    """Count the visible files of a folder that do not have an ending, by the endings that they have.

    Left out are files that lie beside images (`dataset.json`, what systems leave there), the voxels of images whose
    headers have the ending, and the spacings of TIFF files.

    Args:
        folder: The folder.
        file_ending: The ending, with its dot.
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
    """Return the ending of a file's name: a known one, else what is behind the last dot, else the name."""
    name = path.name
    known = next((ending for ending in DECODERS if name.lower().endswith(ending)), path.suffix)
    return name[len(name) - len(known) :] if known else name


def split_channel(file: Path, file_ending: str) -> tuple[str, int | None]:
    """Split a file's name into case and channel; channel None where the name ends in no four digits."""
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

    Where one file holds all channels, each file is a case; its ending `_0000` is left out of the name, unless the same
    name occurs with other numbers too (the frames of a film). Where each case has one channel, what looks like further
    channels of a case is a fault: `x_0001` beside `x_0000`, if no number of `x` is 10 or more. Else there is one file
    for each channel.

    Args:
        files: The files.
        file_ending: Their ending, with its dot.
        num_channels: Channels that each case must have.
        known_cases: Names known from label maps, by which channels that are too many are told from frames; None: there
            are no label maps.

    Returns:
        The files of each case in the order of channels, and what is wrong, one phrase for each fault.
    """
    if num_channels == 1 or holds_all_channels(files, num_channels, file_ending=file_ending):
        beyond = _further_channels(files, file_ending) if num_channels == 1 and known_cases is None else []
        grouped, faults = _one_file_each(files, file_ending, known_cases or ())
        return ({}, beyond) if beyond else (grouped, faults)
    return _one_file_per_channel(files, file_ending, num_channels)


def holds_all_channels(files: Sequence[Path], num_channels: int, *, file_ending: str) -> bool:
    """Whether one file holds all channels of a case: as the first says that can be read.

    Where no name has a number above 0, so that files of single channels would lack all others, any that holds all
    decides, or that none can be read.
    """
    counts = _readable_counts(files)
    if any(split_channel(file, file_ending)[1] for file in files):
        return next(counts, None) == num_channels
    return next(counts, num_channels) == num_channels or num_channels in counts


def _readable_counts(files: Sequence[Path]) -> Iterator[int]:
    """Give the channels of every file that can be read."""
    for file in files:
        with suppress(InputError):
            yield count_channels(file)


def _further_channels(files: Sequence[Path], file_ending: str) -> list[str]:
    """Say which files are further channels of cases that have one: `x_0001` beside `x_0000`."""
    numbered = [(file, *split_channel(file, file_ending)) for file in files]
    numbers: dict[str, set[int]] = defaultdict(set)
    for _, case, channel in numbered:
        if channel is not None:
            numbers[case].add(channel)
    stacks = {case for case, found in numbers.items() if 0 in found and max(found) < _MOST_CHANNELS}
    further = [(file.name, case) for file, case, channel in numbered if channel and case in stacks]
    if not further:
        return []
    (name, case), one = further[0], len(further) == 1
    return [
        f"{listed([name for name, _ in further])}: {'a further channel' if one else 'further channels'}, but each case "
        f"has one, such as {case}_0000{file_ending}; move {'it' if one else 'them'} elsewhere, or give the files to "
        f"segment by name. An image of its own has a name that ends in _0000, such as "
        f"{name[: -len(file_ending)]}_0000{file_ending}"
    ]


def _one_file_each(
    files: Sequence[Path], file_ending: str, known_cases: Collection[str]
) -> tuple[CaseFiles, list[str]]:
    """Each file is a case."""
    parts = {file: split_channel(file, file_ending) for file in files}
    films = {case for case, channel in parts.values() if channel}
    extra = sorted(file.name for file, (case, channel) in parts.items() if channel and case in known_cases)
    if extra:
        return {}, [
            f"{listed(extra)}: further channels, but dataset.json names channels that one file holds; "
            "name every channel in channel_names, or remove the files"
        ]
    grouped: dict[str, list[Path]] = defaultdict(list)
    for file, (case, _) in parts.items():
        stem = file.name[: -len(file_ending)]
        is_whole = case in films or (stem in known_cases and case not in known_cases)
        grouped[stem if is_whole else case].append(file)
    faults = [
        f"case {case}: {' and '.join(file.name for file in group)} have one name; rename all but one"
        for case, group in grouped.items()
        if len(group) > 1
    ]
    return {case: tuple(group) for case, group in sorted(grouped.items()) if len(group) == 1}, faults


def _one_file_per_channel(
    files: Sequence[Path], file_ending: str, num_channels: int
) -> tuple[CaseFiles, list[str]]:
    """Files that differ in the four digits only are the channels of a case."""
    grouped: dict[str, dict[int, Path]] = defaultdict(dict)
    faults = []
    for file in files:
        case, channel = split_channel(file, file_ending)
        if channel is None:
            faults.append(
                f"{file.name}: no channel number and not {num_channels} channels in one file; name the files "
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
                f"case {case}: missing {', '.join(missing)}; add the files of all channels, or give one that holds all "
                f"{num_channels}"
            )
        if extra:
            faults.append(f"case {case}: {', '.join(extra)} beyond the {num_channels} channels; remove them")
        if not missing and not extra:
            complete[case] = tuple(channels[index] for index in range(num_channels))
    return complete, faults
