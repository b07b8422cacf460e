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
    RawCase,
    RawDataset,
    find_cases,
    find_splits,
    list_unused,
    open_dataset,
)
from scanseg.documents import read_json
from scanseg.errors import InputError
from scanseg.imaging import DECODERS, MEDICAL_DECODERS, file_ending, read_image, read_label_map
from scanseg.specs import DatasetSpec, Fold

ABOUT = ("description", "reference", "licence", "license", "release")
"""Entries of `dataset.json` for human readers, which are copied."""
TEST_IMAGES, TEST_LABELS = "imagesTs", "labelsTs"


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
    cases = [SourceCase(case.name, "train", partial(read_raw_case, case)) for case in dataset.cases]
    folds = _folds(dataset, faults)
    test, notes = _test_cases(source, dataset.spec, faults)
    notes = (*list_unused(dataset), *notes)
    cases += [SourceCase(case.name, "test", partial(read_raw_case, case)) for case in test]
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


def read_raw_case(case: RawCase) -> Sample:
    """Read the image and the label map of a case.

    Args:
        case: A case with a label map.

    Raises:
        InputError: The case has no label map, or a file cannot be read.
    """
    if case.label_map is None:
        raise InputError("no label map")
    return Sample(read_image(case.images), read_label_map(case.label_map))


def _test_cases(source: Path, spec: DatasetSpec, faults: list[str]) -> tuple[list[RawCase], tuple[str, ...]]:
    """Find the labelled test cases.

    Faults are added to `faults`. Without a folder of test labels, a note reports that test images are left out.
    """
    if not (source / TEST_IMAGES).is_dir():
        return [], ()
    if not (source / TEST_LABELS).is_dir():
        return [], (f"{TEST_IMAGES} is left out, as {TEST_LABELS} is missing",)
    label_maps = {path.name[: -len(spec.file_ending)] for path in (source / TEST_LABELS).iterdir()}
    try:
        images = find_cases(
            source / TEST_IMAGES,
            file_ending=spec.file_ending,
            num_channels=spec.num_channels,
            known_cases=label_maps,
        )
    except InputError as error:
        faults.append(str(error))
        return [], ()
    cases = []
    for case in images:
        label_map = source / TEST_LABELS / f"{case.name}{spec.file_ending}"
        if label_map.is_file():
            cases.append(RawCase(case.name, case.images, label_map))
        else:
            faults.append(f"case {case.name}: no label map {TEST_LABELS}/{label_map.name}")
    known = {case.label_map.name for case in cases if case.label_map is not None}
    return cases, note_unused(source / TEST_LABELS, lambda path: path.name in known)
