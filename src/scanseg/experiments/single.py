"""Train one network from a data set or a plan."""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from scanseg.errors import UsageError
from scanseg.experiments.job import TrainingJob, check_resumable
from scanseg.experiments.validation_files import write_validation_files
from scanseg.messages import counted
from scanseg.models import ModelFolder
from scanseg.planning import PlanRequest, TrainingSource, find_plan, open_raw, prepare_store
from scanseg.progress import WarningCollector, ignore_progress
from scanseg.runtime import RunContext, join_processes, keep_workers, warm_up, watch_signals
from scanseg.settings import apply_settings
from scanseg.specs import Plan
from scanseg.training import (
    FoldChoice,
    TrainingResult,
    check_encoder_weights,
    choose_fold,
    compiled_early,
    expect_compiling,
)

_STORES = "scanseg-stores"


def default_stores(output: Path) -> Path:
    """Return the default folder of stores, which is beside the output.

    Args:
        output: Folder of the model, cross-validation or comparison.
    """
    return output.parent / _STORES


def train_model(
    source: TrainingSource,
    output: Path,
    request: PlanRequest,
    *,
    stores: Path | None,
    fold: FoldChoice | None,
    resume: bool,
    keep_predictions: bool,
    context: RunContext,
    encoder_weights: Path | None = None,
) -> TrainingResult:
    """Train a network and score its validation cases. See `scanseg.train`.

    Args:
        source: Data set or plan.
        output: Model folder to write or to resume.
        request: Recipe, initial weights and settings.
        stores: Folder of stores. `None`: beside the output.
        fold: Number of the fold, or `all`. `None`: 0, or the fold of the resumed training.
        resume: Resume the training in the output folder.
        keep_predictions: Keep the label maps of the validation cases.
        context: Device, worker processes, progress and stopping.
        encoder_weights: File of weights for the encoder of an MSVM-UNet. `None`: random weights.
    """
    with join_processes(context.device) as (distributed, device):
        context = replace(context, device=str(device), distributed=distributed)
        if not distributed.is_main_process:
            context = context.with_progress(ignore_progress)
        collector = WarningCollector(context.progress)
        context = context.with_progress(collector)
        # The worker processes end before the wait for the kernels.
        with warm_up(device), ExitStack() as compiling:
            job = distributed.on_main_process(
                lambda: _prepare_job(
                    source,
                    output,
                    request,
                    stores=default_stores(output) if stores is None else stores,
                    fold=fold,
                    resume=resume,
                    encoder_weights=encoder_weights,
                    compiling=compiling,
                    context=context,
                )
            )
        should_stop, workers = context.should_stop, -(-context.workers // distributed.world_size)
        with watch_signals() as signalled:
            context = replace(context, num_workers=workers, should_stop=lambda: signalled() or should_stop())
            job = replace(job, keep_predictions=keep_predictions, warnings=tuple(collector.warnings))
            result = job.run(context)
            if keep_predictions and distributed.is_main_process:
                folder = ModelFolder.open(output)
                record = folder.read_run()
                cases = () if record is None else record.validation_cases
                write_validation_files(
                    folder, open_raw(job.prepared.plan, source), job.prepared.store, cases, context=context
                )
            return replace(result, warnings=tuple(collector.warnings))


@keep_workers()
def _prepare_job(
    source: TrainingSource,
    output: Path,
    request: PlanRequest,
    *,
    stores: Path,
    fold: FoldChoice | None,
    resume: bool,
    encoder_weights: Path | None,
    compiling: ExitStack,
    context: RunContext,
) -> TrainingJob:
    """Make or open plan and store, and check the choices.

    The kernels are compiled until the end of `compiling`.
    """
    if request.like is not None and encoder_weights is not None:
        raise UsageError("encoder weights and initial weights exclude each other. Leave one out.")
    expect_compiling(context)
    initial = request.like or encoder_weights
    # A training that was killed before its plan was written starts again.
    if resume and not ModelFolder.is_empty(output):
        folder = ModelFolder.open(output)
        plan = apply_settings(folder.plan, request.settings)
        check_resumable(
            folder,
            plan,
            fold=fold,
            initial_weights=initial,
            recipe=request.recipe,
            size=request.size,
            may_change_length=True,
        )
        _check_length(folder, plan)
    else:
        ModelFolder.require_new(output)
        plan = find_plan(source, request, context=context)
        fold = 0 if fold is None else fold
    _check_batch(plan, context)
    if encoder_weights is not None:
        check_encoder_weights(plan, encoder_weights)
    compiling.enter_context(compiled_early(plan, context=context))
    prepared = prepare_store(plan, source, stores, context=context)
    if not ModelFolder.exists(output) and fold is not None:
        choose_fold(prepared.store, fold)
    return TrainingJob(
        name=f"the training in {output}",
        prepared=prepared,
        folder=output,
        fold=fold,
        initial_weights=initial,
        may_change_length=resume,
    )


def _check_length(folder: ModelFolder, plan: Plan) -> None:
    """Check that a finished training with new limits goes on.

    Raises:
        UsageError: The new limits are reached already.
    """
    record, training = folder.read_run(), plan.training
    is_changed = training != folder.plan.training
    if not is_changed or record is None or record.status != "finished":
        return
    reached, before = [], folder.plan.training
    ended_by_clock = before.max_minutes is not None and record.training_seconds >= 60 * before.max_minutes
    if training.early_stop is not None and record.epochs_done < before.epochs and not ended_by_clock:
        reached.append("training.early_stop")
    if record.epochs_done >= training.epochs:
        reached.append(f"training.epochs={training.epochs}")
    if training.max_minutes is not None and record.training_seconds >= 60 * training.max_minutes:
        reached.append(f"training.max_minutes={training.max_minutes:g}")
    if reached:
        raise UsageError(
            f"{folder.path}: {' and '.join(reached)}: the training is finished with "
            f"{counted(record.epochs_done, 'epoch')} in {record.training_seconds / 60:.1f} minutes. Give higher "
            f"limits by --epochs and --max-minutes."
        )


def _check_batch(plan: Plan, context: RunContext) -> None:
    """Check that the distributed processes can share the plan's batches."""
    context.distributed.check_batch(
        plan.sampling.batch_size, accumulation_steps=plan.training.accumulation_steps
    )
