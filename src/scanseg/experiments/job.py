"""Training jobs: plan, store, fold and model folder of one training."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from scanseg.errors import InputError, InterruptionError, OtherProcessError, UsageError
from scanseg.experiments.curves import write_curves
from scanseg.experiments.train_log import log_result, write_log
from scanseg.messages import listed
from scanseg.models import ModelFolder, is_ensemble
from scanseg.planning import Prepared, check_first_stage, copy_first_stage, first_stage_stamps
from scanseg.progress import ProgressUpdate
from scanseg.runtime import RunContext, raise_if_stopped
from scanseg.settings import apply_settings, compare_settings
from scanseg.specs import Plan, TrainingSetup
from scanseg.training import FoldChoice, TrainingResult, choose_fold, train

_SECONDS_BETWEEN_FIGURES = 300.0
"""The curves of a running training are drawn again after this time."""


@dataclass(frozen=True)
class TrainingJob:
    """One training with everything that defines it.

    `scanseg train` runs one job. Cross-validations, comparisons and reproductions build many and run them with
    `scanseg.experiments.run_jobs`. A job can be pickled and run in another process.
    """

    name: str
    """Name for messages and progress, such as `fold 2`."""
    prepared: Prepared
    folder: Path
    """Model folder to write, or to resume."""
    fold: FoldChoice | None = 0
    """Number of the fold, or `all` for all cases. `None`: the fold of the resumed training."""
    initial_weights: Path | None = None
    """Model folder of the initial weights, or file of encoder weights. `None`: random weights."""
    may_change_length: bool = False
    """The resumed training takes over epochs and time limit of the plan."""
    keep_predictions: bool = False
    """Keep the label maps of the validation cases in the model folder."""
    warnings: tuple[str, ...] = ()
    """Warnings of its preparation, for its log."""

    @property
    def is_started(self) -> bool:
        """Whether the model folder exists."""
        return ModelFolder.exists(self.folder)

    @property
    def is_finished(self) -> bool:
        """Whether the training is finished and scored on the current cases."""
        if not self.is_started:
            return False
        folder = ModelFolder.open(self.folder)
        return folder.status(
            with_predictions=self.keep_predictions
        ) == "finished" and folder.scores.has_current_validation(self.prepared.store)

    @property
    def has_other_cases(self) -> bool:
        """Whether the training started with other cases than its fold has now."""
        record = ModelFolder.open(self.folder).read_run() if self.is_started else None
        if record is None or self.fold is None:
            return False
        fold = choose_fold(self.prepared.store, self.fold)
        return (record.train_cases, record.validation_cases) != (fold.train, fold.validation)

    def with_seed(self, seed: int) -> "TrainingJob":
        """Return the same job with another random seed.

        Args:
            seed: The seed.
        """
        plan = apply_settings(self.prepared.plan, (f"training.seed={seed}",))
        return replace(self, prepared=replace(self.prepared, plan=plan))

    def check_resumable(self) -> None:
        """Check that the training can be resumed with this job.

        Raises:
            UsageError: Plan, fold or initial weights differ. The message lists all differences.
        """
        check_resumable(
            ModelFolder.open(self.folder),
            self.prepared.plan,
            fold=self.fold,
            initial_weights=self.initial_weights,
            may_change_length=self.may_change_length,
        )

    def run(self, context: RunContext) -> TrainingResult:
        """Start or resume the training, and score its validation cases.

        Args:
            context: Device, worker processes, progress, stopping and distributed processes.

        Raises:
            InterruptionError: A signal came. The state has been saved.
            UsageError: The folder holds another training, or is in use.
            InputError: Store, checkpoint or initial weights do not fit.
            ScansegError: The loss is not finite, or memory ran out.
        """
        raise_if_stopped(context.should_stop, f"{self.name} is not trained yet. Continue with --resume")
        folder = context.distributed.on_main_process(self._open_folder)
        with (
            _one_report(context),
            write_log(folder, context, warnings=self.warnings) as logged,
            _draw_curves(folder, logged) as drawn,
        ):
            result = train(
                folder,
                self.prepared.store,
                fold=self.fold,
                initial_weights=self.initial_weights,
                keep_predictions=self.keep_predictions,
                context=drawn,
            )
        if context.distributed.is_main_process:
            log_result(folder, result)
        return result

    def _open_folder(self) -> ModelFolder:
        """Open the model folder of a resumed training, or create it."""
        if self.is_started:
            self.check_resumable()
            folder = ModelFolder.open(self.folder)
            if folder.plan.training != self.prepared.plan.training:
                lock = folder.claim()
                try:
                    folder = folder.replace_plan(_with_length_of(self.prepared.plan, folder.plan))
                finally:
                    lock.release()
            if folder.plan.cascade is not None:
                check_first_stage(folder)
                if not is_ensemble(folder.first_stage_path):
                    copy_first_stage(folder)  # the copy was interrupted
            return folder
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        plan = self.prepared.plan
        setup = TrainingSetup(
            fold=0 if self.fold is None else self.fold,
            initial_weights=None if self.initial_weights is None else str(self.initial_weights),
            first_stage=None if plan.cascade is None else first_stage_stamps(plan),
        )
        folder = ModelFolder.create(self.folder, plan, setup)
        if folder.plan.cascade is not None:
            copy_first_stage(folder)
        return folder


def check_same_folds(jobs: Sequence[TrainingJob]) -> None:
    """Check that started and new trainings are scored on the same folds.

    A started training keeps its cases, even if the splits have changed or the data set has grown.

    Args:
        jobs: The trainings of an experiment, with their folds.

    Raises:
        InputError: Some trainings have the folds of the data set, and others had earlier ones.
    """
    changed = [job.name for job in jobs if job.has_other_cases]
    if changed and len(changed) < len(jobs):
        raise InputError(
            f"{listed(changed)}: trained on other folds than the data set has now. Restore its cases and splits, or "
            f"choose another output folder."
        )


def check_resumable(
    folder: ModelFolder,
    plan: Plan,
    *,
    fold: FoldChoice | None,
    initial_weights: Path | None,
    recipe: str | None = None,
    size: str | None = None,
    may_change_length: bool = False,
) -> None:
    """Check that a training can be resumed with these choices.

    Args:
        folder: The model folder.
        plan: The requested plan.
        fold: The requested fold. `None`: no choice.
        initial_weights: The requested initial weights. `None`: no choice.
        recipe: The requested recipe. `None`: no choice.
        size: The requested size of the plan. `None`: no choice.
        may_change_length: Other epochs and another time limit are accepted.

    Raises:
        UsageError: The choices differ. The message lists all differences.
    """
    compared = _with_length_of(folder.plan, plan) if may_change_length else plan
    faults = compare_settings(folder.plan, compared)
    if recipe not in (None, folder.plan.recipe):
        faults.append(f"recipe is {folder.plan.recipe}, not {recipe}")
    if size not in (None, folder.plan.size):
        faults.append(f"size is {folder.plan.size}, not {size}")
    setup = folder.read_setup()
    if setup is not None and fold not in (None, setup.fold):
        faults.append(f"fold is {setup.fold}, not {fold}")
    if setup is not None and initial_weights is not None:
        recorded = None if setup.initial_weights is None else Path(setup.initial_weights)
        if recorded != initial_weights:
            faults.append(f"initial weights are {recorded or 'random'}, not {initial_weights}")
    if faults:
        raise UsageError(
            f"{folder.path} holds a training where {'; '.join(faults)}. Leave these options out to resume it, or "
            f"choose another folder."
        )


def _with_length_of(length: Plan, plan: Plan) -> Plan:
    """Return a plan with the epochs and the time limit of another.

    Args:
        length: The plan with the epochs and the time limit.
        plan: The other settings.
    """
    limits = {"epochs": length.training.epochs, "max_minutes": length.training.max_minutes}
    return plan.model_copy(update={"training": plan.training.model_copy(update=limits)})


@contextmanager
def _one_report(context: RunContext) -> Iterator[None]:
    """Report a stop on the main process only."""
    try:
        yield
    except InterruptionError as error:
        if context.distributed.is_main_process:
            raise
        raise OtherProcessError(str(error)) from error


@contextmanager
def _draw_curves(folder: ModelFolder, context: RunContext) -> Iterator[RunContext]:
    """Draw the curves of a training repeatedly and at its end.

    They are also drawn if a signal stops the training.

    Yields:
        The context for the training.
    """
    if not context.distributed.is_main_process:
        yield context
        return
    last_drawn = time.monotonic()

    def draw_if_due(update: ProgressUpdate) -> None:
        nonlocal last_drawn
        context.progress(update)
        if time.monotonic() - last_drawn > _SECONDS_BETWEEN_FIGURES:
            write_curves(folder)
            last_drawn = time.monotonic()

    try:
        yield context.with_progress(draw_if_due)
    except InterruptionError:
        write_curves(folder)
        raise
    write_curves(folder)
