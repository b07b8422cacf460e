"""Reproduce an experiment of a paper: train, score and write the table."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from scanseg.errors import InterruptionError, ScansegError
from scanseg.experiments import OUT_OF_TIME, TrainingJob, run_jobs, stop_after
from scanseg.files import make_folder
from scanseg.models import ModelFolder, TrainedWeights, load_encoder
from scanseg.networks import MSVMUNet
from scanseg.papers.experiments import find_experiment
from scanseg.papers.preparation import (
    PreparedReproduction,
    is_prepared,
    open_reproduction,
    prepare_reproduction,
)
from scanseg.papers.protocols import baseline_plan, check_baselines, quick_network
from scanseg.papers.request import ReproductionRequest
from scanseg.papers.scoring import score_test_cases
from scanseg.papers.table import TestScores, make_reproduction, write_tables
from scanseg.planning import Prepared
from scanseg.runtime import RunContext, choose_device, warm_up
from scanseg.specs import Plan, Reproduction


def reproduce(
    source: Path | None,
    output: Path,
    request: ReproductionRequest,
    *,
    resume: bool,
    prepare_only: bool = False,
    stop_after_minutes: float | None = None,
    context: RunContext,
) -> Reproduction:
    """Run or resume an experiment of a paper, and write its table.

    The output folder holds everything that trainings need (setup, plan, store), so that it can be prepared on one
    machine and trained on another. It also gets a model folder for each training, and the table in four forms.

    Args:
        source: Folder of the data set, in any form that `scanseg data convert` reads. Not needed to resume.
        output: Folder to write.
        request: The experiment and how to run it.
        resume: Resume the reproduction in the output folder. Seeds and baselines may be added.
        prepare_only: Stop before the first training.
        stop_after_minutes: Stop after this time, as Ctrl-C does. `None`: no limit.
        context: Device, worker processes, progress and stopping.

    Returns:
        The table. `missing` names the missing trainings.

    Raises:
        InputError: The data set or the encoder's weights are faulty.
        UsageError: Choices exclude each other, or the device is missing.
        InterruptionError: A signal came. The state is saved, and the table is written.
        ScansegError: Trainings failed. The table of the others is written.
    """
    experiment = find_experiment(request.paper, request.data, num_axes=request.num_axes)
    baselines = check_baselines(experiment, request.baselines)
    request.check_encoder()
    # A missing device is reported now, not after the data set is converted.
    device = None if prepare_only else choose_device(context.device)
    if not resume:
        ModelFolder.require_new(output)
    make_folder(output)
    with warm_up(device):
        if not is_prepared(output):
            prepare_reproduction(experiment, source, output, request, context=context)
    work = open_reproduction(experiment, output, request)
    jobs = _jobs(work, baselines, request.all_seeds)
    try:
        if not prepare_only:
            _run(work, jobs, request, context=stop_after(stop_after_minutes, context))
    except ScansegError as error:
        table = _write(work, jobs)
        if isinstance(error, InterruptionError) and error.signal_number == OUT_OF_TIME:
            return table
        raise
    return _write(work, jobs)


def _jobs(
    work: PreparedReproduction, baselines: Sequence[str], seeds: Sequence[int]
) -> dict[str, list[TrainingJob]]:
    """Return the trainings by method, the paper's network first."""
    own = work.prepared.plan
    methods: dict[str, Plan] = {work.experiment.paper: own}
    for baseline in baselines:
        plan = baseline_plan(own, baseline)
        methods[baseline] = quick_network(plan) if work.setup.quick else plan
    return {
        method: [
            TrainingJob(
                name=f"{method} seed {seed}",
                prepared=Prepared(plan, work.prepared.store),
                folder=work.folder / method / f"seed_{seed}",
            ).with_seed(seed)
            for seed in seeds
        ]
        for method, plan in methods.items()
    }


@dataclass(frozen=True)
class _TrainAndScore:
    """A training and the scores of its test cases, as a job."""

    training: TrainingJob
    work: PreparedReproduction
    encoder_weights: Path | None

    @property
    def name(self) -> str:
        """Name for messages and progress."""
        return self.training.name

    def run(self, context: RunContext) -> None:
        """Train unless the training is finished, and score."""
        if not self.training.is_finished:
            _with_encoder(self.training, self.encoder_weights).run(context)
        folder = ModelFolder.open(self.training.folder)
        for weights in _scored_weights(self.work, folder):
            score_test_cases(
                folder,
                self.work.prepared.store,
                self.work.setup.scored_cases,
                self.work.scoring,
                weights=weights,
                instances=self.work.instances,
                context=context,
            )


def _run(
    work: PreparedReproduction,
    jobs: dict[str, list[TrainingJob]],
    request: ReproductionRequest,
    *,
    context: RunContext,
) -> None:
    """Train and score all jobs, seed by seed."""
    by_seed = zip(*jobs.values(), strict=True)
    steps = [_TrainAndScore(job, work, request.encoder_weights) for of_seed in by_seed for job in of_seed]
    run_jobs(steps, devices=(), context=context)


def _with_encoder(job: TrainingJob, encoder_weights: Path | None) -> TrainingJob:
    """Return the training with ImageNet weights in its encoder.

    Trainings without such weights, and started trainings, stay unchanged.
    """
    if encoder_weights is None or job.prepared.plan.training.frozen_encoder_epochs == 0:
        return job
    if job.is_started and ModelFolder.open(job.folder).read_setup() is not None:
        return job  # its folder names its initial weights
    path = job.folder.with_name(f"{job.folder.name}-initial")
    if not (ModelFolder.exists(path) and ModelFolder.open(path).has_weights()):
        path.parent.mkdir(parents=True, exist_ok=True)
        plan = job.prepared.plan
        initial = ModelFolder.open(path) if ModelFolder.exists(path) else ModelFolder.create(path, plan)
        torch.manual_seed(plan.training.seed)
        network = initial.build_network()
        assert isinstance(network, MSVMUNet)
        load_encoder(network, encoder_weights)
        initial.write_weights(network.state_dict())
    return replace(job, initial_weights=path)


def _scored_weights(work: PreparedReproduction, folder: ModelFolder) -> Iterator[TrainedWeights]:
    """Yield the weights to score.

    `held-out`: the exported weights. `published`: the last weights, and the best ones on the scored cases.
    """
    if work.setup.protocol == "held-out":
        record = folder.read_run()
        yield record.exported.checkpoint if record is not None and record.exported is not None else "last"
        return
    yield "last"
    if work.setup.chosen_on_scored and folder.has_weights("best"):
        yield "best"


def _write(work: PreparedReproduction, jobs: dict[str, list[TrainingJob]]) -> Reproduction:
    """Summarize the finished trainings, and write the table."""
    scores, missing = [], []
    for method, of_method in jobs.items():
        for job in of_method:
            if not job.is_finished:
                missing.append(job.name)
                continue
            folder = ModelFolder.open(job.folder)
            for weights in _scored_weights(work, folder):
                report = folder.scores.read_test(weights)
                if report is None:
                    missing.append(f"scores of {job.name}")
                    continue
                instances = folder.scores.read_test_instances(weights) if work.instances else None
                scores.append(TestScores(method, folder, weights, report, instances))
    table = make_reproduction(
        work.experiment,
        work.setup,
        work.scoring,
        scores=scores,
        train_cases=len(work.prepared.store.index.splits.folds[0].train),
        missing=tuple(missing),
    )
    write_tables(table, work.folder, measures=work.experiment.measures)
    return table
