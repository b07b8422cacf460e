"""Segmentation of every case of a folder, with a record."""

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from scanseg.dataset import DESCRIPTION_FILE, FaultyCase
from scanseg.errors import ScansegError, UsageError, refuse_faults
from scanseg.figures import Caption, displayed_labels, draw_planes, make_scene, write_figure
from scanseg.files import remove_unfinished, write_text
from scanseg.imaging import (
    SegmentationSource,
    make_segments,
    write_colours,
    write_label_map,
    write_probabilities,
    write_segmentation,
)
from scanseg.inference.input_checks import header_warnings
from scanseg.inference.outputs import (
    SEGMENTATION_ENDING,
    SEGMENTATION_FORMAT,
    CaseOutputs,
    OutputFormat,
    OutputOptions,
    check_output,
    find_outputs,
    remove_replaced,
    write_map,
)
from scanseg.inference.prediction import Prediction, PreparedImage
from scanseg.inference.record import (
    RunningRecord,
    Sources,
    continue_record,
    failed_entry,
    find_current,
    make_entry,
    new_record,
    read_earlier_record,
)
from scanseg.inference.segmenter import Segmenter
from scanseg.progress import ProgressCallback, ProgressUpdate, ignore_progress
from scanseg.specs import DatasetSpec, Plan, PredictionRecord, SegmentCodes, SourceFile


@dataclass(frozen=True, eq=False)
class _Work:
    """A prediction of several cases."""

    predictor: Segmenter
    mirror: bool | None
    """Average over flips. `None`: as the plans say."""
    uncertainty: bool
    """Compute uncertainty maps."""
    sources_of: Mapping[str, Sources]
    """Sizes and dates of the images by the name of their case."""
    running: RunningRecord
    codes: SegmentCodes | None
    """Codes of the segments of DICOM Segmentations."""


def predict_folder(
    predictor: Segmenter,
    source: Path | Sequence[Path],
    *,
    output: Path,
    mirror: bool | None = None,
    probabilities: bool = False,
    uncertainty: bool = False,
    overwrite: bool = False,
    skip_existing: bool = False,
    format: OutputFormat | None = None,
    series: Sequence[str] = (),
    segment_codes: SegmentCodes | None = None,
    pictures: bool = False,
    progress: ProgressCallback = ignore_progress,
) -> PredictionRecord:
    """Segment every case of folders and files.

    The output folder holds these files. Each appears when it is complete, the label map of a case last. The record
    grows with each case. While one case is segmented, the next one is prepared and the previous one is written.

    - `CASE.ext`: label map, with the ending of the image (`.png` for JPEG, `.nii.gz` for DICOM series).
    - `CASE.npz`: probabilities, if asked for.
    - `colours/CASE.png`: the label map of a picture in colours, for viewing.
    - `pictures/CASE.png`: the image with its label map, if asked for.
    - `entropy/CASE.ext`, `disagreement/CASE.ext`: uncertainty maps, if asked for.
    - `dataset.json`: labels.
    - `prediction.json`: the record.

    Args:
        predictor: Predictor of the model.
        source: Folder of images in any supported formats, the file of one case, a DICOM series, or a list of these.
        output: Folder for the results. It is created if it is missing.
        mirror: Average over flips along the plan's `inference.mirror_axes`. `None`: its `inference.mirror`.
        probabilities: Write the probabilities too.
        uncertainty: Write the entropy, and the disagreement if flips, networks or plans are averaged.
        overwrite: Replace files of an earlier prediction.
        skip_existing: Skip cases whose files an earlier prediction of the same model wrote.
        format: Format of the label maps. `None`: that of the image.
        series: UIDs of the DICOM series to segment, or their beginnings. Empty: all cases.
        segment_codes: Codes of the segments of DICOM Segmentations. `None`: all are coded as tissue.
        pictures: Write a picture of each image with its label map.
        progress: Called with each progress update: every case and every pass of the network.

    Returns:
        The record.

    Raises:
        InputError: No cases are found, files would be replaced, or files of another prediction exist. This is raised
            before any work. Or some cases could not be segmented. This is raised after all other cases.
        UsageError: The arguments exclude each other, or the plan has no mirror axes.
    """
    if not isinstance(source, Path) and not source:
        raise UsageError("source: expected a folder or files, got none. Name at least one image.")
    if overwrite and skip_existing:
        raise UsageError("overwrite and skip_existing exclude each other. Leave one out.")
    _check_codes(predictor, format, segment_codes)
    several = predictor.num_members(mirror=mirror) > 1
    options = OutputOptions(
        probabilities,
        entropy=uncertainty,
        disagreement=uncertainty and several,
        format=format,
        series=tuple(series),
        pictures=pictures,
    )
    sources = [source] if isinstance(source, Path) else list(source)
    faulty, skipped = list[FaultyCase](), list[str]()
    outputs = find_outputs(
        sources, output, dataset=predictor.plan.dataset, options=options, faulty=faulty, warnings=skipped
    )
    warnings = (*skipped, *predictor.warnings)
    record = new_record(predictor, mirror=predictor.mirrors(mirror=mirror), warnings=warnings)
    sources_of = {each.case.name: _describe_images(each) for each in outputs}
    earlier = read_earlier_record(output, outputs, record) if skip_existing else None
    current = {} if earlier is None else find_current(outputs, sources_of, earlier)
    remaining = [each for each in outputs if each.case.name not in current]
    description, continued = predictor.plan.dataset.to_json(), earlier is not None
    check_output(output, remaining, description=description, overwrite=overwrite, continued=continued)
    if earlier is not None:
        record = continue_record(
            record, earlier, output=output, outputs=outputs, current=current, sources=sources
        )
    failed = tuple(map(failed_entry, faulty))
    record = record.model_copy(update={"cases": (*record.cases, *failed)})
    listed = (
        set[str]() if earlier is None else {case.case for case in earlier.cases if case.label_map is not None}
    )
    replaced = [each for each in remaining if overwrite or each.case.name in listed]
    _prepare_folder(output, outputs, replaced, description=description)
    names = [*(each.case.name for each in outputs), *(case.case for case in failed)]
    running = RunningRecord(output, record, names=names)
    reported = _report_warnings(remaining, predictor.plan, warnings, progress=progress)
    work = _Work(predictor, mirror, uncertainty, sources_of, running, segment_codes)
    try:
        _predict_all(work, remaining, reported=reported, progress=progress)
    finally:
        running.write()
    done = running.value
    faults = [f"case {case.case}: {case.fault}" for case in done.cases if case.fault is not None]
    refuse_faults(sources[0], faults)
    return done


def _check_codes(
    predictor: Segmenter, output_format: OutputFormat | None, codes: SegmentCodes | None
) -> None:
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
    make_segments(predictor.plan.dataset.foreground, codes)


def _describe_images(outputs: CaseOutputs) -> tuple[SourceFile, ...] | None:
    """Return sizes and dates of image files, or `None`."""
    try:
        return tuple(map(SourceFile.of, outputs.case.files))
    except OSError:
        return None


def _prepare_folder(
    output: Path, outputs: Sequence[CaseOutputs], replaced: Sequence[CaseOutputs], *, description: str
) -> None:
    """Make the output folder, without files to replace."""
    output.mkdir(parents=True, exist_ok=True)
    for folder in dict.fromkeys(path.parent for each in outputs for path in each.files):
        remove_unfinished(folder)
    remove_replaced(replaced)
    write_text(output / DESCRIPTION_FILE, description)


def _report_warnings(
    cases: Sequence[CaseOutputs], plan: Plan, warnings: Sequence[str], *, progress: ProgressCallback
) -> dict[str, tuple[str, ...]]:
    """Report warnings about folders and headers before the first case.

    Returns:
        Reported warnings by case.
    """
    found = {outputs.case.name: header_warnings(outputs.case.images, plan) for outputs in cases}
    named = [f"case {name}: {' '.join(of_case)}" for name, of_case in found.items() if of_case]
    if warnings or named:
        first = cases[0].case.name if cases else ""
        progress(ProgressUpdate("predicting", 0, len(cases), first, warnings=(*warnings, *named)))
    return {name: (*warnings, *of_case) for name, of_case in found.items()}


def _predict_all(
    work: _Work,
    cases: Sequence[CaseOutputs],
    *,
    reported: Mapping[str, tuple[str, ...]],
    progress: ProgressCallback,
) -> None:
    """Segment case by case, and add their entries to the record.

    The entry of a failed case holds its error. A thread writes one case while the next one is segmented.
    """
    total, writing = len(cases), deque[Future[None]]()
    with ThreadPoolExecutor(1) as writer:
        for number, (outputs, prepared) in enumerate(_prepare_ahead(work.predictor, cases)):
            name, begin = outputs.case.name, time.monotonic()
            progress(ProgressUpdate("predicting", number, total, name))
            report = _window_progress(name, number=number, total=total, progress=progress)
            outcome = _segment(work, outputs, prepared, progress=report)
            found = outcome.warnings if isinstance(outcome, Prediction) else ()
            new = [warning for warning in found if warning not in reported[name]]
            writing.append(writer.submit(_finish, work, outputs, outcome, begin=begin))
            # Probabilities are too large to hold those of two cases.
            most = 0 if outputs.probabilities is not None else 1
            del outcome
            while len(writing) > most:
                writing.popleft().result()
            warnings = (f"case {name}: {' '.join(new)}",) if new else ()
            progress(ProgressUpdate("predicting", number + 1, total, name, warnings=warnings))
        while writing:
            writing.popleft().result()


def _segment(
    work: _Work, outputs: CaseOutputs, prepared: Future[PreparedImage], *, progress: ProgressCallback
) -> Prediction | ScansegError:
    """Segment a case, or return the error if it fails."""
    try:
        return work.predictor.predict_prepared(
            prepared.result(),
            mirror=work.mirror,
            probabilities=outputs.probabilities is not None,
            uncertainty=work.uncertainty,
            progress=progress,
        )
    except ScansegError as error:
        return error


def _finish(work: _Work, outputs: CaseOutputs, outcome: Prediction | ScansegError, *, begin: float) -> None:
    """Write the files of a case and its entry in the record."""
    warnings, fault = list[str](), None
    try:
        if isinstance(outcome, ScansegError):
            raise outcome
        warnings = [each for each in outcome.warnings if each not in work.predictor.warnings]
        _write(outputs, outcome, work)
    except ScansegError as error:
        fault = str(error)
    entry = make_entry(
        outputs,
        sources=work.sources_of[outputs.case.name],
        seconds=time.monotonic() - begin,
        warning=" ".join(warnings) or None,
        fault=fault,
    )
    work.running.add(entry)


def _write(outputs: CaseOutputs, prediction: Prediction, work: _Work) -> None:
    """Write the files of a case, the label map last."""
    if outputs.probabilities is not None and prediction.probabilities is not None:
        write_probabilities(outputs.probabilities, prediction.probabilities, like=prediction.image)
    for path, values in (
        (outputs.entropy, prediction.entropy),
        (outputs.disagreement, prediction.disagreement),
    ):
        if path is not None and values is not None:
            write_map(path, values, like=prediction.image)
    if outputs.colours is not None and prediction.label_map.ndim == 2:
        outputs.colours.parent.mkdir(exist_ok=True)
        colours = work.predictor.plan.dataset.colours
        write_colours(outputs.colours, prediction.label_map, like=prediction.image, colours=colours)
    if outputs.picture is not None:
        _write_picture(outputs.picture, prediction, work.predictor.plan.dataset)
    if outputs.label_map.suffix == SEGMENTATION_ENDING:
        write_segmentation(
            outputs.label_map,
            prediction.label_map,
            like=prediction.image,
            segments=make_segments(work.predictor.plan.dataset.foreground, work.codes),
            source=SegmentationSource(work.predictor.model, work.running.value.model_digest or "unknown"),
        )
        return
    write_label_map(outputs.label_map, prediction.label_map, like=prediction.image)


def _write_picture(path: Path, prediction: Prediction, dataset: DatasetSpec) -> None:
    """Write a picture of an image with its label map."""
    scene = make_scene(
        prediction.image, prediction.label_map, labels=displayed_labels(dataset), colours=dataset.colours
    )
    write_figure(draw_planes(scene, caption=Caption(path.stem)), path)


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
