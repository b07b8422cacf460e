"""Images to predict in a folder, in any mix of formats."""

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from scanseg.dataset.folder_names import is_image_file
from scanseg.dataset.naming import (
    FaultyCase,
    GroupedFiles,
    ending_of,
    find_unused_files,
    group_files,
    list_files,
)
from scanseg.dataset.raw import RawCase, refuse_dataset
from scanseg.dataset.series_cases import SeriesCases, find_series_cases, find_series_places
from scanseg.errors import refuse_faults
from scanseg.imaging import DECODERS, MEDICAL_DECODERS
from scanseg.messages import counted, listed


@dataclass(frozen=True)
class ImageFolder:
    """The images of a folder."""

    cases: tuple[RawCase, ...]
    """Cases without label maps, sorted by name."""
    faulty: tuple[FaultyCase, ...] = ()
    """Cases whose files cannot be used together."""
    warnings: tuple[str, ...] = ()
    """The files that are skipped, in one sentence. Empty: none."""


def find_images(
    folder: Path, *, file_ending: str, num_channels: int, allow_grey: bool = False
) -> ImageFolder:
    """Find the cases to predict in a folder of images.

    All formats of the kind of the training images are taken: all volumes (NIfTI, NRRD, MetaImage), or all pictures
    (PNG, JPEG, BMP, TIFF). A folder without any of them may hold the other kind. DICOM series are volumes, see
    `find_series_places`. The files of one case have the same
    ending: `CASE_0000.ext`, `CASE_0001.ext` ... for the channels, or `CASE.ext` if one file holds all channels.

    Args:
        folder: Folder of images.
        file_ending: Ending of the training images, with its dot.
        num_channels: Number of channels of each case.
        allow_grey: Take grey pictures too, for a network of colour pictures.

    Raises:
        InputError: The folder is missing, is the folder of a data set, or holds no images, or some of its files look
            like further channels.
    """
    refuse_dataset(folder, file_ending)
    series = _find_series(folder, file_ending, num_channels)
    files = _choose_files(folder, file_ending, with_series=bool(series.cases or series.faulty))
    grouped = [
        group_files(group, file_ending=ending, num_channels=num_channels, allow_grey=allow_grey)
        for ending, group in _by_ending(files, file_ending).items()
    ]
    refuse_faults(folder, [fault for group in grouped for fault in group.faults])
    grouped.append(GroupedFiles({case.name: case.images for case in series.cases}, series.faulty))
    twice = _cases_of_two_endings(grouped)
    names = {case.name for case in twice}
    cases = (
        RawCase(name, images, None)
        for group in grouped
        for name, images in group.cases.items()
        if name not in names
    )
    faulty = [case for group in grouped for case in group.faulty if case.name not in names]
    return ImageFolder(
        tuple(sorted(cases, key=lambda case: case.name)),
        (*faulty, *twice),
        (*series.warnings, *_describe_skipped(folder, [*files, *series.used], file_ending)),
    )


def _find_series(folder: Path, file_ending: str, num_channels: int) -> SeriesCases:
    """Find the DICOM series of a folder of volumes."""
    if not _is_volume(file_ending) and folder.is_dir():
        images = filter(is_image_file, folder.iterdir())
        if any(path.name.endswith(file_ending) or not _is_volume(path.name) for path in images):
            return SeriesCases()
    return find_series_cases(find_series_places(folder), num_channels=num_channels)


def _choose_files(folder: Path, file_ending: str, *, with_series: bool) -> list[Path]:
    """List the images of the training's kind, else of the other.

    DICOM series count as volumes.
    """
    found = sorted(filter(is_image_file, folder.iterdir())) if folder.is_dir() else []
    of_kind = [
        path
        for path in found
        if path.name.endswith(file_ending) or _is_volume(path.name) == _is_volume(file_ending)
    ]
    if with_series and _is_volume(file_ending):
        return of_kind
    return of_kind or found or ([] if with_series else list_files(folder, file_ending=file_ending))


def _is_volume(name: str) -> bool:
    """Return whether the format of a name holds a position in space."""
    return DECODERS.get(ending_of(name).lower()) in MEDICAL_DECODERS


def _by_ending(files: Sequence[Path], file_ending: str) -> dict[str, list[Path]]:
    """Group files by ending, as written."""
    grouped: dict[str, list[Path]] = defaultdict(list)
    for path in files:
        grouped[file_ending if path.name.endswith(file_ending) else ending_of(path.name)].append(path)
    return grouped


def _cases_of_two_endings(grouped: Sequence[GroupedFiles]) -> list[FaultyCase]:
    """Return the cases whose name occurs with several endings."""
    files: dict[str, list[Path]] = defaultdict(list)
    for group in grouped:
        for name, paths in chain(group.cases.items(), ((case.name, case.files) for case in group.faulty)):
            files[name] += paths
    counts = Counter(
        name for group in grouped for name in {*group.cases, *(case.name for case in group.faulty)}
    )
    return [
        FaultyCase(
            name,
            tuple(files[name]),
            (
                f"{' and '.join(path.name for path in files[name])} have the same name. Rename all but one, or give "
                "one of them by its name.",
            ),
        )
        for name, count in sorted(counts.items())
        if count > 1
    ]


def _describe_skipped(folder: Path, files: Collection[Path], file_ending: str) -> tuple[str, ...]:
    """Describe the files that are skipped."""
    skipped = find_unused_files(folder, files)
    if not skipped:
        return ()
    kinds = Counter(ending_of(path.name) for path in skipped)
    endings = listed([f"{count} in {ending}" for ending, count in kinds.items()])
    kind = "volumes" if _is_volume(file_ending) else "pictures"
    return (
        f"{folder}: {counted(len(skipped), 'file')} skipped ({endings}). The model was trained on {kind}. Give an "
        "image of another kind by its name.",
    )
