"""Conversion of an own folder into the raw layout."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from scanseg.converters.conversion import (
    Conversion,
    check_folders,
    write_dataset,
)
from scanseg.converters.drawing import check_test_fraction
from scanseg.converters.label_code import LabelCode
from scanseg.converters.label_table import LabelKey, describe_key
from scanseg.converters.own_cases import CaseContent, read_own_case
from scanseg.converters.own_survey import FolderOptions, survey_folder
from scanseg.converters.sources import Found, NamedDataset, SourceCase
from scanseg.dataset import FolderCase, FolderCases
from scanseg.errors import refuse_faults
from scanseg.messages import counted, listed
from scanseg.runtime import RunContext
from scanseg.specs import BACKGROUND, DatasetSpec

OWN_FOLDER = NamedDataset(
    name="folder",
    content="your own images and label maps: pairs by name, colour masks, one mask per structure",
    homepage="",
    split="none: folds are drawn (five, as nnU-Net)",
    layouts=(),
    spec=None,
)
"""The converter of own folders, for lists."""


@dataclass(frozen=True)
class FoundLabel:
    """One label of an own folder."""

    name: str
    value: int
    """Label value in the data set. 0: the background."""
    source: str
    """Value, colour or structure in the folder."""
    num_cases: int
    """Number of read cases that hold the label."""
    num_voxels: int
    """Voxels in all read cases."""


@dataclass(frozen=True)
class FolderInspection:
    """Content of an own folder, as a dry run shows it."""

    layout: str
    labelled: tuple[str, ...]
    """Names of the cases with label maps."""
    unlabelled: tuple[str, ...]
    """Names of the cases without label maps."""
    channels: tuple[str, ...]
    labels: tuple[FoundLabel, ...]
    num_read: int
    """Number of cases that were read for the labels."""
    shapes: tuple[tuple[int, ...], ...]
    """Different shapes of the images read, in array order."""
    spacings: tuple[tuple[float, ...], ...]
    """Different spacings of the images read in mm, in array order. Empty: pictures."""
    pairs: tuple[tuple[str, str], ...]
    """Image and label files of the first cases, by their names."""
    ignored: tuple[str, ...]
    """Files that are left out, each with the reason."""
    notes: tuple[str, ...]
    faults: tuple[str, ...]


def inspect_folder(images: Path, options: FolderOptions, *, context: RunContext) -> FolderInspection:
    """Find the cases of an own folder, and read a sample.

    The sample has up to 20 cases.

    Args:
        images: Folder of images, or of images and label maps.
        options: The user's choices.
        context: Worker processes and progress.

    Raises:
        InputError: A folder is missing or has no known layout.
        UsageError: The labels have another form.
    """
    survey = survey_folder(images, options, all_labels=False, context=context)
    contents = [content for content in survey.contents if content.shape is not None]
    is_picture = survey.form is not None and survey.form.is_picture
    return FolderInspection(
        layout=survey.found.layout,
        labelled=tuple(case.name for case in survey.found.labelled),
        unlabelled=tuple(case.name for case in survey.found.unlabelled),
        channels=survey.channels,
        labels=() if survey.code is None else _describe_labels(survey.code, survey.contents),
        num_read=len(survey.contents),
        shapes=tuple(sorted({content.shape for content in contents if content.shape})),
        spacings=()
        if is_picture
        else tuple(sorted({content.spacing for content in contents if content.spacing})),
        pairs=tuple(map(_describe_pair, survey.found.labelled[:5])),
        ignored=survey.found.ignored,
        notes=survey.notes,
        faults=survey.faults,
    )


def convert_folder(
    images: Path,
    output: Path,
    options: FolderOptions,
    *,
    name: str | None = None,
    test_fraction: float | None = None,
    context: RunContext,
) -> Conversion:
    """Convert an own folder into a new folder in nnU-Net's raw layout.

    Images without label map go to `imagesTs`, or to `imagesUnlabelled` if a test set is drawn.

    Args:
        images: Folder of images, or of images and label maps.
        output: Folder to write. It appears once the conversion is complete.
        options: The user's choices.
        name: Name of the data set. `None`: the name of the output folder.
        test_fraction: Fraction of the cases to draw as a test set. `None`: no test set.
        context: Worker processes and progress.

    Raises:
        InputError: The folder has no known layout, or files are missing, ambiguous or faulty. One message lists all
            faults, and no file is written.
        UsageError: The output already exists or is inside the source, or the labels have another form.
        OSError: The disk is full. No file is written.
    """
    check_test_fraction(test_fraction)
    for folder in (images, *(() if options.label_maps is None else (options.label_maps,))):
        check_folders(OWN_FOLDER, folder, output)
    survey = survey_folder(images, options, all_labels=True, context=context)
    refuse_faults(name_folders(images, options.label_maps), survey.faults)
    assert survey.code is not None
    assert survey.form is not None
    spec = DatasetSpec(
        name=name or output.resolve().name,
        channel_names=survey.channels,
        labels={BACKGROUND: 0, **survey.code.names},
        file_ending=survey.form.file_ending,
        label_colours=survey.code.colours,
    )
    read = partial(read_own_case, code=survey.code, form=survey.form, overlap=options.overlap)
    cases = tuple(
        SourceCase(case.name, "train" if case.is_labelled else "unlabelled", partial(read, case))
        for case in survey.found.cases
    )
    notes = (*survey.notes, *_note_ignored(survey.found))
    found = Found(cases, notes=notes, spec=spec)
    return write_dataset(
        OWN_FOLDER,
        found,
        images,
        output,
        layout=survey.found.layout,
        test_fraction=test_fraction,
        context=context,
    )


def name_folders(images: Path, label_maps: Path | None) -> str:
    """Name the folders of a source for messages.

    Args:
        images: Folder of images.
        label_maps: Folder of label maps. `None`: inside `images`.
    """
    return str(images) if label_maps is None else f"{images} and {label_maps}"


def _note_ignored(found: FolderCases) -> tuple[str, ...]:
    if not found.ignored:
        return ()
    return (
        f"{counted(len(found.ignored), 'file or folder', 'files or folders')} left out: {listed(found.ignored)}",
    )


def _describe_labels(code: LabelCode, contents: Sequence[CaseContent]) -> tuple[FoundLabel, ...]:
    """Return the labels with their voxels in the cases that were read."""
    sources: dict[int, list[LabelKey | str]] = defaultdict(list)
    if code.form == "structures":
        for name, value in code.names.items():
            sources[value].append(name)
    for key, value in code.keys.items():
        sources[value].append(key)
    names = {0: BACKGROUND, **{value: name for name, value in code.names.items()}}
    rows = []
    for value, keys in sorted(sources.items()):
        counts = [sum(_count_of(content, key) for key in keys) for content in contents]
        source = ", ".join(key if isinstance(key, str) else describe_key(key) for key in keys)
        rows.append(FoundLabel(names[value], value, source, sum(map(bool, counts)), sum(counts)))
    return tuple(rows)


def _count_of(content: CaseContent, key: LabelKey | str) -> int:
    """Return the voxels of a value, colour or structure.

    Grey colours may be counted as values.
    """
    grey = key[0] if isinstance(key, tuple) and len(set(key)) == 1 else None
    return content.keys.get(key, 0) + (content.keys.get(grey, 0) if grey is not None else 0)


def _describe_pair(case: FolderCase) -> tuple[str, str]:
    """Return the names of the image and label files of a case."""
    masks = [path.name for _, path in case.masks]
    label_map = case.label_map.name if case.label_map is not None else listed(masks)
    return ", ".join(path.name for path in case.images), label_map
