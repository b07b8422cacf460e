"""Summarize the finished trainings of a comparison."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from scanseg.errors import InputError
from scanseg.experiments.job import TrainingJob
from scanseg.experiments.statistics import compare, correct
from scanseg.models import ModelFolder
from scanseg.planning import Prepared
from scanseg.specs import ArmOutcome, ArmRun, ComparisonArm, ComparisonRecord, ComparisonSpec, Report


@dataclass(frozen=True)
class Arm:
    """An arm of a comparison with its plan and store."""

    spec: ComparisonArm
    prepared: Prepared
    folder: Path

    def job(self, seed: int, fold: int) -> TrainingJob:
        """Return a training of the arm.

        Args:
            seed: Random seed.
            fold: Number of the fold.
        """
        job = TrainingJob(
            name=f"{self.spec.name}, seed {seed}, fold {fold}",
            prepared=self.prepared,
            folder=self.folder / f"seed_{seed}_fold_{fold}",
            fold=fold,
        )
        return job.with_seed(seed)


def summarize_comparison(spec: ComparisonSpec, arms: Sequence[Arm], output: Path) -> ComparisonRecord:
    """Summarize the finished trainings.

    Args:
        spec: The comparison.
        arms: Its arms.
        output: Folder of the comparison.
    """
    outcomes, cases, by_seed, missing = [], {}, {}, []
    for arm in arms:
        jobs = {(seed, fold): arm.job(seed, fold) for seed in spec.seeds for fold in spec.folds}
        done = {key: ModelFolder.open(job.folder) for key, job in jobs.items() if _is_scored(job)}
        missing += [job.name for key, job in jobs.items() if key not in done]
        reports = {key: folder.scores.read_validation() for key, folder in done.items()}
        outcome = _summarize_arm(arm, done, reports, output=output)
        outcomes.append(outcome)
        cases[arm.spec.name] = _case_dice(list(reports.values()))
        by_seed[arm.spec.name] = _complete_seed_means(outcome, spec)
    baseline = spec.baseline_name
    comparisons = correct(
        [
            compare(
                name,
                baseline,
                cases=(cases[name], cases[baseline]),
                by_seed=(by_seed[name], by_seed[baseline]),
            )
            for name in cases
            if name != baseline
        ]
    )
    return ComparisonRecord(
        spec=spec,
        dataset=arms[0].prepared.plan.dataset.name,
        arms=tuple(outcomes),
        comparisons=comparisons,
        missing=tuple(missing),
    )


def _is_scored(job: TrainingJob) -> bool:
    """Return whether a training is finished and has scores."""
    return job.is_finished and ModelFolder.open(job.folder).scores.validation_path().is_file()


def _summarize_arm(
    arm: Arm,
    done: Mapping[tuple[int, int], ModelFolder],
    reports: Mapping[tuple[int, int], Report],
    *,
    output: Path,
) -> ArmOutcome:
    """Return the trainings of an arm and their means."""
    runs, parameters = [], 0
    for (seed, fold), folder in done.items():
        record = folder.read_run()
        if record is None:
            raise InputError(
                f"{folder.path}: the run record is missing. Delete the folder and train it again."
            )
        parameters = record.num_parameters
        runs.append(
            ArmRun(
                seed=seed,
                fold=fold,
                model=folder.path.relative_to(output).as_posix(),
                mean_dice=reports[seed, fold].summary.mean_over_labels.dice,
                epochs_done=record.epochs_done,
                seconds=record.training_seconds,
            )
        )
    dice = [run.mean_dice for run in runs if run.mean_dice is not None]
    by_seed = _seed_means(runs)
    labels = [report.summary.label_means() for report in reports.values()]
    foreground = arm.prepared.plan.dataset.foreground
    return ArmOutcome(
        name=arm.spec.name,
        settings=arm.spec.settings,
        num_parameters=parameters,
        runs=tuple(runs),
        mean_dice=mean(dice) if dice else None,
        std=stdev(dice) if len(dice) > 1 else None,
        seed_std=stdev(by_seed.values()) if len(by_seed) > 1 else None,
        labels={name: _mean([each[name] for each in labels]) for name in foreground},
    )


def _seed_means(runs: Sequence[ArmRun]) -> dict[int, float]:
    """Return the mean Dice of each seed over its folds."""
    found: dict[int, list[float]] = {}
    for run in runs:
        if run.mean_dice is not None:
            found.setdefault(run.seed, []).append(run.mean_dice)
    return {seed: mean(values) for seed, values in found.items()}


def _complete_seed_means(outcome: ArmOutcome, spec: ComparisonSpec) -> list[float]:
    """Return the mean Dice of each seed that has all folds."""
    complete = {
        seed
        for seed in spec.seeds
        if {run.fold for run in outcome.runs if run.seed == seed} >= set(spec.folds)
    }
    return list(_seed_means([run for run in outcome.runs if run.seed in complete]).values())


def _case_dice(reports: Sequence[Report]) -> dict[str, float]:
    """Return the mean Dice of each case.

    The mean is taken over its scored labels, then over the trainings that scored it.
    """
    found: dict[str, list[float]] = {}
    for report in reports:
        for case in report.cases:
            dice = _mean([label.dice for label in case.labels.values()])
            if dice is not None:
                found.setdefault(case.case, []).append(dice)
    return {name: mean(values) for name, values in found.items()}


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values that are not `None`."""
    counted = [value for value in values if value is not None]
    return mean(counted) if counted else None
