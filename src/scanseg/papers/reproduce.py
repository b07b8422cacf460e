"""Run a paper's experiment: prepare its data, train the network and its baselines, score them, and set up the table."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from scanseg.errors import InputError, InterruptionError, UsageError
from scanseg.experiments import OUT_OF_TIME, Checkpoint, Trial, named, run_trial, watch_time
from scanseg.files import write_text
from scanseg.models import ModelFolder, load_encoder
from scanseg.networks import MSVMUNet
from scanseg.papers.data import (
    conversion_notes,
    converted,
    divide,
    few_cases,
    store_instances,
    store_protocol_data,
)
from scanseg.papers.experiments import Experiment, find_experiment
from scanseg.papers.protocols import (
    Optimizer,
    ProtocolChoices,
    baseline_plan,
    check_baselines,
    protocol_plan,
    quick_network,
)
from scanseg.papers.scoring import Scoring, score_trial
from scanseg.papers.table import TrialScores, make_reproduction, write_tables
from scanseg.preprocessing import Store
from scanseg.progress import ProgressCallback, ignore_progress
from scanseg.runtime import RunContext, choose_device, choose_workers, warm_up
from scanseg.settings import apply_settings
from scanseg.specs import Paper, Plan, Protocol, Reproduction, ReproductionSetup, Variant

SETUP, PLAN, STORE, INSTANCES, DATASET = "setup.json", "plan.json", "store", "instances", "dataset"
_SEEDS: dict[Protocol, tuple[int, ...]] = {"published": (0,), "held-out": (0, 1, 2)}
_NO_ENCODER = (
    "MSVM-UNet was trained from ImageNet weights of its encoder. Give VMamba's vssm1_tiny_0230s_ckpt_epoch_264.pth "
    "(from the releases of https://github.com/MzeroMiko/VMamba) as --encoder-weights, or say --from-scratch; the "
    "published code trains from scratch in silence where the file is missing"
)


@dataclass(frozen=True)
class ReproductionRequest:
    """What is to be reproduced, and how far."""

    paper: Paper
    data: str
    num_axes: int | None = None
    protocol: Protocol = "held-out"
    variant: Variant = "enc"
    optimizer: Optimizer = "sgd"
    encoder_weights: Path | None = None
    from_scratch: bool = False
    baselines: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    """None given: 0 as published, 0 to 2 with held-out cases."""
    quick: bool = False
    max_minutes: float | None = None
    """Of each training; its learning rate falls with the clock."""
    settings: tuple[str, ...] = ()
    device: str = "auto"
    num_workers: int | None = None


@dataclass(frozen=True)
class _Work:
    """A reproduction that is prepared."""

    experiment: Experiment
    setup: ReproductionSetup
    plan: Plan
    store: Store
    folder: Path
    request: ReproductionRequest
    stopped: Callable[[], int | None] = field(default=lambda: None)


def reproduce(
    source: Path | None,
    output: Path,
    request: ReproductionRequest,
    *,
    resume: bool,
    prepare_only: bool = False,
    stop_after_minutes: float | None = None,
    progress: ProgressCallback = ignore_progress,
) -> Reproduction:
    """Run an experiment of a paper, or go on with it, and write its table.

    The output folder holds all that trainings need (`setup.json`, `plan.json`, the store), so that it can be prepared
    on one machine and trained on another; a model folder for each training; and the table in four forms.

    Args:
        source: Folder of the data set, in any form that `scanseg data convert` knows; not needed to go on.
        output: Folder to write.
        request: What is to be reproduced.
        resume: Go on with what is in the output folder; more seeds and baselines may be asked for.
        prepare_only: Stop before the first training.
        stop_after_minutes: Stop the command after this time, as Ctrl-C does.
        progress: Called with each progress update.

    Returns:
        The table as it stands; `waiting` names what is still to be trained.

    Raises:
        InputError: The data set or the encoder's weights are faulty.
        UsageError: The options cannot be carried out together, or the device is not there.
        InterruptionError: A signal came; the state has been saved, and the table written.
    """
    experiment = find_experiment(request.paper, request.data, num_axes=request.num_axes)
    baselines = check_baselines(experiment, request.baselines)
    _check_encoder(request)
    seeds = request.seeds or _SEEDS[request.protocol]
    # A device that is not there is told of now, not after the data set is converted.
    device = None if prepare_only else choose_device(request.device)
    if not resume:
        ModelFolder.require_new(output)
    output.mkdir(parents=True, exist_ok=True)
    with warm_up(device):
        if not (output / SETUP).is_file():
            _prepare(experiment, source, output, request, progress=progress)
    work = _open(experiment, output, request)
    trials = _trials(work, baselines, seeds)
    if not prepare_only:
        with watch_time(stop_after_minutes) as stopped:
            interruption = _run(replace(work, stopped=stopped), trials, progress=progress)
            if interruption is not None and interruption.signal_number != OUT_OF_TIME:
                _write(work, trials)
                raise interruption
    return _write(work, trials)


def _check_encoder(request: ReproductionRequest) -> None:
    """Refuse to train MSVM-UNet from scratch in silence."""
    if request.paper != "msvm-unet":
        if request.encoder_weights is not None or request.from_scratch:
            raise UsageError(
                f"{request.paper} has no encoder with weights; leave --encoder-weights, --from-scratch out"
            )
        return
    if request.encoder_weights is None and not request.from_scratch:
        raise UsageError(_NO_ENCODER)
    if request.encoder_weights is not None and (request.from_scratch or request.quick):
        other = "--from-scratch" if request.from_scratch else "--quick, whose encoder is smaller"
        raise UsageError(f"--encoder-weights and {other} exclude each other; leave one out")
    if request.encoder_weights is not None and not request.encoder_weights.is_file():
        raise InputError(f"{request.encoder_weights}: no such file. {_NO_ENCODER}.")


def _prepare(
    experiment: Experiment,
    source: Path | None,
    output: Path,
    request: ReproductionRequest,
    *,
    progress: ProgressCallback,
) -> None:
    """Convert, plan and preprocess; the setup is written last."""
    if source is None:
        raise UsageError(f"{output} holds no reproduction to go on with; give the folder of {request.data}")
    workers = request.num_workers
    dataset = converted(
        request.data, source, output / DATASET, context=RunContext(num_workers=workers, progress=progress)
    )
    data = divide(dataset, paper=request.paper, protocol=request.protocol)
    if request.quick:
        data = few_cases(data)
    choices = ProtocolChoices(
        protocol=request.protocol,
        variant=request.variant,
        optimizer=request.optimizer,
        with_encoder=request.encoder_weights is not None,
        choose_best=not data.chosen_on_scored,
        quick=request.quick,
        settings=(
            *((f"training.max_minutes={request.max_minutes}",) if request.max_minutes is not None else ()),
            *request.settings,
        ),
    )
    plan = protocol_plan(
        experiment, dataset, choices, context=RunContext(num_workers=workers, progress=progress)
    )
    store_protocol_data(
        data, plan, output / STORE, context=RunContext(num_workers=workers, progress=progress)
    )
    if experiment.published.instances:
        store_instances(data, output / INSTANCES)
    encoder = ""
    if request.paper == "msvm-unet":
        encoder = "from scratch" if request.from_scratch else f"ImageNet weights {request.encoder_weights}"
    setup = ReproductionSetup(
        paper=request.paper,
        data=request.data,
        num_axes=experiment.num_axes,
        protocol=request.protocol,
        variant=request.variant if request.paper == "xlstm-unet" else None,
        quick=request.quick,
        encoder=encoder,
        scored_cases=data.scored,
        scored=data.description,
        chosen_on_scored=data.chosen_on_scored,
        notes=conversion_notes(dataset),
    )
    write_text(output / PLAN, plan.to_json())
    write_text(output / SETUP, setup.to_json())


def _open(experiment: Experiment, output: Path, request: ReproductionRequest) -> _Work:
    """Open what was prepared; refuse to go on as another reproduction."""
    setup = ReproductionSetup.read(output / SETUP)
    asked = {
        "paper": request.paper,
        "data": request.data,
        "num_axes": experiment.num_axes,
        "protocol": request.protocol,
        "variant": request.variant if request.paper == "xlstm-unet" else None,
        "quick": request.quick,
    }
    there = setup.model_dump()
    faults = [
        f"{name} is {there[name]}, not {value}" for name, value in asked.items() if there[name] != value
    ]
    if faults:
        raise UsageError(f"{output} holds a reproduction where {'; '.join(faults)}; choose another output")
    return _Work(
        experiment=experiment,
        setup=setup,
        plan=Plan.read(output / PLAN),
        store=Store.open(output / STORE),
        folder=output,
        request=request,
    )


def _trials(work: _Work, baselines: Sequence[str], seeds: Sequence[int]) -> dict[str, list[Trial]]:
    """Return the trainings by method, the paper's own network first."""
    methods: dict[str, Plan] = {work.experiment.paper: work.plan}
    for baseline in baselines:
        plan = baseline_plan(work.plan, baseline)
        methods[baseline] = quick_network(plan) if work.setup.quick else plan
    return {
        method: [
            Trial(
                name=f"{method} seed {seed}",
                plan=apply_settings(plan, (f"training.seed={seed}",)),
                folder=work.folder / method / f"seed_{seed}",
            )
            for seed in seeds
        ]
        for method, plan in methods.items()
    }


def _run(
    work: _Work, trials: dict[str, list[Trial]], *, progress: ProgressCallback
) -> InterruptionError | None:
    """Train and score all trials, first all methods with the first seed; return what stopped it, if something did."""
    by_seed = zip(*trials.values(), strict=True)
    try:
        for trial in (trial for of_seed in by_seed for trial in of_seed):
            hear = named(progress, trial.name)
            run_trial(
                _with_encoder(work, trial),
                work.store,
                context=RunContext(
                    device=work.request.device,
                    num_workers=choose_workers(work.request.num_workers),
                    should_stop=work.stopped,
                    progress=hear,
                ),
            )
            for checkpoint in _checkpoints(work, trial):
                score_trial(
                    trial,
                    work.store,
                    work.setup.scored_cases,
                    _scoring(work),
                    checkpoint=checkpoint,
                    instances=work.folder / INSTANCES if _scoring(work).instances else None,
                    context=RunContext(device=work.request.device, should_stop=work.stopped, progress=hear),
                )
    except InterruptionError as error:
        return error
    return None


def _scoring(work: _Work) -> Scoring:
    """Return how the protocol scores."""
    return work.experiment.published if work.setup.protocol == "published" else work.experiment.held_out


def _with_encoder(work: _Work, trial: Trial) -> Trial:
    """Return a training that begins with ImageNet weights in its encoder, if it shall."""
    path = work.request.encoder_weights
    if path is None or trial.is_done or trial.plan.training.frozen_encoder_epochs == 0:
        return trial
    folder = trial.folder.with_name(f"{trial.folder.name}-initial")
    if not (folder / "model.safetensors").is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        initial = ModelFolder.open(folder) if folder.is_dir() else ModelFolder.create(folder, trial.plan)
        torch.manual_seed(trial.plan.training.seed)
        network = initial.build_network()
        assert isinstance(network, MSVMUNet)
        load_encoder(network, path)
        initial.write_weights(network.state_dict())
    return replace(trial, initial_weights=folder)


def _checkpoints(work: _Work, trial: Trial) -> Iterator[Checkpoint]:
    """Give the weights that are scored: as published the last and those best on the scored cases, else the exported."""
    if work.setup.protocol == "held-out":
        record = ModelFolder.open(trial.folder).read_run()
        yield record.exported.checkpoint if record is not None and record.exported is not None else "last"
        return
    yield "last"
    if work.setup.chosen_on_scored and (trial.folder / "best.safetensors").is_file():
        yield "best"


def _write(work: _Work, trials: dict[str, list[Trial]]) -> Reproduction:
    """Put together what has been scored, and write the table."""
    scores, waiting = [], []
    for method, of_method in trials.items():
        for trial in of_method:
            if not trial.is_done:
                waiting.append(trial.name)
                continue
            for checkpoint in _checkpoints(work, trial):
                if not (trial.folder / f"test-{checkpoint}.json").is_file():
                    waiting.append(f"scores of {trial.name}")
                    continue
                report, instances = score_trial(
                    trial,
                    work.store,
                    work.setup.scored_cases,
                    _scoring(work),
                    checkpoint=checkpoint,
                    instances=work.folder / INSTANCES if _scoring(work).instances else None,
                    context=RunContext(
                        device=work.request.device, should_stop=lambda: None, progress=ignore_progress
                    ),
                )
                scores.append(TrialScores(method, trial, checkpoint, report, instances))
    table = make_reproduction(
        work.experiment,
        work.setup,
        _scoring(work),
        scores=scores,
        train_cases=len(work.store.index.splits.folds[0].train),
        waiting=tuple(waiting),
    )
    write_tables(table, work.folder, measures=work.experiment.measures)
    return table
