"""Conversion of a named data set into the raw layout.

A conversion writes the whole data set, or no file.
"""

import hashlib
import json
import os
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import get_args

import numpy as np

from scanseg.converters.sources import Found, Layout, NamedDataset, Part, Sample, SourceCase
from scanseg.converters.writing import write_sample
from scanseg.dataset import DESCRIPTION_FILE, SPLITS_FILE, find_name_fault
from scanseg.errors import InputError, UsageError, refuse_faults
from scanseg.files import find_disk_fault, is_unused, new_folder, write_text
from scanseg.imaging import compare_geometry
from scanseg.messages import counted, listed
from scanseg.runtime import RunContext, map_cases
from scanseg.specs import DatasetSpec, Fold

RECORD_FILE = "conversion.json"
TEST_SEED = 0
"""Seed for drawing test cases of a data set without a published split."""


@dataclass(frozen=True)
class Conversion:
    """Result of a conversion."""

    dataset: str
    """Name of the converter."""
    folder: Path
    layout: str
    """Layout of the source."""
    num_cases: dict[Part, int]
    """Number of cases of each part that has any."""
    notes: tuple[str, ...]
    """Left out or changed data, and warnings about files, one sentence each. Paths are relative to the source."""
    name: str
    """Name of the converted data set."""


@dataclass(frozen=True)
class _Outcome:
    """Faults and notes of one case."""

    faults: tuple[str, ...]
    notes: tuple[str, ...]


def convert_dataset(
    named: NamedDataset,
    source: Path,
    output: Path,
    *,
    name: str | None = None,
    test_fraction: float | None = None,
    context: RunContext,
) -> Conversion:
    """Convert a data set into a new folder in nnU-Net's raw layout.

    Test cases go to `imagesTs` and `labelsTs`. A published validation part becomes the fold in `splits.json`. If the
    data set has instances, their maps go to `instancesTr` and `instancesTs`. `conversion.json` records the conversion.

    Args:
        named: Data set to convert.
        source: Folder of the data set, in one of its layouts.
        output: Folder to write. It appears once the conversion is complete.
        name: Name of the converted data set. `None`: the name in the source, that of the public data set, or of the
            output folder if data of any origin may have this layout. With a name, the description has no address of
            the public data set.
        test_fraction: Fraction of the cases to draw as a test set if the source has none, from 0 to below 1. `None`:
            the fraction of the data set.
        context: Worker processes and progress.

    Raises:
        InputError: The source has no known layout, or cases are faulty. One message lists all faults, and no file is
            written.
        UsageError: The output already exists or is inside the source, or the test set cannot be drawn.
        OSError: The disk is full. No file is written.
    """
    check_test_fraction(test_fraction)
    check_folders(named, source, output)
    found, layout = _find(named, source)
    spec = found.spec or named.spec
    if spec is None:
        raise InputError(f"{source}: {'; '.join(found.faults) or 'no description of the labels'}")
    found = replace(found, spec=_renamed(spec, found, layout, output=output, name=name))
    if not layout.is_general and name is None:
        found = replace(found, about={"reference": named.homepage, **found.about})
    return write_dataset(
        named, found, source, output, layout=layout.files, test_fraction=test_fraction, context=context
    )


def _renamed(
    spec: DatasetSpec, found: Found, layout: Layout, *, output: Path, name: str | None
) -> DatasetSpec:
    """Return a description with the name of the converted data set."""
    if name is None and layout.is_general and found.spec is None:
        name = output.resolve().name
    return spec if name is None else spec.model_copy(update={"name": name})


def write_dataset(
    named: NamedDataset,
    found: Found,
    source: Path,
    output: Path,
    *,
    layout: str,
    test_fraction: float | None = None,
    context: RunContext,
) -> Conversion:
    """Write the cases found in a source into a new folder.

    Args:
        named: Data set to convert.
        found: Cases of the source, with the description of the data set.
        source: Folder of the source.
        output: Folder to write. It appears once the conversion is complete.
        layout: Layout of the source in words.
        test_fraction: As for `convert_dataset`.
        context: Worker processes and progress.

    Raises:
        InputError: Cases are faulty. One message lists all faults, and no file is written.
        UsageError: The test set cannot be drawn.
        OSError: The disk is full. No file is written.
    """
    spec = found.spec
    assert spec is not None
    cases, drawn = _with_test_cases(named, found.cases, test_fraction)
    folds = _without_test_cases(found.folds, cases)
    if folds != found.folds:
        found = replace(found, folds=folds)
        drawn = (*drawn, "test cases are removed from the folds of the source")
    counts = Counter(case.part for case in cases)
    unlabelled = "Unlabelled" if counts["test"] else "Ts"
    with new_folder(output) as folder:
        convert = partial(_convert_case, folder=folder, spec=spec, unlabelled=unlabelled)
        outcomes = map_cases(convert, cases, context=context, task="converting")
        faults = [
            *found.faults,
            *_repeated(cases),
            *(fault for outcome in outcomes for fault in outcome.faults),
        ]
        if not cases and not faults:
            faults.append("no cases")
        refuse_faults(source, faults)
        of_cases = (note for outcome in outcomes for note in outcome.notes)
        notes = [*found.notes, *drawn, *(note.replace(f"{source}{os.sep}", "") for note in of_cases)]
        if counts["unlabelled"]:
            notes.append(
                f"{counted(counts['unlabelled'], 'image')} without label map in images{unlabelled}, for prediction"
            )
        result = Conversion(
            named.name,
            output,
            layout,
            {part: counts[part] for part in get_args(Part) if counts[part]},
            tuple(notes),
            name=spec.name,
        )
        _write_documents(folder, named, spec, cases=cases, found=found, source=source, result=result)
    return result


def compute_source_digest(source: Path) -> str:
    """Return a checksum of names, sizes and dates of a folder.

    Args:
        source: The folder.

    Returns:
        16 hexadecimal digits.
    """
    files = sorted(path for path in source.rglob("*") if path.is_file())
    states = [(path.relative_to(source).as_posix(), path.stat()) for path in files]
    content = json.dumps([[name, state.st_size, state.st_mtime_ns] for name, state in states])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def check_folders(named: NamedDataset, source: Path, output: Path) -> None:
    """Check the source and the output of a conversion.

    Args:
        named: Data set to convert.
        source: Folder of the source.
        output: Folder to write.

    Raises:
        InputError: The source is missing.
        UsageError: The output already exists, or is inside the source.
    """
    if not source.is_dir():
        raise InputError(f"{source}: no such folder. {_advise_download(named)}")
    if output.exists() and (not output.is_dir() or not is_unused(output)):
        raise UsageError(f"{output} already exists. Choose a new folder, or remove it.")
    if output.resolve().is_relative_to(source.resolve()):
        raise UsageError(f"{output} is inside the source {source}. Choose a folder beside it.")


def check_test_fraction(fraction: float | None) -> None:
    """Check a test fraction before files are read.

    Args:
        fraction: Fraction of the cases, from 0 to below 1. `None`: that of the data set.

    Raises:
        UsageError: The number is outside this range.
    """
    if fraction is not None and not 0 <= fraction < 1:
        raise UsageError(
            f"test fraction: expected a number from 0 to below 1, got {fraction}. Give 0.2 for a fifth."
        )


def _advise_download(named: NamedDataset) -> str:
    """Return the advice for a missing source or another layout."""
    if not named.homepage:
        return "Name the folder of your images, or of your label maps."
    return f"Download {named.name} from {named.homepage}."


def _find(named: NamedDataset, source: Path) -> tuple[Found, Layout]:
    """Find the cases with the first layout that matches the source."""
    for layout in named.layouts:
        found = layout.find(source)
        if found is not None:
            return found, layout
    forms = "\n  ".join(layout.files for layout in named.layouts)
    raise InputError(
        f"{source}: no known layout of {named.name}. {_advise_download(named)} Keep one of these layouts:\n  {forms}"
    )


def _with_test_cases(
    named: NamedDataset, cases: tuple[SourceCase, ...], fraction: float | None
) -> tuple[tuple[SourceCase, ...], tuple[str, ...]]:
    """Draw test cases if the source has none.

    Returns:
        All cases, and a note if test cases were drawn.
    """
    has_test = any(case.part in ("validation", "test") for case in cases)
    if fraction is not None and has_test:
        raise UsageError(f"this source of {named.name} has a split of its own. Leave the test fraction out.")
    part = named.test_fraction if fraction is None else fraction
    labelled = [case for case in cases if case.part != "unlabelled"]
    number = 0 if has_test else round(part * len(labelled))
    if number == 0:
        return cases, ()
    names = sorted(case.name for case in labelled)
    chosen = {names[i] for i in np.random.default_rng(TEST_SEED).permutation(len(names))[:number]}
    drawn = tuple(replace(case, part="test") if case.name in chosen else case for case in cases)
    return drawn, (
        f"{number} of {counted(len(labelled), 'case')} drawn as test set (seed {TEST_SEED}), as none is published",
    )


def _without_test_cases(folds: tuple[Fold, ...], cases: tuple[SourceCase, ...]) -> tuple[Fold, ...]:
    """Return folds without test cases.

    A fold that has no training or no validation cases left is left out.
    """
    test = {case.name for case in cases if case.part == "test"}
    kept = []
    for fold in folds:
        train = tuple(name for name in fold.train if name not in test)
        validation = tuple(name for name in fold.validation if name not in test)
        if (train, validation) == (fold.train, fold.validation):
            kept.append(fold)
        elif train and validation:
            kept.append(Fold(train=train, validation=validation))
    return tuple(kept)


def _repeated(cases: tuple[SourceCase, ...]) -> list[str]:
    counts = Counter(case.name for case in cases)
    faults = [f"case {name}: found {number} times" for name, number in counts.items() if number > 1]
    return faults + [fault for name in counts if (fault := find_name_fault(name)) is not None]


def _convert_case(case: SourceCase, *, folder: Path, spec: DatasetSpec, unlabelled: str) -> _Outcome:
    """Read, check and write one case."""
    try:
        sample = case.read()
        faults = _sample_faults(sample, spec)
        if not faults:
            write_sample(folder, case, sample, file_ending=spec.file_ending, unlabelled=unlabelled)
    except InputError as error:
        if (full := find_disk_fault(error)) is not None:
            raise full from error
        return _Outcome((f"case {case.name}: {error}",), ())
    return _Outcome(
        tuple(f"case {case.name}: {fault}" for fault in faults),
        tuple(f"case {case.name}: {note}" for note in (*sample.notes, *_warnings(sample))),
    )


def _warnings(sample: Sample) -> tuple[str, ...]:
    """Return the different warnings about the files of a case."""
    images = (sample.image, sample.label_map, sample.instances)
    return tuple(dict.fromkeys(warning for each in images if each is not None for warning in each.warnings))


def _sample_faults(sample: Sample, spec: DatasetSpec) -> list[str]:
    """Return the differences of a case from its data set's description."""
    faults = []
    if sample.image.num_channels != spec.num_channels:
        faults.append(
            f"expected {counted(spec.num_channels, 'channel')}, got {counted(sample.image.num_channels, 'channel')}"
        )
    if sample.image.array.dtype.kind == "f" and not np.isfinite(sample.image.array).all():
        faults.append("the image holds NaN or infinities")
    maps = {"label map": sample.label_map, "instance map": sample.instances}
    for name, other in maps.items():
        differences = [] if other is None else compare_geometry(sample.image, other)
        if differences:
            faults.append(f"image and {name} differ in {', '.join(differences)}")
    values = () if sample.label_map is None else np.unique(sample.label_map.array)
    unknown = set(map(int, values)) - spec.known_values
    if unknown:
        known = ", ".join(map(str, sorted(spec.known_values)))
        faults.append(
            f"unknown label values {listed(list(map(str, sorted(unknown))))}. The labels are {known}."
        )
    return faults


def _write_documents(
    folder: Path,
    named: NamedDataset,
    spec: DatasetSpec,
    *,
    cases: tuple[SourceCase, ...],
    found: Found,
    source: Path,
    result: Conversion,
) -> None:
    """Write the description of the data set, its folds, and the record."""
    training = sorted(case.name for case in cases if case.part in ("train", "validation"))
    description = {
        "name": spec.name,
        "channel_names": dict(enumerate(spec.channel_names)),
        "labels": spec.labels,
        **({"regions_class_order": spec.regions_class_order} if spec.regions_class_order else {}),
        "numTraining": len(training),
        "file_ending": spec.file_ending,
        **found.about,
    }
    _write_json(folder / DESCRIPTION_FILE, description)
    folds = found.folds
    validation = sorted(case.name for case in cases if case.part == "validation")
    if validation:
        train = [name for name in training if name not in set(validation)]
        folds = (Fold(train=tuple(train), validation=tuple(validation)),)
    if folds:
        _write_json(folder / SPLITS_FILE, [{"train": fold.train, "val": fold.validation} for fold in folds])
    record = {
        "dataset": named.name,
        "name": spec.name,
        "source": str(source.resolve()),
        "source_digest": compute_source_digest(source),
        "layout": result.layout,
        "split": named.split,
        "cases": result.num_cases,
        "notes": result.notes,
        "scanseg": metadata.version("scanseg"),
    }
    _write_json(folder / RECORD_FILE, record)


def _write_json(path: Path, content: object) -> None:
    write_text(path, json.dumps(content, indent=1) + "\n")
