"""Prediction of folders by several workers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from scanseg.cohort.devices import device_places
from scanseg.cohort.model_worker import LoadedFacts, ModelChoice
from scanseg.cohort.pool import ModelPool
from scanseg.cohort.ray_engine import RayEngine
from scanseg.cohort.slurm_engine import SlurmEngine, SlurmShares
from scanseg.inference import CaseRunner, FolderOptions, predict_folder
from scanseg.progress import ProgressCallback, ignore_progress
from scanseg.specs import PredictionRecord


def predict_cohort(
    choice: ModelChoice,
    source: Sequence[Path],
    output: Path,
    *,
    workers: Sequence[str] | RayEngine | SlurmEngine,
    options: FolderOptions,
    progress: ProgressCallback = ignore_progress,
) -> PredictionRecord:
    """Segment folders and files by several workers.

    Each worker loads the model once and takes the next case as soon as it is free. One device gives
    the same label maps. See `scanseg.predict_cohort`.

    Args:
        choice: The model.
        source: Folders of images, files of cases, or DICOM series.
        output: Folder for the results.
        workers: Devices of this machine, each with one worker, or a cluster.
        options: Choices for all cases.
        progress: Called with each progress update.

    Raises:
        InputError: As for `Predictor.predict_folder`.
        UsageError: A device is missing, or arguments exclude each other.
        ScansegError: Workers ended while they loaded the model.
    """
    with _open_workers(choice, workers) as (facts, run):
        return predict_folder(
            facts,
            source,
            output=output,
            options=options,
            progress=progress,
            run=run,
        )


@contextmanager
def _open_workers(
    choice: ModelChoice, workers: Sequence[str] | RayEngine | SlurmEngine
) -> Iterator[tuple[LoadedFacts, CaseRunner]]:
    """Load the model in all workers.

    Yields:
        Properties of the model, and the function that predicts all cases.
    """
    if isinstance(workers, SlurmEngine):
        shares = SlurmShares(workers, choice)
        yield shares.facts, shares.run
        return
    on_ray = isinstance(workers, RayEngine)
    places = workers.places(choice) if isinstance(workers, RayEngine) else device_places(choice, workers)
    with ModelPool(places, num_ready=1 if on_ray else len(places)) as pool:
        facts = pool.facts
        yield replace(facts, device=workers.describe()) if isinstance(workers, RayEngine) else facts, pool.run
