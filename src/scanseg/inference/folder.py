"""Segmentation of every case of a folder, with a record."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from scanseg.dataset import DESCRIPTION_FILE, FaultyCase
from scanseg.errors import ScansegError, UsageError, refuse_faults
from scanseg.files import remove_unfinished, write_text
from scanseg.imaging import make_segments
from scanseg.inference.case_files import (
    CaseOptions,
    CaseToPredict,
    describe_images,
    segment_case,
    write_case,
)
from scanseg.inference.folder_options import FolderOptions
from scanseg.inference.header_warnings import HeaderWarnings
from scanseg.inference.outputs import (
    SEGMENTATION_FORMAT,
    CaseOutputs,
    OutputFormat,
    OutputOptions,
    check_output,
    find_outputs,
    remove_replaced,
)
from scanseg.inference.prediction import Prediction, PreparedImage
from scanseg.inference.record import (
    RunningRecord,
    continue_record,
    failed_entry,
    find_current,
    new_record,
    read_earlier_record,
)
from scanseg.inference.segmenter import ModelFacts, Segmenter
from scanseg.progress import ProgressCallback, ProgressUpdate, ignore_progress
from scanseg.specs import PredictedCase, PredictionRecord, SegmentCodes


@dataclass(frozen=True, eq=False)
class FolderWork:
    """Cases to predict, with the calls for their results."""

    cases: Sequence[CaseToPredict]
    """The cases, in order."""
    options: CaseOptions
    """Options of all cases."""
    headers: HeaderWarnings
    """Warnings about headers. They are reported before the first result."""
    add: Callable[[PredictedCase], None]
    """Called in any thread with the entry of each finished or failed case."""
    progress: ProgressCallback
    """Called with each progress update."""


class CaseRunner(Protocol):
    """Function that predicts all cases of a folder."""

    def __call__(self, work: FolderWork) -> None:
        """Predict the cases, and add an entry for each.

        Args:
            work: The cases.
        """


def predict_folder(
    model: ModelFacts,
    source: Path | Sequence[Path],
    *,
    output: Path,
    options: FolderOptions,
    progress: ProgressCallback = ignore_progress,
    run: CaseRunner,
) -> PredictionRecord:
    """Segment every case of folders and files.

    The output folder holds these files. Each appears when it is complete, the label map of a case last. The record
    grows with each case.

    - `CASE.ext`: label map, with the ending of the image (`.png` for JPEG, `.nii.gz` for DICOM series).
    - `CASE.npz`: probabilities, if asked for.
    - `colours/CASE.png`: the label map of a picture in colours, for viewing.
    - `pictures/CASE.png`: the image with its label map, if asked for.
    - `entropy/CASE.ext`, `disagreement/CASE.ext`: uncertainty maps, if asked for.
    - `dataset.json`: labels.
    - `prediction.json`: the record.

    Args:
        model: Plan, digest and device of the model, for checks and the record.
        source: Folder of images in any supported formats, the file of one case, a DICOM series, or a list of these.
        output: Folder for the results. It is created if it is missing.
        options: Choices for all cases.
        progress: Called with each progress update: every case and every pass of the network.
        run: Predicts the cases.

    Returns:
        The record.

    Raises:
        InputError: No cases are found, files would be replaced, or files of another prediction exist. This is raised
            before any work. Or some cases could not be segmented. This is raised after all other cases.
        UsageError: The arguments exclude each other, or the plan has no mirror axes.
    """
    if not isinstance(source, Path) and not source:
        raise UsageError("source: expected a folder or files, got none. Name at least one image.")
    if options.overwrite and options.skip_existing:
        raise UsageError("overwrite and skip_existing exclude each other. Leave one out.")
    _check_codes(model, options.format, options.segment_codes)
    several = model.num_members(mirror=options.mirror) > 1
    wanted = OutputOptions(
        options.probabilities,
        entropy=options.uncertainty,
        disagreement=options.uncertainty and several,
        format=options.format,
        series=options.series,
        pictures=options.pictures,
    )
    sources = [source] if isinstance(source, Path) else list(source)
    faulty, skipped = list[FaultyCase](), list[str]()
    outputs = find_outputs(
        sources, output, dataset=model.plan.dataset, options=wanted, faulty=faulty, warnings=skipped
    )
    warnings = (*skipped, *model.warnings)
    record = new_record(model, mirror=model.mirrors(mirror=options.mirror), warnings=warnings)
    sources_of = {each.case.name: describe_images(each.case) for each in outputs}
    earlier = read_earlier_record(output, outputs, record) if options.skip_existing else None
    current = {} if earlier is None else find_current(outputs, sources_of, earlier)
    remaining = [each for each in outputs if each.case.name not in current]
    description, continued = model.plan.dataset.to_json(), earlier is not None
    check_output(output, remaining, description=description, overwrite=options.overwrite, continued=continued)
    if earlier is not None:
        record = continue_record(
            record, earlier, output=output, outputs=outputs, current=current, sources=sources
        )
    failed = tuple(map(failed_entry, faulty))
    record = record.model_copy(update={"cases": (*record.cases, *failed)})
    listed = (
        set[str]() if earlier is None else {case.case for case in earlier.cases if case.label_map is not None}
    )
    replaced = [each for each in remaining if options.overwrite or each.case.name in listed]
    _prepare_folder(output, outputs, replaced, description=description)
    names = [*(each.case.name for each in outputs), *(case.case for case in failed)]
    running = RunningRecord(output, record, names=names)
    headers = HeaderWarnings(remaining, model.plan, warnings=warnings, progress=progress)
    if not remaining:
        headers.read_all()
    cases = [CaseToPredict(each, sources_of[each.case.name]) for each in remaining]
    of_case = CaseOptions(
        options.mirror, options.uncertainty, options.segment_codes, record.model_digest or "unknown"
    )
    try:
        run(FolderWork(cases, of_case, headers, running.add, progress))
    finally:
        running.write()
        _remove_unfinished(outputs)  # of lost workers
    done = running.value
    faults = [f"case {case.case}: {case.fault}" for case in done.cases if case.fault is not None]
    refuse_faults(sources[0], faults)
    return done


def _check_codes(model: ModelFacts, output_format: OutputFormat | None, codes: SegmentCodes | None) -> None:
    """Check the codes of segments before any work.

    Raises:
        InputError: A code belongs to no label.
        UsageError: No DICOM Segmentations are written.
    """
    if codes is None:
        return
    if output_format != SEGMENTATION_FORMAT:
        raise UsageError(
            f"segment codes: expected the format {SEGMENTATION_FORMAT}, got another. Add --format."
        )
    make_segments(model.plan.dataset.foreground, codes)


def _prepare_folder(
    output: Path, outputs: Sequence[CaseOutputs], replaced: Sequence[CaseOutputs], *, description: str
) -> None:
    """Make the output folder, without files to replace."""
    output.mkdir(parents=True, exist_ok=True)
    _remove_unfinished(outputs)
    remove_replaced(replaced)
    write_text(output / DESCRIPTION_FILE, description)


def _remove_unfinished(outputs: Sequence[CaseOutputs]) -> None:
    """Remove unfinished files of ended processes."""
    for folder in dict.fromkeys(path.parent for each in outputs for path in each.files):
        remove_unfinished(folder)


def predict_in_turn(predictor: Segmenter, work: FolderWork) -> None:
    """Predict case by case in this process.

    A thread prepares the next case while one is segmented, and another one writes the previous case.

    Args:
        predictor: Predictor of the model.
        work: The cases.
    """
    work.headers.read_all()
    total, writing, progress = len(work.cases), deque[Future[None]](), work.progress
    with ThreadPoolExecutor(1) as writer:
        for number, (case, prepared) in enumerate(_prepare_ahead(predictor, work.cases)):
            name, begin = case.name, time.monotonic()
            progress(ProgressUpdate("predicting", number, total, name))
            report = _window_progress(name, number=number, total=total, progress=progress)
            outcome = _segment(predictor, case, prepared, work.options, progress=report)
            found = outcome.warnings if isinstance(outcome, Prediction) else ()
            new = [warning for warning in found if warning not in work.headers.of_case(name)]
            writing.append(writer.submit(_finish, predictor, work, case, outcome, begin=begin))
            # Probabilities are too large to hold those of two cases.
            most = 0 if case.outputs.probabilities is not None else 1
            del outcome
            while len(writing) > most:
                writing.popleft().result()
            warnings = (f"case {name}: {' '.join(new)}",) if new else ()
            progress(ProgressUpdate("predicting", number + 1, total, name, warnings=warnings))
        while writing:
            writing.popleft().result()


def _segment(
    predictor: Segmenter,
    case: CaseToPredict,
    prepared: Future[PreparedImage],
    options: CaseOptions,
    *,
    progress: ProgressCallback,
) -> Prediction | ScansegError:
    """Segment a case, or return the error if it fails."""
    try:
        image = prepared.result()
    except ScansegError as error:
        return error
    return segment_case(predictor, case, image, options, progress=progress)


def _finish(
    predictor: Segmenter,
    work: FolderWork,
    case: CaseToPredict,
    outcome: Prediction | ScansegError,
    *,
    begin: float,
) -> None:
    """Write the files of a case and its entry in the record."""
    work.add(write_case(predictor, case, outcome, work.options, begin=begin))


def _window_progress(name: str, *, number: int, total: int, progress: ProgressCallback) -> ProgressCallback:
    """Return a callback that reports windows as progress over all cases."""

    def report(update: ProgressUpdate) -> None:
        progress(
            ProgressUpdate("predicting", number, total, f"{name}, window {update.done} of {update.total}")
        )

    return report


def _prepare_ahead(
    predictor: Segmenter, cases: Sequence[CaseToPredict]
) -> Iterator[tuple[CaseToPredict, Future[PreparedImage]]]:
    """Yield every case with its image.

    A thread prepares the image while the previous case is segmented.
    """
    with ThreadPoolExecutor(1) as reader:
        waiting = [reader.submit(predictor.prepare, first.outputs.case.images) for first in cases[:1]]
        for index, case in enumerate(cases):
            current = waiting.pop()
            waiting += [
                reader.submit(predictor.prepare, following.outputs.case.images)
                for following in cases[index + 1 : index + 2]
            ]
            yield case, current
            del current
