"""Survey of an own folder: cases, format of images, labels."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scanseg.converters.label_code import LabelCode, choose_code
from scanseg.converters.label_table import LabelKey, LabelTable, read_label_table
from scanseg.converters.own_cases import CaseContent, Inspected, OverlapRule, OwnFormat, inspect_case
from scanseg.dataset import DESCRIPTION_FILE, IMAGES_FOLDER, FolderCase, FolderCases, find_folder_cases
from scanseg.errors import InputError
from scanseg.imaging import MEDICAL_DECODERS, count_channels, decoder_of, files_of, read_image
from scanseg.messages import counted, listed
from scanseg.runtime import RunContext, map_cases
from scanseg.specs import BACKGROUND

_SAMPLE = 20
"""Number of cases that a dry run reads."""
_CT_MINIMUM = -500
"""Intensity below which an image without channel name is likely CT."""
_COLOURS = ("R", "G", "B")
_MOST_LABELS = 254
_LAYOUTS = (
    "images/NAME.*, masks/NAME.* (or labels/, with or without a suffix such as _mask)",
    "NAME.*, NAME_mask.* (or _seg, _label, _gt ...) in one folder",
    "CASE/ct.nii.gz, CASE/segmentations/STRUCTURE.nii.gz",
    "CASE/CASE_t1.nii.gz, CASE/CASE_seg.nii.gz (with --channels)",
)


@dataclass(frozen=True)
class FolderOptions:
    """The user's choices for the conversion of an own folder."""

    label_maps: Path | None = None
    """Folder of label maps. `None`: inside the folder of images."""
    labels: str | Path | Mapping[str, object] | None = None
    """Names of the labels with their values or colours, see `read_label_table`. `None`: all values found."""
    channels: tuple[str, ...] = ()
    """Names of the channels, with which names of image files may end. Empty: unknown."""
    overlap: OverlapRule = "refuse"
    """Treatment of voxels in several structure masks."""


@dataclass(frozen=True)
class FolderSurvey:
    """Cases of an own folder with their content."""

    found: FolderCases
    contents: tuple[CaseContent, ...]
    code: LabelCode | None
    form: OwnFormat | None
    channels: tuple[str, ...]
    notes: tuple[str, ...]
    faults: tuple[str, ...]


def survey_folder(
    images: Path, options: FolderOptions, *, all_labels: bool, context: RunContext
) -> FolderSurvey:
    """Find the cases, read labels and images, and choose the labels.

    Args:
        images: Folder of images.
        options: The user's choices.
        all_labels: Read the labels of all cases, unless a table names them. Otherwise, and for images, a sample.
        context: Worker processes and progress.

    Raises:
        InputError: A folder is missing or has no known layout.
        UsageError: The labels have another form.
    """
    table = None if options.labels is None else read_label_table(options.labels)
    found = find_folder_cases(images, options.label_maps, channels=options.channels)
    if found is None:
        forms = "\n  ".join(_LAYOUTS)
        raise InputError(
            f"{images}: no images with label maps by their names. Rename the files, or name the folder of the label "
            f"maps too. Known layouts:\n  {forms}"
        )
    faults = list(found.faults)
    if not found.labelled and not faults:
        faults.append("expected images with label maps, got none. Name the folder of the label maps too.")
    channels, form = _find_format(found, options.channels, faults)
    sample = set(_every_nth(found.labelled, _SAMPLE))
    as_colours = table is not None and any(not isinstance(key, int) for key in table.values())
    chosen = [
        Inspected(case, case in sample, as_colours)
        for case in found.labelled
        if case in sample or (all_labels and table is None)
    ]
    context = context.for_images(_count_bytes([one.case for one in chosen]))
    contents = map_cases(inspect_case, chosen, context=context, task="reading label maps")
    faults += [fault for content in contents for fault in content.faults]
    code = None
    if not any(content.faults for content in contents) and contents:
        try:
            code = _choose_labels(found, contents, table)
        except InputError as error:
            faults.append(str(error))
    notes = (
        *(code.notes if code else ()),
        *_note_missing_masks(found),
        *_note_ct(contents, channels, form),
        *_note_description(images, options),
    )
    return FolderSurvey(found, tuple(contents), code, form, channels, notes, tuple(faults))


def _count_bytes(cases: Sequence[FolderCase]) -> int:
    """Return the size of the images of cases."""
    return sum(file.stat().st_size for case in cases for image in case.images for file in files_of(image))


def _every_nth(cases: Sequence[FolderCase], most: int) -> Sequence[FolderCase]:
    """Return evenly spaced cases."""
    return [cases[number * len(cases) // most] for number in range(most)] if len(cases) > most else cases


def _find_format(
    found: FolderCases, channels: tuple[str, ...], faults: list[str]
) -> tuple[tuple[str, ...], OwnFormat | None]:
    """Return names of channels and the converted format, and collect faults."""
    files = [file for case in found.cases for file in case.images]
    kinds = Counter(decoder_of(file) in MEDICAL_DECODERS for file in files)
    if not files or len(kinds) > 1:
        if files:
            faults.append("expected pictures or medical images, got both. Convert both kinds separately.")
        return channels, None
    counts = Counter[int]()
    first: dict[int, str] = {}
    for case in found.cases:
        try:
            number = sum(map(count_channels, case.images))
            counts[number] += 1
            first.setdefault(number, case.name)
        except InputError as error:
            faults.append(f"case {case.name}: {error}")
    if not counts:
        return channels, None
    number = max(counts)
    if set(counts) not in ({number}, {1, 3}) or (kinds[True] and len(counts) > 1):
        examples = ", ".join(f"{counted(size, 'channel')} in {name}" for size, name in sorted(first.items()))
        faults.append(f"expected one number of channels, got {examples}. Name the channels by --channels.")
    if channels and len(channels) != number:
        faults.append(
            f"expected {counted(number, 'channel')} in --channels, got {', '.join(channels)}. Name them in order."
        )
    is_picture = not kinds[True] and number in (1, 3) and _is_flat(found.cases[0], faults)
    default = _COLOURS if is_picture and number == 3 else ("intensity",) if number == 1 else ()
    names = channels or default or tuple(f"channel_{place}" for place in range(number))
    return names, OwnFormat(is_picture, number)


def _is_flat(case: FolderCase, faults: list[str]) -> bool:
    """Return whether the images have two axes, from one of them."""
    try:
        return read_image(case.images).num_axes == 2
    except InputError as error:
        faults.append(f"case {case.name}: {error}")
        return True


def _choose_labels(
    found: FolderCases, contents: Sequence[CaseContent], table: LabelTable | None
) -> LabelCode:
    """Return the labels of the folder."""
    if found.structures:
        return _choose_structures(found.structures, table)
    counts: dict[Path, Counter[LabelKey]] = {}
    for content in contents:
        if content.case.label_map is not None:
            keys = {key: count for key, count in content.keys.items() if not isinstance(key, str)}
            counts[content.case.label_map] = Counter(keys)
    return choose_code(counts, table)


def _choose_structures(structures: Sequence[str], table: LabelTable | None) -> LabelCode:
    """Return the label values of structures.

    They are the structures of the table, or all in the order of their names.
    """
    if table is None:
        if len(structures) > _MOST_LABELS:
            raise InputError(
                f"expected at most {_MOST_LABELS} structures, got {len(structures)}. Choose some by --labels."
            )
        names = {name: number for number, name in enumerate(structures, start=1)}
        return LabelCode("structures", names, {})
    named = {name: value for name, value in table.items() if name.lower() != BACKGROUND}
    unknown = [name for name in named if name not in structures]
    if unknown:
        raise InputError(
            f"labels: expected names of masks ({listed(structures)}), got {listed(unknown)}. Correct the names."
        )
    ordered = sorted(named.items(), key=lambda item: str(item[1]).zfill(10))
    names = {name: number for number, (name, _) in enumerate(ordered, start=1)}
    left_out = [name for name in structures if name not in names]
    notes = (f"{counted(len(left_out), 'structure')} not in --labels left out: {listed(left_out)}",)
    return LabelCode("structures", names, {}, notes if left_out else ())


def _note_missing_masks(found: FolderCases) -> list[str]:
    """Return a note for each structure that lacks masks."""
    missing = defaultdict(list)
    for case in found.labelled if found.structures else ():
        for name in set(found.structures) - {structure for structure, _ in case.masks}:
            missing[name].append(case.name)
    return [
        f"no mask of {name} in {counted(len(cases), 'case')}, where it counts as absent: {listed(cases)}"
        for name, cases in sorted(missing.items())
    ]


def _note_ct(
    contents: Sequence[CaseContent], channels: Sequence[str], form: OwnFormat | None
) -> tuple[str, ...]:
    """Return a note if the images may be CT."""
    lowest = min((content.minimum for content in contents if content.minimum is not None), default=0.0)
    if form is None or form.is_picture or tuple(channels) != ("intensity",) or lowest > _CT_MINIMUM:
        return ()
    return (
        f"intensities from {lowest:g}, as in CT: --channels CT normalizes them by values of the whole data set",
    )


def _note_description(images: Path, options: FolderOptions) -> tuple[str, ...]:
    """Return a note if the folder belongs to a data set in nnU-Net's layout, whose description is not read."""
    places = [place for place in (images, images.parent) if (place / DESCRIPTION_FILE).is_file()]
    if options.labels is not None or not places or not (places[0] / IMAGES_FOLDER).is_dir():
        return ()
    return (
        f"{places[0] / DESCRIPTION_FILE} names labels and channels, and is not read. To keep its names, use "
        f"{places[0]} as it is, or convert it by: scanseg data convert msd {places[0]} -o DATASET",
    )
