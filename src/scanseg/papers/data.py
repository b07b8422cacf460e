"""Prepare the data of an experiment: convert, divide and preprocess."""

from dataclasses import dataclass, replace
from pathlib import Path

from scanseg.converters import compute_source_digest, convert_dataset, find_dataset
from scanseg.dataset import RawDataset, find_splits, find_test_cases, open_dataset
from scanseg.documents import read_json
from scanseg.errors import InputError
from scanseg.files import written_whole
from scanseg.imaging import read_instance_map
from scanseg.preprocessing import Store, build_store, write_array
from scanseg.runtime import RunContext
from scanseg.specs import Fold, Paper, Plan, Protocol, Splits

_RECORD = "conversion.json"
_INSTANCES = ("instancesTr", "instancesTs")
_QUICK_TRAIN, _QUICK_VALIDATION, _QUICK_SCORED = 8, 4, 6
"""Largest numbers of cases of a quick run."""


@dataclass(frozen=True)
class ProtocolData:
    """Cases of an experiment by their use."""

    dataset: RawDataset
    """Training and test cases."""
    fold: Fold
    """Training and validation cases."""
    scored: tuple[str, ...]
    """Names of the scored cases."""
    description: str
    """Description of the scored cases."""
    chosen_on_scored: bool
    """The best weights are chosen on the scored cases."""


def convert_if_needed(data: str, source: Path, output: Path, *, context: RunContext) -> Path:
    """Convert a data set to the raw layout if necessary.

    Args:
        data: Name of the data set.
        source: Folder of the data set, in any form that `scanseg data convert` reads.
        output: Folder for the converted data set.
        context: Worker processes and progress.

    Returns:
        The converted folder: the source or the output.

    Raises:
        InputError: The form of the source is unknown, or the source is faulty or has changed since its conversion.
    """
    if _record(source).get("dataset") == data:
        return source
    record = _record(output)
    if record.get("dataset") != data:
        convert_dataset(find_dataset(data), source, output, name=data, context=context)
    elif record.get("source_digest", digest := compute_source_digest(source)) != digest:
        raise InputError(
            f"{output}: expected the data set converted from {source}, but files there have changed since the "
            f"conversion. Remove {output} to convert it again."
        )
    return output


def conversion_notes(dataset: Path) -> tuple[str, ...]:
    """Return the notes from the conversion of a data set.

    Args:
        dataset: Folder of the converted data set.
    """
    notes = _record(dataset).get("notes", [])
    return tuple(map(str, notes)) if isinstance(notes, list) else ()


def divide(dataset: Path, *, paper: Paper, protocol: Protocol) -> ProtocolData:
    """Choose the training, validation and scored cases.

    `published`: MSVM-UNet trains on the published training part and chooses its best weights on the scored cases.
    xLSTM-UNet trains on all training cases and chooses nothing. `held-out`: weights are chosen on the published
    validation part, or else on the first of five drawn folds, and the test cases are scored once. Without test cases
    the validation cases are scored, and the description reports it.

    Args:
        dataset: Folder of the converted data set.
        paper: The paper.
        protocol: The protocol.
    """
    raw = open_dataset(dataset)
    test = find_test_cases(raw)
    splits = find_splits(raw)
    first = splits.folds[0]
    counts = _record(dataset).get("cases", {})
    has_validation_part = isinstance(counts, dict) and "validation" in counts
    part = "the published validation part" if has_validation_part else f"fold 0 ({splits.source})"
    scored = tuple(case.name for case in test) or first.validation
    description = f"{len(scored)} test cases"
    if not test:
        description = f"{len(scored)} validation cases, {part}: the source has no test cases"
    if protocol == "held-out":
        fold = first
    elif paper == "msvm-unet":
        all_cases = tuple(case.name for case in raw.cases)
        fold = Fold(train=first.train if has_validation_part or not test else all_cases, validation=scored)
    else:
        fold = Fold(train=tuple(case.name for case in raw.cases) if test else first.train, validation=())
    return ProtocolData(
        dataset=replace(raw, cases=(*raw.cases, *test)),
        fold=fold,
        scored=scored,
        description=description,
        chosen_on_scored=set(scored) == set(fold.validation),
    )


def few_cases(data: ProtocolData) -> ProtocolData:
    """Return some cases of each part for a quick run.

    Args:
        data: All cases.
    """
    scored = data.scored[:_QUICK_SCORED]
    validation = data.fold.validation[:_QUICK_VALIDATION]
    if data.chosen_on_scored:
        validation = scored
    train = data.fold.train[:_QUICK_TRAIN]
    kept = {*train, *validation, *scored}
    cases = tuple(case for case in data.dataset.cases if case.name in kept)
    return replace(
        data,
        dataset=replace(data.dataset, cases=cases),
        fold=Fold(train=train, validation=validation),
        scored=scored,
        description=data.description
        if scored == data.scored
        else f"the first {len(scored)} of {data.description}",
    )


def store_protocol_data(data: ProtocolData, plan: Plan, folder: Path, *, context: RunContext) -> Store:
    """Preprocess the cases of an experiment into a store with one fold.

    Args:
        data: The cases.
        plan: Plan with the preprocessing.
        folder: Folder of the store.
        context: Worker processes and progress.
    """
    return build_store(
        data.dataset,
        preprocessing=plan.preprocessing,
        splits=Splits(source="the protocol", folds=(data.fold,)),
        folder=folder,
        context=context.for_images(data.dataset.image_bytes),
    )


def store_instances(data: ProtocolData, folder: Path) -> None:
    """Write the instance maps of the scored cases as compressed arrays.

    Reading them needs no image library.

    Args:
        data: The cases.
        folder: Folder for the files `CASE.b2nd`.

    Raises:
        InputError: A case has no instance map.
    """
    folder.mkdir(exist_ok=True)
    root, ending = data.dataset.path, data.dataset.spec.file_ending
    for case in data.scored:
        found = [path for name in _INSTANCES for path in sorted((root / name).glob(f"{case}.*"))]
        if not found:
            raise InputError(
                f"{root}: case {case} has no instance map in {' or '.join(_INSTANCES)}, which the scores of instances "
                f"need. Convert the data set from a form with a number per instance (files end in {ending})."
            )
        with written_whole(folder / f"{case}.b2nd") as temporary:
            write_array(temporary, read_instance_map(found[0]).array[0])


def _record(folder: Path) -> dict[str, object]:
    """Return the record of a conversion. Empty: no record."""
    path = folder / _RECORD
    content = read_json(path) if path.is_file() else {}
    return content if isinstance(content, dict) else {}
