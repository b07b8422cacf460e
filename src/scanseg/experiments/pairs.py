"""Pairs of ways to plan: what the mean of both says of validation cases, which neither has learnt from.

The folds of each way predict their validation cases once more, all ways at the same time, and the label maps of all
pairs are decided from them: see decision 20 for why probabilities are not kept on disk instead. `python -m
scanseg.experiments.pairs` does it for one fold; a study with several devices runs it on each.
"""

import argparse
import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scanseg.errors import InputError, ScansegError
from scanseg.experiments.configuration import PLAN, Configuration
from scanseg.experiments.postprocessing import PredictedCase
from scanseg.experiments.scheduler import Job, run_on_devices
from scanseg.files import written_whole
from scanseg.inference import Predictor, label_maps_of_groups, share_progress
from scanseg.models import ModelFolder, pair_prediction_path
from scanseg.preprocessing import Store, write_array
from scanseg.progress import ProgressCallback, ProgressUpdate
from scanseg.runtime import RunContext, choose_device, raise_if_stopped, watch_signals
from scanseg.specs import Plan

_TASK = "predicting pairs"


@dataclass(frozen=True, eq=False)
class Pair:
    """Two ways to plan."""

    configurations: tuple[Configuration, Configuration]
    study: Path

    @property
    def names(self) -> tuple[str, str]:
        """Names of both."""
        first, second = self.configurations
        return first.name, second.name

    @property
    def name(self) -> str:
        """Both names."""
        return " + ".join(self.names)

    def prediction_path(self, case: str) -> Path:
        """Return where the label map of a validation case is kept."""
        return pair_prediction_path(self.study, self.names, case)

    def predicted(self) -> list[PredictedCase]:
        """Return the validation cases of all folds with their label maps."""
        first = self.configurations[0]
        return [
            PredictedCase(case, self.prediction_path(case))
            for fold in first.folds
            for case in first.validation_cases(fold)
        ]

    def lacks(self, case: str, *, fold: int) -> bool:
        """Whether a case is to be predicted: it is not, or one of the networks is younger."""
        path = self.prediction_path(case)
        if not path.is_file():
            return True
        weights = [ModelFolder.open(each.model(fold)).weights_path() for each in self.configurations]
        return path.stat().st_mtime_ns < max(file.stat().st_mtime_ns for file in weights)


def pairs_of(configurations: Sequence[Configuration], study: Path) -> list[Pair]:
    """Return all pairs of ways to plan.

    Args:
        configurations: The ways to plan.
        study: The study's folder.
    """
    return [Pair(both, study) for both in itertools.combinations(configurations, 2)]


def predict_pairs(
    configurations: Sequence[Configuration],
    study: Path,
    *,
    devices: Sequence[str],
    progress: ProgressCallback,
) -> list[Pair]:
    """Write the label maps that all pairs make of the validation cases; those that are there are kept.

    Args:
        configurations: The ways to plan, their folds trained.
        study: The study's folder.
        devices: Names of devices; several predict folds at the same time.
        progress: Called with each progress update.

    Returns:
        The pairs.

    Raises:
        InputError: Folds of the same number have other validation cases.
        InterruptionError: A signal came; cases that are done are kept.
        ScansegError: A prediction failed.
    """
    pairs = pairs_of(configurations, study)
    waiting = [
        fold for fold in configurations[0].folds if _lacking(pairs, _cases(configurations, fold), fold)
    ]
    if len(devices) < 2:
        device = devices[0] if devices else "auto"
        with watch_signals() as stopped:
            for fold in waiting:
                predict_fold(
                    configurations,
                    study,
                    fold=fold,
                    context=RunContext(device=device, should_stop=stopped, progress=progress),
                )
        return pairs
    jobs = [
        Job(f"the pairs' prediction of fold {fold}", _command(configurations, study, fold))
        for fold in waiting
    ]
    done: list[Job] = []

    def end(job: Job) -> None:
        done.append(job)
        progress(ProgressUpdate(_TASK, len(done), len(jobs), job.name))

    run_on_devices(jobs, devices, ended=end)
    return pairs


def predict_fold(
    configurations: Sequence[Configuration], study: Path, *, fold: int, context: RunContext
) -> None:
    """Write the label maps that all pairs make of a fold's validation cases; those that are there are kept.

    Args:
        configurations: The ways to plan.
        study: The study's folder.
        fold: The fold.
        context: Device, stopping and progress.

    Raises:
        InputError: The ways have other validation cases in this fold.
        InterruptionError: `stopped` gave a signal.
    """
    pairs = pairs_of(configurations, study)
    lacking = _lacking(pairs, _cases(configurations, fold), fold)
    predictors = [_predictor_of(each, fold, device=context.device) for each in configurations]
    for number, (case, wanted) in enumerate(lacking.items()):

        def hear(update: ProgressUpdate, number: int = number, case: str = case) -> None:
            raise_if_stopped(context.should_stop, "stopped while pairs were predicted; go on with --resume")
            told = f"fold {fold}, {case}, window {update.done} of {update.total}"
            context.progress(ProgressUpdate(_TASK, number, len(lacking), told))

        label_maps = _predict(configurations, predictors, wanted, case=case, progress=hear)
        for pair, label_map in zip(wanted, label_maps, strict=True):
            path = pair.prediction_path(case)
            path.parent.mkdir(parents=True, exist_ok=True)
            with written_whole(path) as temporary:
                write_array(temporary, label_map)
        context.progress(ProgressUpdate(_TASK, number + 1, len(lacking), f"fold {fold}, {case}"))


def _cases(configurations: Sequence[Configuration], fold: int) -> tuple[str, ...]:
    """Return the validation cases of a fold.

    Raises:
        InputError: Those of the ways to plan differ.
    """
    first, *others = configurations
    cases = first.validation_cases(fold)
    for other in others:
        if (there := other.validation_cases(fold)) != cases:
            raise InputError(
                f"{other.model(fold)} and {first.model(fold)} cannot be scored together: their validation cases are "
                f"{', '.join(there)} and {', '.join(cases)}. Train both on the same folds, or leave pairs out by "
                f"--no-ensembles."
            )
    return cases


def _lacking(pairs: Sequence[Pair], cases: Sequence[str], fold: int) -> dict[str, list[Pair]]:
    """Return, for each case that is to be predicted, the pairs that lack it."""
    found = {case: [pair for pair in pairs if pair.lacks(case, fold=fold)] for case in cases}
    return {case: lacking for case, lacking in found.items() if lacking}


def _predictor_of(configuration: Configuration, fold: int, *, device: str) -> Predictor:
    """Return the network of a fold as it predicts; what a first stage would say of a case, its store knows."""
    folder, chosen = ModelFolder.open(configuration.model(fold)), choose_device(device)
    return Predictor(folder.plan, folder.load_network(device=chosen), device=chosen, model=str(folder.path))


def _predict(
    configurations: Sequence[Configuration],
    predictors: Sequence[Predictor],
    wanted: Sequence[Pair],
    *,
    case: str,
    progress: ProgressCallback,
) -> list[np.ndarray]:
    """Return the label maps that pairs make of a case; every way to plan predicts it once."""
    needed = [each for each in configurations if any(each in pair.configurations for pair in wanted)]
    views = []
    for each, hear in zip(needed, share_progress(progress, len(needed)), strict=True):
        predictor, stored = predictors[configurations.index(each)], each.store.case(case)
        views.append(
            predictor.view(
                each.store.read_image(stored).astype(np.float32),
                stored.geometry,
                predicted=each.store.read_predicted(stored),
                mirror=predictor.plan.training.mirror_validation,
                progress=hear,
            )
        )
    dataset, shape = predictors[0].plan.dataset, needed[0].store.case(case).geometry.shape
    with predictors[0].explained_memory(shape):
        return label_maps_of_groups(
            views,
            [[needed.index(each) for each in pair.configurations] for pair in wanted],
            num_outputs=dataset.num_outputs,
            regions_class_order=dataset.regions_class_order if dataset.has_regions else None,
            device=predictors[0].device,
        )


def _command(configurations: Sequence[Configuration], study: Path, fold: int) -> tuple[str, ...]:
    """Return the command that predicts a fold."""
    words = [sys.executable, "-m", "scanseg.experiments.pairs", str(study), "--fold", str(fold)]
    for each in configurations:
        words += ["--configuration", each.name, str(each.store.folder)]
    return tuple(words)


def _main() -> int:
    """Predict one fold, as a study asks for it."""
    parser = argparse.ArgumentParser(
        description="Predict the validation cases of a fold by all pairs of a study."
    )
    parser.add_argument("study", type=Path)
    parser.add_argument("--fold", type=int, required=True)
    parser.add_argument("--configuration", nargs=2, action="append", metavar=("NAME", "STORE"), required=True)
    parser.add_argument("--device", required=True)
    given = parser.parse_args()
    try:
        configurations = [
            Configuration(
                name, folder := given.study / name, Plan.read(folder / PLAN), Store.open(Path(store))
            )
            for name, store in given.configuration
        ]
        with watch_signals() as stopped:
            predict_fold(
                configurations,
                given.study,
                fold=given.fold,
                context=RunContext(device=given.device, should_stop=stopped),
            )
    except ScansegError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main())
