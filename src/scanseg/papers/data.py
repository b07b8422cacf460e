"""Data of a paper's experiment: converted, divided as the protocol wants, and preprocessed into one store."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from scanseg.converters import convert_dataset, find_dataset
from scanseg.dataset import RawCase, RawDataset, find_cases, find_splits, open_dataset
from scanseg.errors import InputError
from scanseg.files import written_whole
from scanseg.imaging import read_instance_map
from scanseg.preprocessing import Store, build_store, write_array
from scanseg.runtime import RunContext, choose_workers
from scanseg.specs import Fold, Paper, Plan, Protocol, Splits

_RECORD = "conversion.json"
_TEST_IMAGES, _TEST_LABELS = "imagesTs", "labelsTs"
_INSTANCES = ("instancesTr", "instancesTs")
_QUICK_TRAIN, _QUICK_VALIDATION, _QUICK_SCORED = 8, 4, 6
"""Cases of a run at small size, at most."""


@dataclass(frozen=True)
class ProtocolData:
    """Cases of an experiment, and what each is for."""

    dataset: RawDataset
    """Training and test cases."""
    fold: Fold
    scored: tuple[str, ...]
    description: str
    """Which cases are scored, in words."""
    chosen_on_scored: bool
    """Whether the best weights are chosen on the cases that are scored."""


def convert_if_needed(data: str, source: Path, output: Path, *, context: RunContext) -> Path:
    """Return the folder of a data set in the raw layout: the source, if it was converted already, or a new one.

    Args:
        data: Name of the data set.
        source: Folder in which it lies, in any form that `scanseg data convert` knows.
        output: Folder to convert into.
        context: Worker processes and progress.

    Raises:
        InputError: The source is in no known form, or faulty.
    """
    if _record(source).get("dataset") == data:
        return source
    if _record(output).get("dataset") != data:
        convert_dataset(find_dataset(data), source, output, context=context)
    return output


def conversion_notes(dataset: Path) -> tuple[str, ...]:
    """Return what the conversion of a data set had to say.

    Args:
        dataset: Folder of the converted data set.
    """
    notes = _record(dataset).get("notes", [])
    return tuple(map(str, notes)) if isinstance(notes, list) else ()


def divide(dataset: Path, *, paper: Paper, protocol: Protocol) -> ProtocolData:
    """Say which cases train, validate and are scored.

    Published: MSVM-UNet trains on the published training part and chooses its best weights on the cases that are
    scored; xLSTM-UNet trains on all training cases and chooses nothing. Sound: the published validation part, or else
    the first of five drawn folds, chooses; the test cases are looked at once. Where there are no test cases, the
    validation cases are scored, and it is said.

    Args:
        dataset: Folder of the converted data set.
        paper: The paper.
        protocol: The protocol.
    """
    raw = open_dataset(dataset)
    test = _test_cases(raw)
    splits = find_splits(raw)
    first = splits.folds[0]
    counts = _record(dataset).get("cases", {})
    has_part = isinstance(counts, dict) and "validation" in counts
    part = "the published validation part" if has_part else f"fold 0 ({splits.source})"
    scored = tuple(case.name for case in test) or first.validation
    description = f"{len(scored)} test cases"
    if not test:
        description = f"{len(scored)} validation cases, {part}: the source has no test cases"
    if protocol == "held-out":
        fold = first
    elif paper == "msvm-unet":
        all_cases = tuple(case.name for case in raw.cases)
        fold = Fold(train=first.train if has_part or not test else all_cases, validation=scored)
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
    """Return some cases of each part, for a run at small size.

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
    """Preprocess the cases of an experiment; its fold is the store's only one.

    Args:
        data: The cases.
        plan: How they are preprocessed.
        folder: Folder of the store.
        context: Worker processes and progress.
    """
    return build_store(
        data.dataset,
        preprocessing=plan.preprocessing,
        splits=Splits(source="the protocol", folds=(data.fold,)),
        folder=folder,
        context=replace(
            context, num_workers=choose_workers(context.num_workers, image_bytes=data.dataset.image_bytes)
        ),
    )


def store_instances(data: ProtocolData, folder: Path) -> None:
    """Keep the instance maps of the scored cases where no image library is needed to read them.

    Args:
        data: The cases.
        folder: Folder to write `CASE.b2nd` to.

    Raises:
        InputError: A case has no instance map.
    """
    folder.mkdir(exist_ok=True)
    root, ending = data.dataset.path, data.dataset.spec.file_ending
    for case in data.scored:
        found = [path for name in _INSTANCES for path in sorted((root / name).glob(f"{case}.*"))]
        if not found:
            raise InputError(
                f"{root}: case {case} has no instance map in {' or '.join(_INSTANCES)}, by which objects are scored; "
                f"convert the data set from a form with a number for each object (files end in {ending})."
            )
        with written_whole(folder / f"{case}.b2nd") as temporary:
            write_array(temporary, read_instance_map(found[0]).array[0])


def _test_cases(raw: RawDataset) -> tuple[RawCase, ...]:
    """Return the test cases that have label maps."""
    if not (raw.path / _TEST_IMAGES).is_dir() or not (raw.path / _TEST_LABELS).is_dir():
        return ()
    ending, labels = raw.spec.file_ending, raw.path / _TEST_LABELS
    cases = find_cases(
        raw.path / _TEST_IMAGES,
        file_ending=ending,
        num_channels=raw.spec.num_channels,
        known_cases={path.name[: -len(ending)] for path in labels.iterdir()},
    )
    return tuple(replace(case, label_map=labels / f"{case.name}{ending}") for case in cases)


def _record(folder: Path) -> dict[str, object]:
    """Return the record of a conversion; empty where a folder holds none."""
    path = folder / _RECORD
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return content if isinstance(content, dict) else {}
