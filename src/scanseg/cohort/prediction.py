"""Prediction of folders by several workers."""

from collections.abc import Sequence
from pathlib import Path

from scanseg.cohort.devices import device_places
from scanseg.cohort.model_worker import ModelChoice
from scanseg.cohort.pool import ModelPool
from scanseg.errors import UsageError
from scanseg.inference import OutputFormat, predict_folder
from scanseg.progress import ProgressCallback, ignore_progress
from scanseg.specs import PredictionRecord, SegmentCodes


def predict_cohort(
    choice: ModelChoice,
    source: Sequence[Path],
    output: Path,
    *,
    devices: Sequence[str],
    mirror: bool = False,
    probabilities: bool = False,
    uncertainty: bool = False,
    overwrite: bool = False,
    skip_existing: bool = False,
    format: OutputFormat | None = None,
    series: Sequence[str] = (),
    segment_codes: SegmentCodes | None = None,
    progress: ProgressCallback = ignore_progress,
) -> PredictionRecord:
    """Segment every case of folders and files by several workers.

    Each worker loads the model once and takes the next case as soon as it is free. Label maps equal those of one device
    of the same kind. See `scanseg.predict_cohort`.

    Args:
        choice: The model.
        source: Folders of images, files of cases, or DICOM series.
        output: Folder for the results.
        devices: Devices of this machine, each with one worker.
        mirror: As for `Predictor.predict_folder`, like the other arguments.
        probabilities: See there.
        uncertainty: See there.
        overwrite: See there.
        skip_existing: See there.
        format: See there.
        series: See there.
        segment_codes: See there.
        progress: See there.

    Raises:
        InputError: As for `Predictor.predict_folder`.
        UsageError: A device is missing, or arguments exclude each other.
        ScansegError: Workers ended while they loaded the model.
    """
    if not devices:
        raise UsageError("devices: expected at least one, got none. Name a device, such as cuda:0.")
    with ModelPool(device_places(choice, devices), num_ready=len(devices)) as pool:
        return predict_folder(
            pool.facts,
            source,
            output=output,
            mirror=mirror,
            probabilities=probabilities,
            uncertainty=uncertainty,
            overwrite=overwrite,
            skip_existing=skip_existing,
            format=format,
            series=series,
            segment_codes=segment_codes,
            progress=progress,
            run=pool.run,
        )
