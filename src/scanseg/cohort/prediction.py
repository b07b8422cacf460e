"""Prediction of folders by several workers."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from scanseg.cohort.devices import device_places
from scanseg.cohort.model_worker import ModelChoice
from scanseg.cohort.pool import ModelPool
from scanseg.cohort.ray_engine import RayEngine
from scanseg.inference import OutputFormat, predict_folder
from scanseg.progress import ProgressCallback, ignore_progress
from scanseg.specs import PredictionRecord, SegmentCodes


def predict_cohort(
    choice: ModelChoice,
    source: Sequence[Path],
    output: Path,
    *,
    workers: Sequence[str] | RayEngine,
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
    """Segment folders and files by several workers.

    Each worker loads the model once and takes the next case as soon as it is free. One device gives
    the same label maps. See `scanseg.predict_cohort`.

    Args:
        choice: The model.
        source: Folders of images, files of cases, or DICOM series.
        output: Folder for the results.
        workers: Devices of this machine, each with one worker, or a Ray cluster.
        mirror: As for `Predictor.predict_folder`, like the other arguments.
        probabilities: See there.
        uncertainty: See there.
        overwrite: See there.
        skip_existing: See there.
        format: See there.
        series: See there.
        segment_codes: See there.
        pictures: See there.
        progress: See there.

    Raises:
        InputError: As for `Predictor.predict_folder`.
        UsageError: A device is missing, or arguments exclude each other.
        ScansegError: Workers ended while they loaded the model.
    """
    if isinstance(workers, RayEngine):
        places, num_ready = workers.places(choice), 1
    else:
        places = device_places(choice, workers)
        num_ready = len(places)
    with ModelPool(places, num_ready=num_ready) as pool:
        facts = pool.facts
        if isinstance(workers, RayEngine):
            facts = replace(facts, device=workers.describe())
        return predict_folder(
            facts,
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
            pictures=pictures,
            progress=progress,
            run=pool.run,
        )
