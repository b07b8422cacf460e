"""Segmentation of every case of a folder, with a record."""

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from scanseg.dataset import DESCRIPTION_FILE, FaultyCase
from scanseg.errors import ScansegError, UsageError, refuse_faults
from scanseg.files import remove_unfinished, write_text
from scanseg.imaging import write_label_map, write_probabilities
from scanseg.inference.input_checks import header_warnings, image_warnings
from scanseg.inference.inputs import orientation_warning
from scanseg.inference.outputs import (
    RECORD_FILE,
    CaseOutputs,
    OutputOptions,
    check_earlier_record,
    check_output,
    find_outputs,
    read_earlier_cases,
    warn_of_other_endings,
    write_map,
)
from scanseg.inference.prediction import Prediction, PreparedImage
from scanseg.inference.segmenter import Segmenter
from scanseg.progress import ProgressCallback, ProgressUpdate, ignore_progress
from scanseg.runtime import describe_device, installed_versions
from scanseg.specs import Plan, PredictedCase, PredictionRecord, SourceFile


def predict_folder(
    predictor: Segmenter,
    source: Path | Sequence[Path],
    *,
    output: Path,
    mirror: bool = False,
    probabilities: bool = False,
    uncertainty: bool = False,
    overwrite: bool = False,
    skip_existing: bool = False,
    progress: ProgressCallback = ignore_progress,
) -> PredictionRecord:
    """Segment every case of folders and files.

    The output folder holds these files. Each appears when it is complete, the label map of a case last. The record
    grows with each case. While one case is segmented, the next one is prepared and the previous one is written.

    - `CASE.ext`: label map, with the ending of the image (`.png` for JPEG).
    - `CASE.npz`: probabilities, if asked for.
    - `entropy/CASE.ext`, `disagreement/CASE.ext`: uncertainty maps, if asked for.
    - `dataset.json`: labels.
    - `prediction.json`: the record.

    Args:
        predictor: Predictor of the model.
        source: Folder of images named as in training, or the file of one case, or a list of these.
        output: Folder for the results. It is created if it is missing.
        mirror: Average over flips along the plan's `inference.mirror_axes`.
        probabilities: Write the probabilities too.
        uncertainty: Write the entropy, and the disagreement if flips, networks or plans are averaged.
        overwrite: Replace files of an earlier prediction.
        skip_existing: Skip cases whose files an earlier prediction of the same model wrote.
        progress: Called with each progress update: every case and every pass of the network.

    Returns:
        The record.

    Raises:
        InputError: No cases are found, or files would be replaced. This is raised before any work. Or some cases
            could not be segmented. This is raised after all other cases.
        UsageError: The arguments exclude each other, or the plan has no mirror axes.
    """
    if not isinstance(source, Path) and not source:
        raise UsageError("source: expected a folder or files, got none. Name at least one image.")
    if overwrite and skip_existing:
        raise UsageError("overwrite and skip_existing exclude each other. Leave one out.")
    begin, several = time.monotonic(), predictor.num_members(mirror=mirror) > 1
    options = OutputOptions(probabilities, entropy=uncertainty, disagreement=uncertainty and several)
    sources = [source] if isinstance(source, Path) else list(source)
    faulty: list[FaultyCase] = []
    outputs = find_outputs(sources, output, dataset=predictor.plan.dataset, options=options, faulty=faulty)
    warnings = warn_of_other_endings(sources, file_ending=predictor.plan.dataset.file_ending)
    if (warning := orientation_warning(predictor.plan)) is not None:
        warnings = (*warnings, warning)
    record = _new_record(predictor, mirror=mirror, warnings=warnings)
    sources_of = {each.case.name: _describe_images(each) for each in outputs}
    earlier = read_earlier_cases(output) if skip_existing else {}
    skipped = [each for each in outputs if skip_existing and _is_current(each, sources_of, earlier)]
    remaining = [each for each in outputs if each not in skipped]
    description = predictor.plan.dataset.to_json()
    continued = skip_existing and (bool(skipped) or (output / RECORD_FILE).exists())
    if continued:
        check_earlier_record(output, record)
    check_output(output, remaining, description=description, overwrite=overwrite, continued=continued)
    output.mkdir(parents=True, exist_ok=True)
    for folder in dict.fromkeys(path.parent for each in outputs for path in each.files):
        remove_unfinished(folder)
    write_text(output / DESCRIPTION_FILE, description)
    done = {each.case.name: _entry(each, skipped=True) for each in skipped}
    for name, entry in done.items():
        images = earlier[name].sources if earlier and name in earlier else sources_of[name]
        done[name] = entry.model_copy(update={"sources": images})
    failed = tuple(map(_failed_entry, faulty))
    record = record.model_copy(update={"cases": (*done.values(), *failed)})
    write_text(output / RECORD_FILE, record.to_json())
    reported = _report_warnings(remaining, predictor.plan, record.warnings, progress=progress)
    for case in _predict_all(predictor, remaining, mirror=mirror, uncertainty=uncertainty, progress=progress):
        images = sources_of[case.case] if case.fault is None else None
        done[case.case] = case.model_copy(update={"sources": images})
        entries = tuple(done[each.case.name] for each in outputs if each.case.name in done)
        seconds = round(time.monotonic() - begin, 3)
        record = record.model_copy(update={"cases": (*entries, *failed), "seconds": seconds})
        write_text(output / RECORD_FILE, record.to_json())
        if case.warning not in (None, reported.get(case.case)):
            text = f"case {case.case}: {case.warning}"
            progress(ProgressUpdate("predicting", len(done), len(outputs), case.case, warnings=(text,)))
    if not remaining:
        record = record.model_copy(update={"cases": (*done.values(), *failed)})
        write_text(output / RECORD_FILE, record.to_json())
    refuse_faults(
        sources[0], [f"case {case.case}: {case.fault}" for case in record.cases if case.fault is not None]
    )
    return record


def _describe_images(outputs: CaseOutputs) -> tuple[SourceFile, ...] | None:
    """Return sizes and dates of the images, or `None` without them."""
    try:
        return tuple(map(SourceFile.of, outputs.case.images))
    except OSError:
        return None


def _is_current(
    outputs: CaseOutputs,
    sources_of: Mapping[str, tuple[SourceFile, ...] | None],
    earlier: Mapping[str, PredictedCase] | None,
) -> bool:
    """Return whether a case was predicted from the same images.

    A case that is missing from the record is current if its files are newer than its images.

    Args:
        outputs: Case with its output files.
        sources_of: Sizes and dates of the images by the name of their case.
        earlier: Entries of the earlier record by case. `None`: the record is missing, which is reported later.
    """
    if not outputs.all_exist or earlier is None:
        return outputs.all_exist
    entry = earlier.get(outputs.case.name)
    if entry is None:  # stopped between the label map and the record
        oldest = min(path.stat().st_mtime_ns for path in outputs.files)
        return all(path.stat().st_mtime_ns <= oldest for path in outputs.case.images)
    return entry.fault is None and entry.sources in (None, sources_of[outputs.case.name])


def _report_warnings(
    cases: Sequence[CaseOutputs], plan: Plan, warnings: Sequence[str], *, progress: ProgressCallback
) -> dict[str, str | None]:
    """Report warnings about folders and headers before the first case.

    Returns:
        Warnings about the header of each case.
    """
    found = {outputs.case.name: header_warnings(outputs.case.images, plan) for outputs in cases}
    named = [f"case {name}: {warning}" for name, warning in found.items() if warning is not None]
    if warnings or named:
        first = cases[0].case.name if cases else ""
        progress(ProgressUpdate("predicting", 0, len(cases), first, warnings=(*warnings, *named)))
    return found


def _failed_entry(case: FaultyCase) -> PredictedCase:
    """Return the entry of a case whose files cannot be used."""
    return PredictedCase(
        case=case.name,
        images=tuple(str(path) for path in case.files),
        label_map=None,
        probabilities=None,
        seconds=0.0,
        fault=" ".join(case.faults),
    )


def _new_record(predictor: Segmenter, *, mirror: bool, warnings: tuple[str, ...]) -> PredictionRecord:
    """Return the record of a prediction that starts now."""
    return PredictionRecord(
        model=predictor.model,
        model_digest=predictor.compute_digest(),
        recipe=predictor.recipe,
        device=describe_device(predictor.device),
        precision=predictor.precision,
        mirror=mirror,
        versions=installed_versions(),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=0.0,
        warnings=warnings,
        cases=(),
    )


def _entry(
    outputs: CaseOutputs,
    *,
    seconds: float = 0.0,
    warning: str | None = None,
    fault: str | None = None,
    skipped: bool = False,
) -> PredictedCase:
    """Return the entry of a case in the record."""

    def name(path: Path | None) -> str | None:
        if path is None or fault is not None:
            return None
        return path.relative_to(outputs.label_map.parent).as_posix()

    return PredictedCase(
        case=outputs.case.name,
        images=tuple(str(path) for path in outputs.case.images),
        label_map=name(outputs.label_map),
        probabilities=name(outputs.probabilities),
        entropy=name(outputs.entropy),
        disagreement=name(outputs.disagreement),
        seconds=round(seconds, 3),
        warning=warning,
        fault=fault,
        skipped=skipped,
    )


def _predict_all(
    predictor: Segmenter,
    cases: Sequence[CaseOutputs],
    *,
    mirror: bool,
    uncertainty: bool,
    progress: ProgressCallback,
) -> Iterator[PredictedCase]:
    """Segment case by case, and yield their entries.

    The entry of a failed case holds its error. A thread writes one case while the next one is segmented.
    """
    total, writing = len(cases), deque[Future[PredictedCase]]()
    with ThreadPoolExecutor(1) as writer:
        for number, (outputs, prepared) in enumerate(_prepare_ahead(predictor, cases)):
            name, begin = outputs.case.name, time.monotonic()
            progress(ProgressUpdate("predicting", number, total, name))
            report = _window_progress(name, number=number, total=total, progress=progress)
            outcome = _segment(
                predictor, outputs, prepared, mirror=mirror, uncertainty=uncertainty, progress=report
            )
            writing.append(writer.submit(_finish, outputs, outcome, predictor.plan, begin=begin))
            # Probabilities are too large to hold those of two cases.
            most = 0 if outputs.probabilities is not None else 1
            del outcome
            while len(writing) > most:
                yield writing.popleft().result()
            progress(ProgressUpdate("predicting", number + 1, total, name))
        while writing:
            yield writing.popleft().result()


def _segment(
    predictor: Segmenter,
    outputs: CaseOutputs,
    prepared: Future[PreparedImage],
    *,
    mirror: bool,
    uncertainty: bool,
    progress: ProgressCallback,
) -> Prediction | ScansegError:
    """Segment a case, or return the error if it fails."""
    try:
        return predictor.predict_prepared(
            prepared.result(),
            mirror=mirror,
            probabilities=outputs.probabilities is not None,
            uncertainty=uncertainty,
            progress=progress,
        )
    except ScansegError as error:
        return error


def _finish(
    outputs: CaseOutputs, outcome: Prediction | ScansegError, plan: Plan, *, begin: float
) -> PredictedCase:
    """Write the files of a case and return its entry."""
    warning = fault = None
    try:
        if isinstance(outcome, ScansegError):
            raise outcome
        warning = image_warnings(outcome.image, plan)
        _write(outputs, outcome)
    except ScansegError as error:
        fault = str(error)
    return _entry(outputs, seconds=time.monotonic() - begin, warning=warning, fault=fault)


def _write(outputs: CaseOutputs, prediction: Prediction) -> None:
    """Write the files of a case, the label map last."""
    if outputs.probabilities is not None and prediction.probabilities is not None:
        write_probabilities(outputs.probabilities, prediction.probabilities, like=prediction.image)
    for path, values in (
        (outputs.entropy, prediction.entropy),
        (outputs.disagreement, prediction.disagreement),
    ):
        if path is not None and values is not None:
            write_map(path, values, like=prediction.image)
    write_label_map(outputs.label_map, prediction.label_map, like=prediction.image)


def _window_progress(name: str, *, number: int, total: int, progress: ProgressCallback) -> ProgressCallback:
    """Return a callback that reports windows as progress over all cases."""

    def report(update: ProgressUpdate) -> None:
        progress(
            ProgressUpdate("predicting", number, total, f"{name}, window {update.done} of {update.total}")
        )

    return report


def _prepare_ahead(
    predictor: Segmenter, cases: Sequence[CaseOutputs]
) -> Iterator[tuple[CaseOutputs, Future[PreparedImage]]]:
    """Yield every case with its image.

    A thread prepares the image while the previous case is segmented.
    """
    with ThreadPoolExecutor(1) as reader:
        waiting = [reader.submit(predictor.prepare, first.case.images) for first in cases[:1]]
        for index, outputs in enumerate(cases):
            current = waiting.pop()
            waiting += [
                reader.submit(predictor.prepare, following.case.images)
                for following in cases[index + 1 : index + 2]
            ]
            yield outputs, current
            del current
