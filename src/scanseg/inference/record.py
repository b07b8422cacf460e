"""The record of a prediction: new, continued and growing."""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock

from scanseg.dataset import FaultyCase
from scanseg.errors import UsageError
from scanseg.files import write_text
from scanseg.inference.outputs import RECORD_FILE, CaseOutputs
from scanseg.inference.segmenter import ModelFacts
from scanseg.messages import listed
from scanseg.runtime import installed_versions
from scanseg.specs import PredictedCase, PredictionRecord, SourceFile

SECONDS_BETWEEN_WRITES = 1.0
"""Least time between two writes of the record while cases are segmented."""
Sources = tuple[SourceFile, ...] | None
"""Sizes and dates of the images of a case. `None`: unknown."""


class RunningRecord:
    """The record of a prediction, which grows with each case.

    Entries may be added in any thread.
    """

    def __init__(self, output: Path, record: PredictionRecord, *, names: Sequence[str]) -> None:
        """Write the record as it is before the first case.

        Args:
            output: Folder of the results.
            record: Record with the entries so far. Its seconds are those of earlier calls.
            names: Names of the cases of this prediction, in their order. Other entries come first.
        """
        self._path, self._record = output / RECORD_FILE, record
        entries = {case.case: case for case in record.cases}
        names_of_others = [name for name in entries if name not in set(names)]
        self._entries: dict[str, PredictedCase | None] = dict.fromkeys((*names_of_others, *names)) | entries
        self._begin = self._last = time.monotonic()
        self._lock, self._written = Lock(), 0.0
        self.write()

    @property
    def value(self) -> PredictionRecord:
        """The record with all entries so far."""
        cases = tuple(case for case in self._entries.values() if case is not None)
        seconds = self._record.seconds + self._last - self._begin
        return self._record.model_copy(update={"cases": cases, "seconds": round(seconds, 3)})

    def add(self, entry: PredictedCase) -> None:
        """Add the entry of a case, and write the record if due.

        Args:
            entry: The entry.
        """
        with self._lock:
            self._entries[entry.case] = entry
            self._last = time.monotonic()
            if self._last - self._written >= SECONDS_BETWEEN_WRITES:
                self._write()

    def write(self) -> None:
        """Write the record."""
        with self._lock:
            self._write()

    def _write(self) -> None:
        write_text(self._path, self.value.to_json())
        self._written = time.monotonic()


def new_record(model: ModelFacts, *, mirror: bool, warnings: Sequence[str]) -> PredictionRecord:
    """Return the record of a prediction that starts now.

    Args:
        model: Properties of the model.
        mirror: Predictions are averaged over flips.
        warnings: Warnings about the input folders and the plan.
    """
    return PredictionRecord(
        model=model.model,
        model_digest=model.compute_digest(),
        recipe=model.recipe,
        device=model.describe_device(),
        precision=model.precision,
        mirror=mirror,
        versions=installed_versions(*model.libraries),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=0.0,
        warnings=tuple(warnings),
        cases=(),
    )


def read_earlier_record(
    output: Path, outputs: Sequence[CaseOutputs], record: PredictionRecord
) -> PredictionRecord | None:
    """Read the record of an earlier prediction to continue.

    Args:
        output: Folder of the results.
        outputs: Cases with their output files.
        record: Record of the prediction that continues.

    Returns:
        The earlier record. `None`: neither a record nor label maps exist.

    Raises:
        InputError: The record is damaged.
        UsageError: Model or options differ, or label maps exist without a record or before
            its start.
    """
    path = output / RECORD_FILE
    if not path.exists():
        if any(each.all_exist for each in outputs):
            raise UsageError(
                f"{output}: holds label maps but no {RECORD_FILE}, so their model is unknown. Choose another folder, "
                f"or replace them by --overwrite instead of --skip-existing."
            )
        return None
    earlier = PredictionRecord.read(path)
    differing = [
        f"{name} was {getattr(earlier, name)}, not {getattr(record, name)}"
        for name in ("model", "recipe", "mirror")
        if getattr(earlier, name) != getattr(record, name)
    ]
    if not differing and earlier.model_digest != record.model_digest:
        differing.append("the model's weights, plan or postprocessing differ, or were not recorded")
    if differing:
        raise UsageError(
            f"{output}: the earlier prediction differs: {'; '.join(differing)}. Choose another folder, or replace its "
            f"files by --overwrite instead of --skip-existing."
        )
    if unlisted := _find_unlisted(outputs, earlier):
        raise UsageError(
            f"{output}: expected label maps of one model, got older ones outside {RECORD_FILE}: {listed(unlisted)}. "
            f"Choose another folder, move these files, or replace them by --overwrite instead of --skip-existing."
        )
    return earlier


def _find_unlisted(outputs: Sequence[CaseOutputs], earlier: PredictionRecord) -> list[str]:
    """Return the names of label maps of unknown origin."""
    try:
        start = datetime.fromisoformat(earlier.started).timestamp()
    except (ValueError, OverflowError):
        return []
    known = {case.case for case in earlier.cases}
    return [
        each.label_map.name
        for each in outputs
        if each.case.name not in known and each.label_map.exists() and each.label_map.stat().st_mtime < start
    ]


def find_current(
    outputs: Sequence[CaseOutputs], sources_of: Mapping[str, Sources], earlier: PredictionRecord
) -> dict[str, PredictedCase]:
    """Return the entries of cases with unchanged images.

    A file that the record does not list is of another prediction, or its prediction was interrupted.

    Args:
        outputs: Cases with their output files.
        sources_of: Sizes and dates of the images by the name of their case.
        earlier: Record of the earlier prediction.
    """
    entries, current = {case.case: case for case in earlier.cases}, {}
    for each in outputs:
        entry = entries.get(each.case.name)
        if (
            entry is not None
            and entry.fault is None
            and entry.sources in (None, sources_of[each.case.name])
            and each.all_exist
            and set(each.names.values()) - {None} <= set(_file_names(entry).values())
        ):
            current[each.case.name] = entry
    return current


def continue_record(
    record: PredictionRecord,
    earlier: PredictionRecord,
    *,
    output: Path,
    outputs: Sequence[CaseOutputs],
    current: Mapping[str, PredictedCase],
    sources: Sequence[Path],
) -> PredictionRecord:
    """Return the record of a prediction that continues an earlier one.

    It keeps start, time and warnings of the earlier record, and its entries of current cases and of label maps from
    other folders. The entries keep their device and precision.

    Args:
        record: Record of the prediction that starts now.
        earlier: The earlier record.
        output: Folder of the results.
        outputs: Cases of this prediction.
        current: Entries of the cases that are not predicted again.
        sources: Input folders and files of this prediction, whose earlier warnings no longer count.
    """
    images = {each.case.name: tuple(map(str, each.case.images)) for each in outputs}
    kept = []
    for case in earlier.cases:
        is_other = case.case not in images and case.label_map is not None
        if case.case not in current and not (is_other and (output / str(case.label_map)).exists()):
            continue
        files = {
            field: name if name is not None and (output / name).exists() else None
            for field, name in _file_names(case).items()
        }
        ways = {
            field: None if value == getattr(record, field) else value
            for field in ("device", "precision")
            if (value := getattr(case, field) or getattr(earlier, field))
        }
        changes = {"images": images.get(case.case, case.images), "skipped": True}
        kept.append(case.model_copy(update={**files, **ways, **changes}))
    read_again = tuple(f"{source}: " for source in sources)
    warnings = [warning for warning in earlier.warnings if not warning.startswith(read_again)]
    return record.model_copy(
        update={
            "started": earlier.started,
            "seconds": earlier.seconds,
            "warnings": tuple(dict.fromkeys((*warnings, *record.warnings))),
            "cases": tuple(kept),
        }
    )


def failed_entry(case: FaultyCase) -> PredictedCase:
    """Return the entry of a case whose files cannot be used.

    Args:
        case: The case.
    """
    return PredictedCase(
        case=case.name,
        images=tuple(str(path) for path in case.files),
        label_map=None,
        probabilities=None,
        seconds=0.0,
        fault=" ".join(case.faults),
    )


def make_entry(
    outputs: CaseOutputs,
    *,
    sources: Sources,
    checksums: tuple[str, ...] | None,
    seconds: float,
    warning: str | None,
    fault: str | None,
) -> PredictedCase:
    """Return the entry of a case.

    Args:
        outputs: The case with its output files.
        sources: Sizes and dates of its images.
        checksums: SHA-256 checksums of its images.
        seconds: Time in seconds.
        warning: Unusual properties of the image.
        fault: Reason why the prediction failed. `None`: it succeeded.
    """
    return PredictedCase(
        case=outputs.case.name,
        images=tuple(str(path) for path in outputs.case.images),
        sources=sources if fault is None else None,
        checksums=checksums,
        series_uids=outputs.series_uids,
        **(outputs.names if fault is None else dict.fromkeys(outputs.names)),
        seconds=round(seconds, 3),
        warning=warning,
        fault=fault,
    )


def _file_names(case: PredictedCase) -> dict[str, str | None]:
    """Return the output files of an entry by their fields."""
    return {
        "label_map": case.label_map,
        "probabilities": case.probabilities,
        "entropy": case.entropy,
        "disagreement": case.disagreement,
    }
