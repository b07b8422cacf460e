"""Pairs of images and label maps by their file names."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scanseg.dataset.folder_names import (
    IMAGE_WORDS,
    LABEL_WORDS,
    find_channel_names,
    split_named_channel,
    split_number,
    stem_of,
    without_words,
)
from scanseg.imaging import LOSSY_ENDINGS
from scanseg.messages import counted, listed


@dataclass(frozen=True)
class FolderCase:
    """The files of one case in a folder of another layout."""

    name: str
    images: tuple[Path, ...]
    """One file with all channels, or one file for each channel in order."""
    label_map: Path | None = None
    """File of the label map. `None`: no label map."""
    masks: tuple[tuple[str, Path], ...] = ()
    """Name and file of each structure mask. Empty: no such masks."""

    @property
    def is_labelled(self) -> bool:
        """True if the case has a label map or structure masks."""
        return self.label_map is not None or bool(self.masks)


@dataclass(frozen=True)
class ImageGroups:
    """Image files by case."""

    cases: Mapping[str, tuple[Path, ...]]
    faults: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    """Files that are left out, each with the reason."""


@dataclass(frozen=True)
class NamePairs:
    """Label map of each image by name."""

    label_maps: Mapping[str, Path]
    """Label map of each case that has one."""
    faults: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    """Endings of image names that look like channels."""


def group_images(
    files: Sequence[Path], *, channels: Sequence[str], label_stems: Collection[str]
) -> ImageGroups:
    """Group image files by case.

    Files whose names end in four digits are channels if label maps have the names without the digits.

    Args:
        files: Image files.
        channels: Names of the channels, with which file names may end. Empty: unknown.
        label_stems: Names of the label maps without their endings.
    """
    if channels and any(split_named_channel(stem_of(file), channels) for file in files):
        return _by_channel_name(files, channels)
    if _are_numbered(files, label_stems):
        return _by_channel_number(files)
    grouped = _by_name((stem_of(file), file) for file in files)
    faults = tuple(
        f"case {name}: {' and '.join(file.name for file in several)} have one name. Rename all but one."
        for name, several in grouped.items()
        if len(several) > 1
    )
    return ImageGroups({name: tuple(group[:1]) for name, group in grouped.items()}, faults)


def _by_name(named: Iterable[tuple[str, Path]]) -> dict[str, list[Path]]:
    grouped: dict[str, list[Path]] = defaultdict(list)
    for name, file in named:
        grouped[name].append(file)
    return grouped


def _are_numbered(files: Sequence[Path], label_stems: Collection[str]) -> bool:
    """Return whether the four digits of all names are channels, not cases."""
    stems = [stem_of(file) for file in files]
    parts = [split_number(stem) for stem in stems]
    if not parts or any(number is None for _, number in parts):
        return False
    keys = {*label_stems, *(without_words(stem, LABEL_WORDS) for stem in label_stems)}
    with_number = len(keys & set(stems))
    without_number = len(keys & {case for case, _ in parts})
    if with_number or without_number:
        return without_number > with_number
    return {case for case, _ in parts} == {case for case, number in parts if number == 0}


def _by_channel_number(files: Sequence[Path]) -> ImageGroups:
    grouped: dict[str, dict[int, Path]] = defaultdict(dict)
    faults = []
    for file in files:
        case, number = split_number(stem_of(file))
        assert number is not None
        if number in grouped[case]:
            faults.append(
                f"case {case}: {grouped[case][number].name} and {file.name} are one channel. Remove one."
            )
        grouped[case][number] = file
    last = max(max(numbers) for numbers in grouped.values())
    for case, numbers in grouped.items():
        missing = [f"{case}_{number:04d}" for number in range(last + 1) if number not in numbers]
        if missing:
            faults.append(
                f"case {case}: expected {last + 1} channels, lacks {listed(missing)}. Add the files."
            )
    cases = {case: tuple(numbers[number] for number in sorted(numbers)) for case, numbers in grouped.items()}
    return ImageGroups(cases, tuple(faults))


def _by_channel_name(files: Sequence[Path], channels: Sequence[str]) -> ImageGroups:
    grouped: dict[str, dict[int, Path]] = defaultdict(dict)
    faults, ignored = [], []
    for file in files:
        found = split_named_channel(stem_of(file), channels)
        if found is None:
            ignored.append(f"{file.name}: its name ends in no channel of {', '.join(channels)}")
            continue
        case, place = found
        if place in grouped[case]:
            faults.append(
                f"case {case}: {grouped[case][place].name} and {file.name} are both channel {channels[place]}. "
                "Remove one."
            )
        grouped[case][place] = file
    for case, places in grouped.items():
        missing = [channel for place, channel in enumerate(channels) if place not in places]
        if missing:
            faults.append(f"case {case}: lacks {listed(missing)}. Add the files, or name other channels.")
    cases = {case: tuple(places[place] for place in sorted(places)) for case, places in grouped.items()}
    return ImageGroups(cases, tuple(faults), tuple(ignored))


def pair_names(names: Collection[str], label_maps: Sequence[Path], *, where: str = "") -> NamePairs:
    """Find the image of each label map by its name.

    The first rule with a result counts: equal names, equal names without the words of label maps (`a_mask`), and
    equal names without the words of images too (`image_1` and `mask_1`).

    Args:
        names: Names of the cases.
        label_maps: Files of label maps.
        where: Place of the images, for messages.
    """
    by_rest: dict[str, list[str]] = defaultdict(list)
    for name in names:
        by_rest[without_words(name, IMAGE_WORDS)].append(name)
    grouped: dict[str, list[Path]] = defaultdict(list)
    faults, unpaired = [], []
    for path in label_maps:
        stem = stem_of(path)
        rest = without_words(stem, LABEL_WORDS)
        found = [name for name in (stem, rest) if name in names][:1] or by_rest.get(rest) or by_rest.get(stem)
        if not found:
            unpaired.append(path)
        elif len(found) > 1:
            faults.append(
                f"label map {path.name}: expected one image, got {listed(sorted(found))}. Rename the label map as its "
                "image."
            )
        else:
            grouped[found[0]].append(path)
    faults += [
        f"case {name}: expected one label map, got {listed([path.name for path in paths])}. Move all but one."
        for name, paths in sorted(grouped.items())
        if len(paths) > 1
    ]
    channels, more = _explain_unpaired(unpaired, names, where)
    return NamePairs({name: paths[0] for name, paths in grouped.items()}, (*faults, *more), channels)


def _explain_unpaired(
    label_maps: Sequence[Path], names: Collection[str], where: str
) -> tuple[tuple[str, ...], list[str]]:
    """Return proposed channels, and faults of label maps without image."""
    for path in label_maps:
        case = without_words(stem_of(path), LABEL_WORDS)
        channels = find_channel_names(case, sorted(names)) if case else ()
        if channels and len(channels) * len(label_maps) <= len(names):
            fault = (
                f"label map {path.name}: {counted(len(channels), 'image')} of this name, which end in "
                f"{', '.join(channels)}. Name the channels in order by --channels {','.join(channels)}."
            )
            return channels, [fault]
    return (), [
        f"label map {path.name}: no image of this name{where}. Add the image, or move the label map."
        for path in label_maps
    ]


def split_by_words(files: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Split the files of one folder into images and label maps.

    Label maps have a word such as `mask` at an end of their names. If no name has one, and each name occurs as JPEG
    and in one other format, the latter are the label maps.

    Args:
        files: Image files of one folder.

    Returns:
        The images and the label maps. No label maps: the names do not show them.
    """
    label_maps = [file for file in files if without_words(stem_of(file), LABEL_WORDS) != stem_of(file)]
    if not label_maps:
        lossy = {stem_of(file): file for file in files if file.name.lower().endswith(LOSSY_ENDINGS)}
        others = {stem_of(file): file for file in files if file not in lossy.values()}
        if len(lossy) + len(others) == len(files) and lossy.keys() == others.keys():
            label_maps = list(others.values())
    chosen = set(label_maps)
    return [file for file in files if file not in chosen], label_maps
