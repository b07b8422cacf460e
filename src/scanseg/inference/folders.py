"""Segment every case of a folder, one file a case, with a record beside them."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from scanseg.data import RawCase, find_cases
from scanseg.data.description import DESCRIPTION_FILE
from scanseg.data.faults import refuse_faults
from scanseg.errors import InputError, ScansegError
from scanseg.files import write_text
from scanseg.imaging import write_label_map, write_probabilities
from scanseg.imaging.formats import DETACHED_ENDINGS, LOSSY_ENDINGS, file_ending
from scanseg.models.device import describe_device
from scanseg.models.versions import installed_versions
from scanseg.progress import Progress, ProgressListener, ignore_progress
from scanseg.specs import PredictedCase, PredictionRecord

if TYPE_CHECKING:
    from scanseg.inference.predictor import Predictor, PreparedImage

RECORD_FILE = "prediction.json"

WRITTEN_AS = dict.fromkeys(LOSSY_ENDINGS, ".png") | dict(
    zip(DETACHED_ENDINGS, (".nrrd", ".mha"), strict=True)
)
"""Endings of label maps whose images have an ending that label maps are not written with."""

_SHOWN_FILES = 5


@dataclass(frozen=True)
class _Target:
    """A case and the files it becomes."""

    case: RawCase
    label_map: Path
    probabilities: Path | None


def predict_folder(
    predictor: "Predictor",
    source: Path,
    *,
    output: Path,
    mirror: bool = False,
    probabilities: bool = False,
    overwrite: bool = False,
    listen: ProgressListener = ignore_progress,
) -> PredictionRecord:
    """Segment every case of a folder, or one file.

    The output folder holds `CASE.ext` for each case with the ending of its image (`.png` for JPEG), where asked for
    `CASE.npz` with its probabilities, `dataset.json` with the labels, and `prediction.json`, the record. Each file
    appears when it is complete. The next case is read while one is segmented.

    Args:
        predictor: The network.
        source: Folder of images named as in training, or the file of one case.
        output: Folder for the results; made if absent.
        mirror: Average over flips along the plan's `inference.mirror_axes`.
        probabilities: Write the probabilities too.
        overwrite: Replace what an earlier prediction wrote.
        listen: Told of every case and every pass of the network.

    Returns:
        The record.

    Raises:
        InputError: Cases cannot be found, or files would be replaced: before anything is done. Or some cases could
            not be segmented: after all others are.
        UsageError: The arguments do not go together.
    """
    plan, begin = predictor.plan, time.monotonic()
    started = datetime.now(UTC).isoformat(timespec="seconds")
    predictor.mirror_axes(mirror=mirror)
    cases = find_cases(source, file_ending=plan.dataset.file_ending, num_channels=plan.dataset.num_channels)
    targets = [_target(case, output, probabilities=probabilities) for case in cases]
    description = plan.dataset.to_json()
    _check_output(output, targets, description=description, overwrite=overwrite)
    output.mkdir(parents=True, exist_ok=True)
    write_text(output / DESCRIPTION_FILE, description)
    done = list(_predict_all(predictor, targets, mirror=mirror, listen=listen))
    record = PredictionRecord(
        model=predictor.model,
        recipe=plan.recipe,
        device=describe_device(predictor.device),
        precision=predictor.precision,
        mirror=mirror,
        versions=installed_versions(),
        started=started,
        seconds=round(time.monotonic() - begin, 3),
        cases=tuple(done),
    )
    write_text(output / RECORD_FILE, record.to_json())
    refuse_faults(source, [f"case {case.case}: {case.fault}" for case in done if case.fault is not None])
    return record


def _target(case: RawCase, output: Path, *, probabilities: bool) -> _Target:
    """Name the files that a case becomes."""
    ending = file_ending(case.images[0])
    return _Target(
        case,
        label_map=output / f"{case.name}{WRITTEN_AS.get(ending, ending)}",
        probabilities=output / f"{case.name}.npz" if probabilities else None,
    )


def _check_output(output: Path, targets: Sequence[_Target], *, description: str, overwrite: bool) -> None:
    """Refuse to replace what is not ours, or what is, unless that was asked for."""
    if output.exists() and not output.is_dir():
        raise InputError(f"{output} is a file; choose a folder for the label maps.")
    inputs = {path.resolve() for target in targets for path in target.case.images}
    written = [
        path for target in targets for path in (target.label_map, target.probabilities) if path is not None
    ]
    faults = [f"{path.name} is an image to segment" for path in written if path.resolve() in inputs]
    there = [path.name for path in (*written, output / RECORD_FILE) if path.exists()]
    described = output / DESCRIPTION_FILE
    ours = not described.exists() or (output / RECORD_FILE).exists()
    if not ours and described.read_text(encoding="utf-8", errors="replace") != description:
        faults.append(f"{DESCRIPTION_FILE} there was not written by a prediction with this model")
    if there and not overwrite and not faults:
        more = f" and {len(there) - _SHOWN_FILES} more" if len(there) > _SHOWN_FILES else ""
        faults.append(f"{', '.join(there[:_SHOWN_FILES])}{more} would be replaced")
    if faults:
        raise InputError(
            f"{output}: {'; '.join(faults)}. Choose another folder{'' if overwrite else ', or overwrite'}."
        )


def _predict_all(
    predictor: "Predictor", targets: Sequence[_Target], *, mirror: bool, listen: ProgressListener
) -> Iterator[PredictedCase]:
    """Segment and write case by case; a case that cannot be is told of in its entry."""
    for number, (target, prepared) in enumerate(_prepared(predictor, targets)):
        name, begin, fault = target.case.name, time.monotonic(), None
        listen(Progress("predicting", number, len(targets), name))
        try:
            prediction = predictor.predict_prepared(
                prepared.result(),
                mirror=mirror,
                probabilities=target.probabilities is not None,
                listen=_passes_of(name, number=number, total=len(targets), listen=listen),
            )
            write_label_map(target.label_map, prediction.label_map, like=prediction.image)
            if target.probabilities is not None and prediction.probabilities is not None:
                write_probabilities(target.probabilities, prediction.probabilities, like=prediction.image)
        except ScansegError as error:
            fault = str(error)
        listen(Progress("predicting", number + 1, len(targets), name))
        yield PredictedCase(
            case=name,
            images=tuple(str(path) for path in target.case.images),
            label_map=None if fault else target.label_map.name,
            probabilities=None if fault or target.probabilities is None else target.probabilities.name,
            seconds=round(time.monotonic() - begin, 3),
            fault=fault,
        )


def _passes_of(name: str, *, number: int, total: int, listen: ProgressListener) -> ProgressListener:
    """Return a listener that tells of the windows of a case as progress over all cases."""

    def hear(progress: Progress) -> None:
        listen(Progress("predicting", number, total, f"{name}, window {progress.done} of {progress.total}"))

    return hear


def _prepared(
    predictor: "Predictor", targets: Sequence[_Target]
) -> Iterator[tuple[_Target, "Future[PreparedImage]"]]:
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
