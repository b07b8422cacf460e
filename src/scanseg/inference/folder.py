"""Segment every case of a folder, one file a case, with a record beside them."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from scanseg.dataset import DESCRIPTION_FILE
from scanseg.errors import ScansegError, UsageError, refuse_faults
from scanseg.files import write_text
from scanseg.imaging import write_label_map, write_probabilities
from scanseg.inference.inputs import doubt_spacing
from scanseg.inference.model_digest import model_digest
from scanseg.inference.outputs import (
    RECORD_FILE,
    Target,
    Wanted,
    check_earlier,
    check_output,
    find_targets,
    warn_of_others,
    write_map,
)
from scanseg.progress import ProgressCallback, ProgressUpdate, ignore_progress
from scanseg.runtime import describe_device, installed_versions
from scanseg.specs import Plan, PredictedCase, PredictionRecord

if TYPE_CHECKING:
    from scanseg.inference.prediction import Prediction, PreparedImage
    from scanseg.inference.predictor import Predictor


def predict_folder(
    predictor: "Predictor",
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
    """Segment every case of some folders and files.

    The output folder holds `CASE.ext` for each case with the ending of its image (`.png` for JPEG), where asked for
    `CASE.npz` with its probabilities and `entropy/CASE.ext`, `disagreement/CASE.ext`, `dataset.json` with the labels,
    and `prediction.json`, the record. Each file appears when it is complete, the label map of a case last; the record
    grows with each case. While one is segmented the next is read and preprocessed, and the last is written.

    Args:
        predictor: The network.
        source: Folder of images named as in training, or the file of one case; or several of these.
        output: Folder for the results; made if absent.
        mirror: Average over flips along the plan's `inference.mirror_axes`.
        probabilities: Write the probabilities too.
        uncertainty: Write the entropy, and where there are several the disagreement of flips and networks.
        overwrite: Replace what an earlier prediction wrote.
        skip_existing: Leave out the cases whose files an earlier prediction, of the same model, wrote.
        progress: Told of every case and every pass of the network.

    Returns:
        The record.

    Raises:
        InputError: Cases cannot be found, or files would be replaced: before anything is done. Or some cases could
            not be segmented: after all others are.
        UsageError: The arguments do not go together.
    """
    if not isinstance(source, Path) and not source:
        raise UsageError("no images to segment; give a folder or files")
    if overwrite and skip_existing:
        raise UsageError("overwrite and skip_existing exclude each other; leave one out")
    begin, several = time.monotonic(), predictor.num_members(mirror=mirror) > 1
    wanted = Wanted(probabilities, entropy=uncertainty, disagreement=uncertainty and several)
    sources = [source] if isinstance(source, Path) else list(source)
    targets = find_targets(sources, output, dataset=predictor.plan.dataset, wanted=wanted)
    warnings = warn_of_others(sources, file_ending=predictor.plan.dataset.file_ending)
    record = _new_record(predictor, mirror=mirror, warnings=warnings)
    skipped = [target for target in targets if skip_existing and target.is_there]
    waiting = [target for target in targets if not (skip_existing and target.is_there)]
    description = predictor.plan.dataset.to_json()
    continued = skip_existing and (bool(skipped) or (output / RECORD_FILE).exists())
    if continued:
        check_earlier(output, record)
    check_output(output, waiting, description=description, overwrite=overwrite, continued=continued)
    output.mkdir(parents=True, exist_ok=True)
    write_text(output / DESCRIPTION_FILE, description)
    done = {target.case.name: _told(target, skipped=True) for target in skipped}
    write_text(output / RECORD_FILE, record.to_json())
    for case in _predict_all(predictor, waiting, mirror=mirror, uncertainty=uncertainty, progress=progress):
        done[case.case] = case
        told = tuple(done[target.case.name] for target in targets if target.case.name in done)
        seconds = round(time.monotonic() - begin, 3)
        record = record.model_copy(update={"cases": told, "seconds": seconds})
        write_text(output / RECORD_FILE, record.to_json())
    if not waiting:
        record = record.model_copy(update={"cases": tuple(done.values())})
        write_text(output / RECORD_FILE, record.to_json())
    refuse_faults(
        sources[0], [f"case {case.case}: {case.fault}" for case in record.cases if case.fault is not None]
    )
    return record


def _new_record(predictor: "Predictor", *, mirror: bool, warnings: tuple[str, ...]) -> PredictionRecord:
    """Return the record of a prediction that begins now."""
    return PredictionRecord(
        model=predictor.model,
        model_digest=model_digest(predictor),
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


def _told(
    target: Target,
    *,
    seconds: float = 0.0,
    warning: str | None = None,
    fault: str | None = None,
    skipped: bool = False,
) -> PredictedCase:
    """Return the entry of a case."""

    def name(path: Path | None) -> str | None:
        if path is None or fault is not None:
            return None
        return path.relative_to(target.label_map.parent).as_posix()

    return PredictedCase(
        case=target.case.name,
        images=tuple(str(path) for path in target.case.images),
        label_map=name(target.label_map),
        probabilities=name(target.probabilities),
        entropy=name(target.entropy),
        disagreement=name(target.disagreement),
        seconds=round(seconds, 3),
        warning=warning,
        fault=fault,
        skipped=skipped,
    )


def _predict_all(
    predictor: "Predictor",
    targets: Sequence[Target],
    *,
    mirror: bool,
    uncertainty: bool,
    progress: ProgressCallback,
) -> Iterator[PredictedCase]:
    """Segment case by case; a case that cannot be is told of in its entry.

    A thread writes a case while the next is segmented, one at most.
    """
    total, ending = len(targets), deque[Future[PredictedCase]]()
    with ThreadPoolExecutor(1) as writer:
        for number, (target, prepared) in enumerate(_prepared(predictor, targets)):
            name, begin = target.case.name, time.monotonic()
            progress(ProgressUpdate("predicting", number, total, name))
            hear = _passes_of(name, number=number, total=total, progress=progress)
            outcome = _segment(
                predictor, target, prepared, mirror=mirror, uncertainty=uncertainty, progress=hear
            )
            ending.append(writer.submit(_end, target, outcome, predictor.plan, begin=begin))
            # Probabilities are too large for two cases at a time.
            held = 0 if target.probabilities is not None else 1
            del outcome
            while len(ending) > held:
                yield ending.popleft().result()
            progress(ProgressUpdate("predicting", number + 1, total, name))
        while ending:
            yield ending.popleft().result()


def _segment(
    predictor: "Predictor",
    target: Target,
    prepared: "Future[PreparedImage]",
    *,
    mirror: bool,
    uncertainty: bool,
    progress: ProgressCallback,
) -> "Prediction | ScansegError":
    """Segment a case; return what is wrong with one that cannot be."""
    try:
        return predictor.predict_prepared(
            prepared.result(),
            mirror=mirror,
            probabilities=target.probabilities is not None,
            uncertainty=uncertainty,
            progress=progress,
        )
    except ScansegError as error:
        return error


def _end(target: Target, outcome: "Prediction | ScansegError", plan: Plan, *, begin: float) -> PredictedCase:
    """Write what became of a case, and return its entry."""
    warning = fault = None
    try:
        if isinstance(outcome, ScansegError):
            raise outcome
        warning = doubt_spacing(outcome.image, plan)
        _write(target, outcome)
    except ScansegError as error:
        fault = str(error)
    return _told(target, seconds=time.monotonic() - begin, warning=warning, fault=fault)


def _write(target: Target, prediction: "Prediction") -> None:
    """Write what was asked for, the label map last."""
    if target.probabilities is not None and prediction.probabilities is not None:
        write_probabilities(target.probabilities, prediction.probabilities, like=prediction.image)
    for path, values in (
        (target.entropy, prediction.entropy),
        (target.disagreement, prediction.disagreement),
    ):
        if path is not None and values is not None:
            write_map(path, values, like=prediction.image)
    write_label_map(target.label_map, prediction.label_map, like=prediction.image)


def _passes_of(name: str, *, number: int, total: int, progress: ProgressCallback) -> ProgressCallback:
    """Return a listener that tells of the windows of a case as progress over all cases."""

    def hear(update: ProgressUpdate) -> None:
        progress(
            ProgressUpdate("predicting", number, total, f"{name}, window {update.done} of {update.total}")
        )

    return hear


def _prepared(
    predictor: "Predictor", targets: Sequence[Target]
) -> Iterator[tuple[Target, "Future[PreparedImage]"]]:
    """Give every case with its image, which a thread reads while the case before is segmented."""
    with ThreadPoolExecutor(1) as reader:
        waiting = [reader.submit(predictor.prepare, target.case.images) for target in targets[:1]]
        for index, target in enumerate(targets):
            current = waiting.pop()
            waiting += [
                reader.submit(predictor.prepare, after.case.images)
                for after in targets[index + 1 : index + 2]
            ]
            yield target, current
            del current
