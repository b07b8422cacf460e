"""Raw data sets and the files of their cases."""

import glob
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scanseg.dataset.case_names import find_name_fault, is_portable
from scanseg.dataset.description import DESCRIPTION_FILE, ListedCase, read_description
from scanseg.dataset.naming import (
    FaultyCase,
    find_left_out,
    group_files,
    holds_all_channels,
    list_files,
    split_channel,
)
from scanseg.errors import InputError, refuse_faults
from scanseg.imaging import LOSSY_ENDINGS, Image, compare_geometry, files_of, read_image, read_label_map
from scanseg.imaging import file_ending as known_ending
from scanseg.messages import counted, listed
from scanseg.specs import DatasetSpec

IMAGES_FOLDER = "imagesTr"
TEST_IMAGES_FOLDER = "imagesTs"
LABELS_FOLDER = "labelsTr"
TEST_LABELS_FOLDER = "labelsTs"
LABEL_ENDING_OF_LOSSY = ".png"
"""Ending of the label maps of JPEG images."""


@dataclass(frozen=True)
class RawCase:
    """The files of one case."""

    name: str
    images: tuple[Path, ...]
    """One file for each channel, or one file with all channels."""
    label_map: Path | None
    """File of the label map. `None`: a case without annotation."""

    def __post_init__(self) -> None:
        """Check the name, which becomes the name of files and folders.

        Raises:
            InputError: The name is empty or too long, begins with a dot, or holds a slash, a backslash or a control
                character.
        """
        fault = find_name_fault(self.name)
        if fault is not None:
            raise InputError(fault)

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of the case, see `imaging.files_of`."""
        images = (file for image in self.images for file in files_of(image))
        return (*images, *(files_of(self.label_map, is_label_map=True) if self.label_map else ()))


@dataclass(frozen=True)
class RawDataset:
    """A data set on disk."""

    path: Path
    spec: DatasetSpec
    cases: tuple[RawCase, ...]
    """Training cases, sorted by name."""
    num_described: int | None = None
    """Number of training cases in `dataset.json`, if any."""
    warnings: tuple[str, ...] = ()
    """Content of the folder that is not used, and unusual names."""

    @property
    def image_bytes(self) -> int:
        """Size in bytes of all image files of training cases."""
        files = (file for case in self.cases for image in case.images for file in files_of(image))
        return sum(file.stat().st_size for file in files)


def open_dataset(path: Path) -> RawDataset:
    """Open a data set in the layout of nnU-Net or the Decathlon.

    Args:
        path: Folder with `dataset.json`, `imagesTr` and `labelsTr`.

    Raises:
        InputError: `dataset.json` is missing or invalid, channels or label maps are missing, label maps have no image,
            or the folder holds no cases. The message lists all faults.
    """
    if not path.is_dir():
        raise InputError(f"{path}: no such folder. Name the folder with {DESCRIPTION_FILE}.")
    described = read_description(path)
    spec, cases_listed = described.spec, described.listed
    folders = (path / IMAGES_FOLDER, path / LABELS_FOLDER)
    cases, faults = _check_listed(path, cases_listed) if cases_listed else _pair_files(*folders, spec=spec)
    refuse_faults(path, faults)
    return RawDataset(
        path=path,
        spec=spec,
        cases=tuple(cases),
        num_described=described.num_training,
        warnings=(*_left_out(path, spec, cases if cases_listed else None), *_warn_of_names(cases)),
    )


def find_test_cases(dataset: RawDataset) -> tuple[RawCase, ...]:
    """Find the labelled test cases of a data set.

    Args:
        dataset: The data set.

    Returns:
        The cases of `imagesTs` and `labelsTs`, sorted by name. Empty if a folder is missing.

    Raises:
        InputError: Channels or label maps are missing, or label maps have no image. The message lists all faults.
    """
    folders = (dataset.path / TEST_IMAGES_FOLDER, dataset.path / TEST_LABELS_FOLDER)
    if not all(folder.is_dir() for folder in folders):
        return ()
    cases, faults = _pair_files(*folders, spec=dataset.spec)
    refuse_faults(dataset.path, faults)
    return tuple(cases)


def _left_out(path: Path, spec: DatasetSpec, cases: Sequence[RawCase] | None) -> list[str]:
    """Describe the content of the folders that no case uses.

    Args:
        path: Folder of the data set.
        spec: Description of the data set.
        cases: Cases that `dataset.json` lists. `None`: cases are found by their names.
    """
    images = None if cases is None else [image for case in cases for image in case.images]
    label_maps = None if cases is None else [case.label_map for case in cases if case.label_map is not None]
    return [
        *find_left_out(path / IMAGES_FOLDER, file_ending=spec.file_ending, only=images),
        *find_left_out(path / LABELS_FOLDER, file_ending=_label_ending(spec), only=label_maps),
        *find_left_out(path / TEST_IMAGES_FOLDER, file_ending=spec.file_ending),
    ]


def _warn_of_names(cases: Sequence[RawCase]) -> list[str]:
    """Return a warning for names of cases that cannot exist on Windows."""
    names = [case.name for case in cases if not is_portable(case.name)]
    if not names:
        return []
    verb = "has a name" if len(names) == 1 else "have names"
    return [f"{counted(len(names), 'case')} {verb} that Windows does not allow: {listed(names)}"]


def _label_ending(spec: DatasetSpec) -> str:
    """Return the ending of the label maps."""
    return LABEL_ENDING_OF_LOSSY if spec.file_ending.lower() in LOSSY_ENDINGS else spec.file_ending


def find_cases_of_files(
    files: Sequence[Path],
    *,
    num_channels: int,
    allow_grey: bool = False,
    faulty: list[FaultyCase] | None = None,
) -> tuple[RawCase, ...]:
    """Find the cases to predict that contain the named files.

    Args:
        files: Files of any known endings. If each channel has a file, one file of a case is enough. The others are
            found in its folder.
        num_channels: Number of channels of each case.
        allow_grey: Take grey pictures too, for a network of colour pictures.
        faulty: List to which cases with missing or surplus channels, or with equal names, are added. `None`: they are
            an error.

    Returns:
        The cases, without label maps.

    Raises:
        InputError: A file or one of its channels is missing, or files have the same name. The message lists all
            faults.
    """
    together: dict[tuple[Path, str], dict[Path, None]] = defaultdict(dict)
    for file in files:
        if not file.exists():
            raise InputError(f"{file}: no such file or folder.")
        ending = file.name[-len(known_ending(file)) :]
        together[file.parent, ending] |= dict.fromkeys(_with_other_channels(file, ending, num_channels))
    return tuple(
        case
        for (folder, ending), group in together.items()
        for case in _group(
            next(iter(group)) if len(group) == 1 else folder,
            list(group),
            ending,
            num_channels,
            faulty,
            allow_grey=allow_grey,
        )
    )


def _with_other_channels(file: Path, file_ending: str, num_channels: int) -> list[Path]:
    """Return the files of all channels of a file's case."""
    case, channel = split_channel(file, file_ending)
    if (
        channel is None
        or num_channels == 1
        or holds_all_channels([file], num_channels, file_ending=file_ending)
    ):
        return [file]
    return sorted(file.parent.glob(f"{glob.escape(case)}_[0-9][0-9][0-9][0-9]{file_ending}"))


def _group(
    where: Path,
    files: Sequence[Path],
    file_ending: str,
    num_channels: int,
    faulty: list[FaultyCase] | None,
    *,
    allow_grey: bool,
) -> tuple[RawCase, ...]:
    """Group files into cases.

    Raises:
        FaultsError: Files are faulty. The message lists all faults.
    """
    grouped = group_files(files, file_ending=file_ending, num_channels=num_channels, allow_grey=allow_grey)
    refuse_faults(where, grouped.all_faults if faulty is None else grouped.faults)
    if faulty is not None:
        faulty += grouped.faulty
    return tuple(RawCase(name, images, None) for name, images in grouped.cases.items())


def refuse_dataset(folder: Path, file_ending: str) -> None:
    """Refuse the folder of a data set in place of images.

    Args:
        folder: Folder that should hold images.
        file_ending: Ending of the images.

    Raises:
        InputError: The folder holds the folders of a data set, and no image of the ending.
    """
    inside = [folder / name for name in (TEST_IMAGES_FOLDER, IMAGES_FOLDER) if (folder / name).is_dir()]
    if inside and not any(path.name.endswith(file_ending) for path in folder.iterdir()):
        raise InputError(
            f"{folder}: expected a folder of images, got the folder of a data set. Use "
            f"{' or '.join(map(str, inside))}."
        )


def read_case(case: RawCase, *, num_channels: int | None = None) -> tuple[Image, Image]:
    """Read the image and the label map of a training case.

    Args:
        case: A case with a label map.
        num_channels: Number of channels of the data set, see `read_image`.

    Raises:
        InputError: A file cannot be used, or image and label map are on different grids. The message names the case.
    """
    if case.label_map is None:
        raise InputError(f"case {case.name}: no label map. Use a case of a training set.")
    try:
        image = read_image(case.images, num_channels=num_channels)
        label_map = read_label_map(case.label_map)
    except InputError as error:
        raise InputError(f"case {case.name}: {error}") from error
    differences = compare_geometry(image, label_map)
    if differences:
        raise InputError(
            f"case {case.name}: image and label map {case.label_map.name} differ in {', '.join(differences)}. Save the "
            "label map on the grid of the image."
        )
    return image, label_map


def _check_listed(path: Path, cases: tuple[ListedCase, ...]) -> tuple[list[RawCase], list[str]]:
    """Return the cases that `dataset.json` lists, and faults for missing files."""
    faults = [
        f"case {case.name}: {file} is listed in {DESCRIPTION_FILE} but missing"
        for case in cases
        for file in (*case.images, case.label_map)
        if not file.is_file()
    ]
    names = Counter(case.name for case in cases)
    faults += [f"case {name} is listed twice" for name, times in sorted(names.items()) if times > 1]
    invalid = {name: fault for name in names if (fault := find_name_fault(name)) is not None}
    faults += [f"{DESCRIPTION_FILE}: {fault}" for fault in invalid.values()]
    usable = [case for case in cases if case.name not in invalid]
    return [RawCase(case.name, case.images, case.label_map) for case in usable], faults


def _pair_files(
    image_folder: Path, label_folder: Path, *, spec: DatasetSpec
) -> tuple[list[RawCase], list[str]]:
    """Pair images and label maps by file name, and return faults."""
    label_ending = _label_ending(spec)
    images, image_faults = _list_or_fault(image_folder, spec.file_ending)
    label_files, label_faults = _list_or_fault(label_folder, label_ending)
    if image_faults or label_faults:
        return [], image_faults + label_faults
    label_maps = {file.name[: -len(label_ending)]: file for file in label_files}
    grouped = group_files(
        images, file_ending=spec.file_ending, num_channels=spec.num_channels, known_cases=label_maps.keys()
    )
    faults = grouped.all_faults
    seen = {split_channel(file, spec.file_ending)[0] for file in images} | grouped.cases.keys()
    other_labels = _of_other_endings(label_folder, file_ending=label_ending)
    for name in grouped.cases.keys() - label_maps.keys():
        similar = f", as {other_labels[name]} does not end in {label_ending}" if name in other_labels else ""
        faults.append(
            f"case {name}: no label map {label_folder.name}/{name}{label_ending}{similar}. Add it, or move the image."
        )
    others = _of_other_endings(image_folder, file_ending=spec.file_ending)
    for name in label_maps.keys() - seen:
        similar = f", as {others[name]} does not end in {spec.file_ending}" if name in others else ""
        faults.append(
            f"case {name}: label map {label_maps[name].name} without an image in {image_folder.name}{similar}"
        )
    cases = [
        RawCase(name, files, label_maps[name]) for name, files in grouped.cases.items() if name in label_maps
    ]
    return cases, sorted(faults)


def _of_other_endings(folder: Path, *, file_ending: str) -> dict[str, str]:
    """Return one file name of each case whose images have another ending."""
    names = [path.name for path in sorted(folder.iterdir()) if not path.name.endswith(file_ending)]
    return {re.sub(r"_\d{4}$", "", name.partition(".")[0]): name for name in reversed(names)}


def _list_or_fault(folder: Path, file_ending: str) -> tuple[list[Path], list[str]]:
    """List the files of a folder, or return a fault."""
    try:
        return list_files(folder, file_ending=file_ending), []
    except InputError as error:
        return [], [str(error)]
