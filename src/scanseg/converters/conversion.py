"""Conversion of a named data set into the raw layout.

A conversion writes the whole data set, or no file.
"""

import hashlib
import json
import os
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import get_args

from scanseg.converters.converted_case import convert_case
from scanseg.converters.drawing import check_test_fraction, draw_test_cases, without_test_cases
from scanseg.converters.sources import Found, Layout, NamedDataset, Part, SourceCase
from scanseg.dataset import DESCRIPTION_FILE, SPLITS_FILE, find_name_fault
from scanseg.errors import InputError, UsageError, refuse_faults
from scanseg.files import is_unused, new_folder, write_text
from scanseg.messages import counted
from scanseg.runtime import RunContext, map_cases
from scanseg.specs import DatasetSpec, Fold
from scanseg.version import __version__

RECORD_FILE = "conversion.json"


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
class SourceInspection:
    """Content of a public data set, as a dry run shows it."""

    dataset: str
    """Name of the converter."""
    layout: str
    """Layout of the source."""
    num_cases: dict[Part, int]
    """Number of cases of each part that has any."""
    channels: tuple[str, ...]
    """Names of the channels."""
    labels: dict[str, int | tuple[int, ...]]
    """Value, or values of a region, of each label."""
    notes: tuple[str, ...]
    """As in `Conversion`."""


@dataclass(frozen=True)
class _Converted:
    """Cases of a conversion, all of which could be used."""

    cases: tuple[SourceCase, ...]
    found: Found
    num_cases: dict[Part, int]
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
    spec = _describe(named, found, source)
    found = replace(found, spec=_renamed(spec, found, layout, output=output, name=name))
    if not layout.is_general and name is None:
        found = replace(found, about={"reference": named.homepage, **found.about})
    return write_dataset(
        named, found, source, output, layout=layout.files, test_fraction=test_fraction, context=context
    )


def inspect_dataset(
    named: NamedDataset, source: Path, *, test_fraction: float | None = None, context: RunContext
) -> SourceInspection:
    """Read and check a data set as for a conversion, without writing.

    Args:
        named: Data set to inspect.
        source: Folder of the data set, in one of its layouts.
        test_fraction: As for `convert_dataset`.
        context: Worker processes and progress.

    Raises:
        InputError: The source has no known layout, or cases are faulty. One message lists all faults.
        UsageError: The test set cannot be drawn.
    """
    check_test_fraction(test_fraction)
    _check_source(named, source)
    found, layout = _find(named, source)
    spec = _describe(named, found, source)
    converted = _convert_cases(
        named, replace(found, spec=spec), source, None, test_fraction=test_fraction, context=context
    )
    return SourceInspection(
        named.name,
        layout.files,
        converted.num_cases,
        spec.channel_names,
        dict(spec.labels),
        converted.notes,
    )


def _describe(named: NamedDataset, found: Found, source: Path) -> DatasetSpec:
    """Return the description of a converted data set."""
    spec = found.spec or named.spec
    if spec is None:
        raise InputError(f"{source}: {'; '.join(found.faults) or 'no description of the labels'}")
    return spec


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
    with new_folder(output) as folder:
        converted = _convert_cases(named, found, source, folder, test_fraction=test_fraction, context=context)
        result = Conversion(named.name, output, layout, converted.num_cases, converted.notes, name=spec.name)
        _write_documents(
            folder, named, spec, cases=converted.cases, found=converted.found, source=source, result=result
        )
    return result


def _convert_cases(
    named: NamedDataset,
    found: Found,
    source: Path,
    folder: Path | None,
    *,
    test_fraction: float | None,
    context: RunContext,
) -> _Converted:
    """Read, check and write all cases.

    Args:
        named: Data set to convert.
        found: Cases of the source, with the description of the data set.
        source: Folder of the source.
        folder: Folder to write. `None`: write nothing.
        test_fraction: As for `convert_dataset`.
        context: Worker processes and progress.

    Raises:
        InputError: Cases are faulty. One message lists all faults.
    """
    spec = found.spec
    assert spec is not None
    cases, drawn = draw_test_cases(named, found.cases, test_fraction)
    folds = without_test_cases(found.folds, cases)
    if folds != found.folds:
        found = replace(found, folds=folds)
        drawn = (*drawn, "test cases are removed from the folds of the source")
    counts = Counter(case.part for case in cases)
    unlabelled = "Unlabelled" if counts["test"] else "Ts"
    convert = partial(convert_case, folder=folder, spec=spec, unlabelled=unlabelled)
    task = "reading" if folder is None else "converting"
    outcomes = map_cases(convert, cases, context=context, task=task)
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
    num_cases = {part: counts[part] for part in get_args(Part) if counts[part]}
    return _Converted(cases, found, num_cases, tuple(notes))


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
    _check_source(named, source)
    if output.exists() and (not output.is_dir() or not is_unused(output)):
        raise UsageError(f"{output} already exists. Choose a new folder, or remove it.")
    if output.resolve().is_relative_to(source.resolve()):
        raise UsageError(f"{output} is inside the source {source}. Choose a folder beside it.")


def _check_source(named: NamedDataset, source: Path) -> None:
    """Check that the source of a conversion exists."""
    if not source.is_dir():
        raise InputError(f"{source}: no such folder. {_advise_download(named)}")


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


def _repeated(cases: tuple[SourceCase, ...]) -> list[str]:
    counts = Counter(case.name for case in cases)
    faults = [f"case {name}: found {number} times" for name, number in counts.items() if number > 1]
    return faults + [fault for name in counts if (fault := find_name_fault(name)) is not None]


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
        **({"label_colours": spec.label_colours} if spec.label_colours else {}),
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
        "scanseg": __version__,
    }
    _write_json(folder / RECORD_FILE, record)


def _write_json(path: Path, content: object) -> None:
    write_text(path, json.dumps(content, indent=1) + "\n")
