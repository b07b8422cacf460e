"""Predict the validation cases by pairs of configurations.

The label map of a pair comes from the mean of both probabilities, on cases that neither model was trained on. The
folds of each configuration predict their validation cases again, all configurations at the same time, and the label
maps of all pairs are computed from these predictions. Decision 20 explains why probabilities are not kept on disk
instead.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scanseg.errors import InputError
from scanseg.experiments.configuration import Configuration
from scanseg.experiments.postprocessing import PredictedCase
from scanseg.experiments.scheduler import run_jobs
from scanseg.files import write_text, written_whole
from scanseg.inference import Predictor, label_maps_of_groups, share_progress
from scanseg.models import pair_prediction_path
from scanseg.preprocessing import open_array, write_array
from scanseg.progress import ProgressCallback, ProgressUpdate
from scanseg.runtime import RunContext, raise_if_stopped
from scanseg.specs import FileStamp, PairSources

_TASK = "predicting pairs"


@dataclass(frozen=True, eq=False)
class Pair:
    """Two configurations of a cross-validation."""

    configurations: tuple[Configuration, Configuration]
    crossval: Path
    """Folder of the cross-validation."""

    @property
    def names(self) -> tuple[str, str]:
        """Names of both configurations."""
        first, second = self.configurations
        return first.name, second.name

    @property
    def name(self) -> str:
        """Both names, joined by +."""
        return " + ".join(self.names)

    def prediction_path(self, case: str) -> Path:
        """Return the file of the label map of a validation case.

        Args:
            case: Name of the case.
        """
        return pair_prediction_path(self.crossval, self.names, case)

    def predicted(self) -> list[PredictedCase]:
        """Return the validation cases of all folds with their label maps."""
        first = self.configurations[0]
        return [
            PredictedCase(case, self.prediction_path(case))
            for fold in first.folds
            for case in first.validation_cases(fold)
        ]

    def lacks(self, case: str, *, fold: int) -> bool:
        """Return whether the label map of a case is missing or outdated.

        It is outdated if its shape, the weights or the preprocessed case have changed. Without a record of them, it is
        outdated if the weights are newer.

        Args:
            case: Name of the case.
            fold: Number of the fold with the case as validation case.
        """
        path = self.prediction_path(case)
        if not path.is_file():
            return True
        stores = [each.prepared.store for each in self.configurations]
        weights = [each.model(fold).weights_path() for each in self.configurations]
        try:
            open_array(path, shape=stores[0].case(case).geometry.source_shape)
            if not _sources_path(path).is_file():
                return path.stat().st_mtime_ns < max(file.stat().st_mtime_ns for file in weights)
            sources = PairSources.read(_sources_path(path))
            digests = tuple(store.case_digest(store.case(case)) for store in stores)
        except InputError:
            return True
        return sources.cases != digests or not all(
            stamp.matches(file) for stamp, file in zip(sources.weights, weights, strict=True)
        )

    def write_sources(self, case: str, weights: Mapping[str, FileStamp]) -> None:
        """Record the weights and the preprocessed case of a label map.

        Args:
            case: Name of the case.
            weights: Files of the weights by the name of their configuration.
        """
        stores = [each.prepared.store for each in self.configurations]
        sources = PairSources(
            weights=tuple(weights[name] for name in self.names),
            cases=tuple(store.case_digest(store.case(case)) for store in stores),
        )
        write_text(_sources_path(self.prediction_path(case)), sources.to_json())


@dataclass(frozen=True, eq=False)
class PairPrediction:
    """A job that predicts the validation cases of one fold."""

    configurations: tuple[Configuration, ...]
    crossval: Path
    """Folder of the cross-validation."""
    fold: int

    @property
    def name(self) -> str:
        """Name for messages and progress."""
        return f"pairs of fold {self.fold}"

    @property
    def lacking(self) -> dict[str, list[Pair]]:
        """Pairs with a missing label map, for each case that has some.

        Raises:
            InputError: The configurations have different validation cases in this fold.
        """
        pairs = pairs_of(self.configurations, self.crossval)
        cases = _validation_cases(self.configurations, self.fold)
        found = {case: [pair for pair in pairs if pair.lacks(case, fold=self.fold)] for case in cases}
        return {case: lacking for case, lacking in found.items() if lacking}

    def run(self, context: RunContext) -> None:
        """Write the missing label maps.

        Args:
            context: Device, progress and stopping.

        Raises:
            InterruptionError: A signal came. Finished cases are kept.
        """
        lacking = self.lacking
        predictors = [_load_predictor(each, self.fold, context) for each in self.configurations]
        weights = {
            each.name: FileStamp.of(each.model(self.fold).weights_path()) for each in self.configurations
        }
        for number, (case, wanted) in enumerate(lacking.items()):

            def report(update: ProgressUpdate, number: int = number, case: str = case) -> None:
                raise_if_stopped(context.should_stop, "stopped while pairs predicted; continue with --resume")
                detail = f"{case}, window {update.done} of {update.total}"
                context.progress(ProgressUpdate(_TASK, number, len(lacking), detail))

            label_maps = _predict(self.configurations, predictors, wanted, case=case, progress=report)
            for pair, label_map in zip(wanted, label_maps, strict=True):
                path = pair.prediction_path(case)
                path.parent.mkdir(parents=True, exist_ok=True)
                with written_whole(path) as temporary:
                    write_array(temporary, label_map)
                pair.write_sources(case, weights)
            context.progress(ProgressUpdate(_TASK, number + 1, len(lacking), case))


def _sources_path(prediction: Path) -> Path:
    """Return the file of the sources of a label map."""
    return prediction.with_name(f"{prediction.name}.json")


def pairs_of(configurations: Sequence[Configuration], crossval: Path) -> list[Pair]:
    """Return all pairs of configurations.

    Args:
        configurations: The configurations.
        crossval: Folder of the cross-validation.
    """
    return [Pair(both, crossval) for both in itertools.combinations(configurations, 2)]


def predict_pairs(
    configurations: Sequence[Configuration], crossval: Path, *, devices: Sequence[str], context: RunContext
) -> list[Pair]:
    """Write the missing label maps of all pairs on the validation cases.

    Args:
        configurations: The configurations, with trained folds.
        crossval: Folder of the cross-validation.
        devices: Names of devices. Several predict folds at the same time.
        context: Progress and stopping.

    Returns:
        The pairs.

    Raises:
        InputError: The configurations have different validation cases in a fold.
        InterruptionError: A signal came. Finished cases are kept.
        ScansegError: A prediction failed.
    """
    jobs = [PairPrediction(tuple(configurations), crossval, fold) for fold in configurations[0].folds]
    run_jobs([job for job in jobs if job.lacking], devices=devices, context=context, task=_TASK)
    return pairs_of(configurations, crossval)


def _validation_cases(configurations: Sequence[Configuration], fold: int) -> tuple[str, ...]:
    """Return the validation cases of a fold.

    Raises:
        InputError: The configurations have different validation cases.
    """
    first, *others = configurations
    cases = first.validation_cases(fold)
    for other in others:
        if (theirs := other.validation_cases(fold)) != cases:
            raise InputError(
                f"{other.job(fold).folder} and {first.job(fold).folder}: expected the same validation cases, got "
                f"{', '.join(theirs)} and {', '.join(cases)}. Train both on the same folds, or leave pairs out by "
                f"--no-ensembles."
            )
    return cases


def _load_predictor(configuration: Configuration, fold: int, context: RunContext) -> Predictor:
    """Load the predictor of a fold, without its first stage.

    The store holds the label maps of the first stage.
    """
    folder, device = configuration.model(fold), context.torch_device
    return Predictor(folder.plan, folder.load_network(device=device), device=device, model=str(folder.path))


def _predict(
    configurations: Sequence[Configuration],
    predictors: Sequence[Predictor],
    wanted: Sequence[Pair],
    *,
    case: str,
    progress: ProgressCallback,
) -> list[np.ndarray]:
    """Return the label maps of pairs on a case.

    Each configuration predicts the case once.

    Args:
        configurations: All configurations.
        predictors: Their predictors, in the same order.
        wanted: Pairs to predict.
        case: Name of the case.
        progress: Called with each progress update.

    Returns:
        A label map on the source grid for each pair.
    """
    needed = [each for each in configurations if any(each in pair.configurations for pair in wanted)]
    predictions = []
    for each, share in zip(needed, share_progress(progress, len(needed)), strict=True):
        predictor, store = predictors[configurations.index(each)], each.prepared.store
        stored = store.case(case)
        predictions.append(
            predictor.predict_plan(
                store.read_image(stored).astype(np.float32),
                stored.geometry,
                predicted=store.read_predicted(stored),
                mirror=predictor.plan.training.mirror_validation,
                progress=share,
            )
        )
    dataset, geometry = predictors[0].plan.dataset, needed[0].prepared.store.case(case).geometry
    with predictors[0].explained_memory(geometry):
        return label_maps_of_groups(
            predictions,
            [[needed.index(each) for each in pair.configurations] for pair in wanted],
            num_outputs=dataset.num_outputs,
            regions_class_order=dataset.regions_class_order if dataset.has_regions else None,
            device=predictors[0].device,
        )
