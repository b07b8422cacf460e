"""Sources in nnU-Net's layout, or in the Decathlon's from which it comes."""

from functools import partial
from pathlib import Path

from scanseg.converters.labels import compare_labels
from scanseg.converters.sources import Found, Sample, SourceCase, note_unused
from scanseg.dataset import (
    DESCRIPTION_FILE,
    IMAGES_FOLDER,
    NNUNET_SPLITS_FILE,
    SPLITS_FILE,
    TEST_IMAGES_FOLDER,
    TEST_LABELS_FOLDER,
    RawCase,
    RawDataset,
    find_splits,
    find_test_cases,
    list_unused,
    open_dataset,
)
from scanseg.documents import read_json
from scanseg.errors import FaultsError, InputError
from scanseg.imaging import DECODERS, MEDICAL_DECODERS, file_ending, read_image, read_label_map
from scanseg.specs import DatasetSpec, Fold

ABOUT = ("description", "reference", "licence", "license", "release")
"""Entries of `dataset.json` for human readers, which are copied."""


def find_raw(source: Path, *, spec: DatasetSpec | None = None) -> Found | None:
    """Find the training cases and labelled test cases of a raw layout.

    Args:
        source: Folder with `dataset.json`, `imagesTr` and `labelsTr`.
        spec: Expected labels. `None`: the labels in `dataset.json`.

    Returns:
        The cases. `None`: the folder has no such layout.
    """
    if not (source / DESCRIPTION_FILE).is_file() or not (source / IMAGES_FOLDER).is_dir():
        return None
    try:
        dataset = open_dataset(source)
    except InputError as error:
        return Found((), (str(error),), spec=spec)
    faults = [] if spec is None else compare_labels(dataset.spec, spec)
    read = partial(read_raw_case, num_channels=dataset.spec.num_channels)
    cases = [SourceCase(case.name, "train", partial(read, case)) for case in dataset.cases]
    folds = _folds(dataset, faults)
    test, notes = _test_cases(dataset, faults)
    notes = (*list_unused(dataset), *notes)
    cases += [SourceCase(case.name, "test", partial(read, case)) for case in test]
    written = _written_spec(dataset.spec) if spec is None else None
    return Found(tuple(cases), tuple(faults), notes, spec=written, folds=folds, about=_about(source))


def _folds(dataset: RawDataset, faults: list[str]) -> tuple[Fold, ...]:
    """Return the folds of a splits file in the source, if any."""
    if not any((dataset.path / name).is_file() for name in (NNUNET_SPLITS_FILE, SPLITS_FILE)):
        return ()
    try:
        return find_splits(dataset).folds
    except InputError as error:
        faults.append(str(error))
        return ()


def _about(source: Path) -> dict[str, str]:
    """Return the entries of `dataset.json` on licence and origin."""
    content = read_json(source / DESCRIPTION_FILE)
    return {key: content[key] for key in ABOUT if isinstance(content.get(key), str)}


def _written_spec(spec: DatasetSpec) -> DatasetSpec:
    """Return the description with a writable file ending.

    Volumes become NIfTI, pictures PNG.
    """
    is_medical = DECODERS[file_ending(Path(f"name{spec.file_ending}"))] in MEDICAL_DECODERS
    ending = ".nii.gz" if is_medical else ".png"
    return spec.model_copy(update={"file_ending": ending})


def read_raw_case(case: RawCase, *, num_channels: int) -> Sample:
    """Read the image and the label map of a case.

    Args:
        case: A case with a label map.
        num_channels: Number of channels of the data set, see `read_image`.

    Raises:
        InputError: The case has no label map, or a file cannot be read.
    """
    if case.label_map is None:
        raise InputError("no label map")
    image = read_image(case.images, num_channels=num_channels)
    return Sample(image, read_label_map(case.label_map))


def _test_cases(dataset: RawDataset, faults: list[str]) -> tuple[tuple[RawCase, ...], tuple[str, ...]]:
    """Find the labelled test cases.

    Faults are added to `faults`. Without a folder of test labels, a note reports that test images are left out.
    """
    images, label_maps = dataset.path / TEST_IMAGES_FOLDER, dataset.path / TEST_LABELS_FOLDER
    if images.is_dir() and not label_maps.is_dir():
        return (), (f"{images.name} is left out, as {label_maps.name} is missing",)
    try:
        cases = find_test_cases(dataset)
    except InputError as error:
        faults += error.faults if isinstance(error, FaultsError) else (str(error),)
        return (), ()
    known = {file.name for case in cases for file in case.files}
    return cases, note_unused(label_maps, lambda path: path.name in known) if cases else ()
