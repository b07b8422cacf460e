"""Cases in folders of other layouts, by names and DICOM headers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from scanseg.dataset.folder_names import (
    IMAGE_FOLDERS,
    IMAGE_WORDS,
    LABEL_FOLDERS,
    LABEL_WORDS,
    MASK_FOLDERS,
    MODALITIES,
    find_channel_names,
    is_image_file,
    split_named_channel,
    stem_of,
    without_words,
)
from scanseg.dataset.folder_pairs import FolderCase, group_images, pair_names, split_by_words
from scanseg.dataset.folder_series import find_case_series
from scanseg.errors import InputError
from scanseg.imaging import DECODERS, DETACHED_ENDINGS, companion_path
from scanseg.messages import counted, listed

_SIDE_FILES = ("thumbs.db", "desktop.ini", "dataset.json", "conversion.json")
_UNKNOWN = "not an image of a known format"


@dataclass(frozen=True)
class FolderCases:
    """Cases found in a folder by the names of files."""

    layout: str
    """Layout of the folder in words."""
    cases: tuple[FolderCase, ...] = ()
    """All cases, sorted by name."""
    ignored: tuple[str, ...] = ()
    """Files that are left out, each with the reason."""
    faults: tuple[str, ...] = ()
    """Missing or ambiguous files, each with advice."""
    channels: tuple[str, ...] = ()
    """Endings of image names that look like channels."""

    @property
    def labelled(self) -> tuple[FolderCase, ...]:
        """Cases with a label map or structure masks."""
        return tuple(case for case in self.cases if case.is_labelled)

    @property
    def unlabelled(self) -> tuple[FolderCase, ...]:
        """Cases without label map."""
        return tuple(case for case in self.cases if not case.is_labelled)

    @property
    def structures(self) -> tuple[str, ...]:
        """Names of all structure masks, sorted. Empty: label maps, or no labels."""
        return tuple(sorted({name for case in self.cases for name, _ in case.masks}))


def find_folder_cases(
    images: Path, label_maps: Path | None = None, *, channels: Sequence[str] = ()
) -> FolderCases | None:
    """Find images and their label maps in folders of any layout.

    Args:
        images: Folder of images, or of images and label maps.
        label_maps: Folder of label maps. `None`: inside `images`.
        channels: Names of the channels, with which names of image files may end. Empty: unknown.

    Returns:
        The cases. `None`: the folder has no known layout.

    Raises:
        InputError: A folder is missing.
    """
    for folder in (images, *(() if label_maps is None else (label_maps,))):
        if not folder.is_dir():
            raise InputError(
                f"{folder}: no such folder. Name the folder of the images, or of the label maps."
            )
    if label_maps is not None and label_maps.resolve() != images.resolve():
        return _pair_folders(images, label_maps, channels)
    pair = _find_folders(images)
    if isinstance(pair, str):
        return FolderCases("folders of images and label maps", faults=(pair,))
    if pair is not None:
        return _pair_folders(*pair, channels)
    if any(map(is_image_file, images.iterdir())):
        return _split_folder(images, channels)
    return _read_case_folders(images, channels)


def _find_folders(folder: Path) -> tuple[Path, Path] | str | None:
    """Return the folders of images and label maps inside a folder.

    Returns:
        Both folders, the fault of an ambiguous choice, or `None`.
    """
    inside = _visible_folders(folder)
    found = [
        [path for path in inside if path.name.lower() in names] for names in (IMAGE_FOLDERS, LABEL_FOLDERS)
    ]
    if not all(found):
        return None
    names = [path.name for group in found for path in group if len(group) > 1]
    if names:
        return f"expected one folder of images and one of label maps, got {listed(names)}. Name both: IMAGES LABELS."
    return found[0][0], found[1][0]


def _visible_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _image_files(folder: Path) -> list[Path]:
    return sorted(filter(is_image_file, folder.iterdir()))


def _other_files(folder: Path) -> list[str]:
    """List the other files of a folder, each with the reason."""
    images = _image_files(folder)
    tiff = [path for path in images if DECODERS[_ending(path)] == "tiff"]
    beside = {companion_path(path, is_label_map=kind).name for path in tiff for kind in (False, True)}
    if any(_ending(path) in DETACHED_ENDINGS for path in images):
        beside |= {path.name for path in folder.iterdir() if path.suffix.lower() in (".raw", ".zraw", ".gz")}
    return [
        f"{folder.name}/{path.name}: {_UNKNOWN}"
        for path in sorted(folder.iterdir())
        if path.is_file()
        and not (path.name.startswith(".") or path.name.lower() in _SIDE_FILES or path.name in beside)
        and not is_image_file(path)
    ]


def _ending(path: Path) -> str:
    return path.name[len(stem_of(path)) :].lower()


def _sorted_cases(cases: Sequence[FolderCase]) -> tuple[FolderCase, ...]:
    return tuple(sorted(cases, key=lambda case: case.name))


def _pair_folders(images: Path, label_maps: Path, channels: Sequence[str]) -> FolderCases:
    """Find the cases of two folders: images and label maps."""
    ignored = [*_other_files(images), *_other_files(label_maps)]
    files, folders = _image_files(images), _visible_folders(images)
    label_files, label_folders = _image_files(label_maps), _visible_folders(label_maps)
    if not files and folders:
        found = _read_image_folders(images, channels)
    else:
        stems = [stem_of(path) for path in label_files]
        stems += [folder.name for folder in label_folders]
        grouped = group_images(files, channels=channels, label_stems=stems)
        found = FolderCases(
            "", tuple(FolderCase(*case) for case in grouped.cases.items()), grouped.ignored, grouped.faults
        )
        ignored += [f"{images.name}/{folder.name}: a folder beside images" for folder in folders]
    if not label_files and label_folders:
        found = _add_masks(found, label_maps)
    else:
        pairs = pair_names({case.name for case in found.cases}, label_files, where=f" in {images.name}")
        cases = tuple(replace(case, label_map=pairs.label_maps.get(case.name)) for case in found.cases)
        found = replace(
            found,
            layout=f"images in {images.name}, label maps in {label_maps.name}",
            cases=cases,
            faults=(*found.faults, *pairs.faults),
            channels=pairs.channels,
        )
        ignored += [
            f"{label_maps.name}/{folder.name}: a folder beside label maps" for folder in label_folders
        ]
    return replace(found, cases=_sorted_cases(found.cases), ignored=(*ignored, *found.ignored))


def _read_image_folders(images: Path, channels: Sequence[str]) -> FolderCases:
    """Find cases with a folder of images each."""
    cases, faults = [], []
    for folder in _visible_folders(images):
        series = None if _image_files(folder) else find_case_series(folder)
        if isinstance(series, Path):
            files: tuple[Path, ...] | str = (series,)
        else:
            files = series or _ordered(folder.name, _image_files(folder), channels)
        if isinstance(files, str):
            faults.append(files)
        else:
            cases.append(FolderCase(folder.name, files))
    return FolderCases("", tuple(cases), faults=tuple(faults))


def _ordered(case: str, files: Sequence[Path], channels: Sequence[str]) -> tuple[Path, ...] | str:
    """Order the image files of a case, or return a fault."""
    if len(files) == 1 and len(channels) <= 1:
        return tuple(files)
    grouped = group_images(files, channels=channels, label_stems=[case])
    if grouped.faults:
        return grouped.faults[0]
    if len(grouped.cases) == 1:
        return next(iter(grouped.cases.values()))
    if not files:
        return f"case {case}: no image. Add it, or remove the folder."
    return (
        f"case {case}: expected one image, got {listed([file.name for file in files])}. Name the channels in order by "
        "--channels, such as --channels t1,flair."
    )


def _add_masks(found: FolderCases, label_maps: Path) -> FolderCases:
    """Add structure masks from folders of cases, or from folders of structures."""
    folders = _visible_folders(label_maps)
    names = {case.name for case in found.cases}
    by_case = {folder.name: folder for folder in folders if folder.name in names}
    if not by_case:
        return _add_structure_folders(found, folders)
    faults = [
        f"label folder {folder.name}: no image of this name. Add the image, or move the folder."
        for folder in folders
        if folder.name not in names
    ]
    cases = [
        replace(case, masks=_masks_in(by_case[case.name], case.name)) if case.name in by_case else case
        for case in found.cases
    ]
    layout = f"one mask per structure in {label_maps.name}/CASE"
    return replace(found, layout=layout, cases=tuple(cases), faults=(*found.faults, *faults))


def _add_structure_folders(found: FolderCases, folders: Sequence[Path]) -> FolderCases:
    masks: dict[str, list[tuple[str, Path]]] = {case.name: [] for case in found.cases}
    faults = list(found.faults)
    for folder in folders:
        pairs = pair_names(masks.keys(), _image_files(folder))
        faults += [f"{folder.name}: {fault}" for fault in pairs.faults]
        for name, path in pairs.label_maps.items():
            masks[name].append((folder.name, path))
    cases = tuple(replace(case, masks=tuple(masks[case.name])) for case in found.cases)
    return replace(found, layout="one folder of masks per structure", cases=cases, faults=tuple(faults))


def _masks_in(folder: Path, case: str) -> tuple[tuple[str, Path], ...]:
    """List the structure masks of a folder and its mask folders."""
    inside = [path for path in _visible_folders(folder) if path.name.lower() in MASK_FOLDERS]
    files = [path for place in (folder, *inside) for path in _image_files(place)]
    return tuple((_structure_of(path, case), path) for path in files)


def _structure_of(path: Path, case: str) -> str:
    """Return the name of the structure of a mask file."""
    stem = stem_of(path)
    rest = stem.removeprefix(case).lstrip("_-. ")
    return (rest if stem.startswith(case) and rest else stem) or stem


def _split_folder(folder: Path, channels: Sequence[str]) -> FolderCases | None:
    """Find the cases of one folder with images and label maps."""
    files = _image_files(folder)
    images, label_maps = split_by_words(files)
    if not images or not label_maps:
        return None
    grouped = group_images(images, channels=channels, label_stems=[stem_of(path) for path in label_maps])
    pairs = pair_names(grouped.cases.keys(), label_maps)
    cases = [
        FolderCase(name, files, pairs.label_maps.get(name)) for name, files in sorted(grouped.cases.items())
    ]
    folders = (f"{path.name}: a folder beside images" for path in _visible_folders(folder))
    return FolderCases(
        f"images and label maps in {folder.name}",
        tuple(cases),
        ignored=(*_other_files(folder), *folders, *grouped.ignored),
        faults=(*grouped.faults, *pairs.faults),
        channels=pairs.channels,
    )


def _read_case_folders(root: Path, channels: Sequence[str]) -> FolderCases | None:
    """Find the cases of a folder with one folder per case."""
    cases, faults, ignored = [], [], _other_files(root)
    proposed: set[tuple[str, ...]] = set()
    for folder in _visible_folders(root):
        series = find_case_series(folder)
        if series is None and not _may_be_case(folder):
            ignored.append(f"{folder.name}: a folder without an image and its labels")
            continue
        if series is None:
            ignored += _other_files(folder)
        case = _read_series_folder(folder, series) if series else _read_case_folder(folder, channels)
        if isinstance(case, str):
            faults.append(case)
            proposed.add(_propose_channels(folder))
        else:
            cases.append(case)
    labelled = [case for case in cases if case.is_labelled]
    if not labelled and not faults:
        return None
    with_masks = sum(bool(case.masks) for case in labelled)
    if 0 < with_masks < len(labelled):
        faults.append(
            f"expected structure masks in all cases or in none, got them in {with_masks} of "
            f"{counted(len(labelled), 'case')}. Convert both kinds separately."
        )
    masks = "one mask per structure" if with_masks else "one label map"
    names = proposed.pop() if len(proposed) == 1 and not channels else ()
    if names and len(faults) > 1:
        advice = f"Name the channels in order by --channels {','.join(names)}."
        faults = [f"all cases: expected one image, got images that end in {', '.join(names)}. {advice}"]
    return FolderCases(
        f"one folder per case, with {masks}", _sorted_cases(cases), tuple(ignored), tuple(faults), names
    )


def _may_be_case(folder: Path) -> bool:
    """Return whether a folder may hold the files of one case."""
    files = _image_files(folder)
    has_masks = any(path.name.lower() in MASK_FOLDERS for path in _visible_folders(folder))
    named = [file for file in files if _names_an_image(file, folder.name, ())]
    return bool(files) and (len(files) == 1 or has_masks or bool(named) or bool(split_by_words(files)[1]))


def _propose_channels(folder: Path) -> tuple[str, ...]:
    """Return the channels of a case folder with one label map."""
    images, label_maps = split_by_words(_image_files(folder))
    names = find_channel_names(folder.name, [stem_of(file) for file in images])
    return names if len(names) == len(images) > 1 and len(label_maps) == 1 else ()


def _read_series_folder(folder: Path, series: Path | str) -> FolderCase | str:
    """Return the case of a DICOM folder, or its fault.

    Images of other formats are its label map, or its structure masks if there are several.
    """
    if isinstance(series, str):
        return series
    masks = _masks_in(folder, folder.name)
    if len(masks) == 1 and masks[0][1].parent == folder:
        return FolderCase(folder.name, (series,), masks[0][1])
    return FolderCase(folder.name, (series,), masks=masks)


def _read_case_folder(folder: Path, channels: Sequence[str]) -> FolderCase | str:
    """Return the case of a folder, or its fault."""
    files = _image_files(folder)
    inside = [path for path in _visible_folders(folder) if path.name.lower() in MASK_FOLDERS]
    masks = tuple(
        (_structure_of(path, folder.name), path) for place in inside for path in _image_files(place)
    )
    images, label_maps = split_by_words(files)
    if masks:
        images, label_maps = files, []
    elif not label_maps:
        images = [file for file in files if _names_an_image(file, folder.name, channels)]
        masks = tuple((_structure_of(file, folder.name), file) for file in files if file not in images)
        images = images or files
        masks = () if images == files else masks
    if len(label_maps) > 1:
        return (
            f"case {folder.name}: expected one label map, got {listed([path.name for path in label_maps])}. Move all "
            "but one."
        )
    if channels and len(channels) > 1:
        images = [file for file in images if split_named_channel(stem_of(file), channels)] or images
    ordered = _ordered(folder.name, images, channels)
    if isinstance(ordered, str):
        return ordered
    return FolderCase(folder.name, ordered, label_maps[0] if label_maps else None, masks)


def _names_an_image(file: Path, case: str, channels: Sequence[str]) -> bool:
    """Return whether the name of a file is that of an image."""
    stem = _structure_of(file, case).lower()
    known = (*IMAGE_WORDS, *MODALITIES, case.lower(), *(channel.lower() for channel in channels))
    return stem in known or without_words(stem, LABEL_WORDS) in known
