"""The training loop: from a plan and a store to a model folder."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import JsonValue

from scanseg.data.batches import Batch, make_batch
from scanseg.data.resident import hold_cases, resident_bytes
from scanseg.data.sampling import TRAINING_STREAM, iterations_per_pass
from scanseg.data.store import Store
from scanseg.errors import InputError, ScansegError, UsageError
from scanseg.models import ModelFolder
from scanseg.models.device import autocast_dtype, describe_device
from scanseg.models.versions import installed_versions
from scanseg.progress import Progress, ProgressListener, ignore_progress
from scanseg.specs import Fold, RunRecord
from scanseg.training.ahead import BatchesAhead
from scanseg.training.fit import Fit
from scanseg.training.schedules import learning_rate
from scanseg.training.signals import InterruptionError
from scanseg.training.validation import patch_dice, validate

FoldChoice = int | Literal["all"]


@dataclass(frozen=True)
class TrainingResult:
    """What a finished training gives."""

    model: Path
    """The model folder."""
    epochs_done: int
    seconds: float
    """Time spent in epochs, over all resumptions."""
    scores: dict[str, float | None]
    """Mean Dice of each label over the validation cases, on the source grid; None: no case has the label."""
    mean_dice: float | None
    """Mean over labels; None: there are no validation cases."""


def choose_fold(store: Store, fold: FoldChoice) -> Fold:
    """Return the cases to train and validate on.

    Args:
        store: The store.
        fold: Number of a fold, from 0; `all` trains on every case and validates on none.

    Raises:
        UsageError: There is no such fold.
    """
    if fold == "all":
        return Fold(train=tuple(case.case for case in store.index.cases), validation=())
    folds = store.index.splits.folds
    if not 0 <= fold < len(folds):
        raise UsageError(
            f"fold {fold} does not exist: {store.index.dataset.name} has folds 0 to {len(folds) - 1} "
            f"({store.index.splits.source}); or ask for all"
        )
    return folds[fold]


def train(
    folder: ModelFolder,
    store: Store,
    *,
    fold: FoldChoice,
    device: torch.device,
    stopped: Callable[[], int | None] = lambda: None,
    listen: ProgressListener = ignore_progress,
) -> TrainingResult:
    """Train the network of a model folder's plan, from its last checkpoint if it has one, to the end.

    Args:
        folder: The model folder; its plan says how.
        store: The preprocessed cases.
        fold: Which cases to train on, see `choose_fold`.
        device: Where to train.
        stopped: Gives the number of a signal once the training shall stop; asked after every iteration.
        listen: Told of progress.

    Raises:
        InterruptionError: `stopped` gave a signal; the state has been saved.
        InputError: The store does not fit the plan.
        ScansegError: The loss is no longer a number.
    """
    if store.index.preprocessing != folder.plan.preprocessing or store.index.dataset != folder.plan.dataset:
        raise InputError(f"{store.folder} was made for another plan. Choose another store, or leave it out.")
    cases = choose_fold(store, fold)
    with _fast_arithmetic(device, allow_tf32=folder.plan.training.allow_tf32):
        run = _Run(folder, store, cases, fold=fold, device=device, listen=listen)
        for _ in run.epochs(stopped):
            pass
        run.finish()
        report = validate(run.fit.network, folder, store, cases.validation, device=device, listen=listen)
    means = report.summary.label_means() if report else {}
    return TrainingResult(
        model=folder.path,
        epochs_done=run.epochs_done,
        seconds=run.fit.seconds,
        scores=means,
        mean_dice=report.summary.mean_over_labels.dice if report else None,
    )


class _Run:
    """One training from its start, or its last checkpoint, to its end."""

    def __init__(
        self,
        folder: ModelFolder,
        store: Store,
        cases: Fold,
        *,
        fold: FoldChoice,
        device: torch.device,
        listen: ProgressListener,
    ) -> None:
        self._folder, self._plan, self._cases = folder, folder.plan, cases
        self._fold, self._device, self._listen = fold, device, listen
        training = self._plan.training
        torch.manual_seed(training.seed)
        dtype = autocast_dtype(device, training.precision)
        self._precision = "float32" if dtype is None else str(dtype).removeprefix("torch.")
        self.fit = Fit(self._plan, folder.build_network().to(device), device=device, autocast_dtype=dtype)
        held_on = self._choose_residence(store)
        self._train_cases = hold_cases(store, cases.train, device=held_on, seed=training.seed, listen=listen)
        self._validation_cases = None
        if cases.validation:
            self._validation_cases = hold_cases(
                store, cases.validation, device=held_on, seed=training.seed, listen=listen
            )
        self._batches = BatchesAhead(self._make_batch, device=device)
        self._iterations = training.iterations_per_epoch or iterations_per_pass(
            self._train_cases, self._plan.sampling
        )
        self._started = datetime.now(UTC).isoformat(timespec="seconds")
        self._last_checkpoint = time.monotonic()
        checkpoint = folder.read_checkpoint()
        if checkpoint is not None:
            self.fit.restore(checkpoint)
        folder.keep_metrics(self.fit.iterations_done)
        self._write_run("running")

    @property
    def epochs_done(self) -> int:
        """Epochs that are done, the last one possibly cut short by the clock."""
        return -(-self.fit.iterations_done // self._iterations)

    @property
    def _progress(self) -> float:
        """Part of the training that is done, by iterations or by the clock, whichever is further."""
        training = self._plan.training
        done = self.fit.iterations_done / (training.epochs * self._iterations)
        if training.max_minutes is not None:
            done = max(done, self.fit.seconds / (60 * training.max_minutes))
        return min(done, 1.0)

    def epochs(self, stopped: Callable[[], int | None]) -> Iterator[int]:
        """Train epoch by epoch; yields the number of each after it is done."""
        while self._progress < 1:
            losses, lr = self._train_epoch(stopped)
            loss = float(torch.stack(losses).mean())
            if not np.isfinite(loss):
                raise ScansegError(
                    f"the training loss is {loss} in epoch {self.epochs_done} of {self._folder.path}; a lower "
                    f"learning rate (--lr, now {self._plan.training.optimizer.lr}) or float32 "
                    f"(--set training.precision=float32) may help"
                )
            metrics: dict[str, JsonValue] = {
                "epoch": self.epochs_done,
                "iterations": self.fit.iterations_done,
                "seconds": round(self.fit.seconds, 2),
                "lr": lr,
                "loss": loss,
            }
            if self._validation_cases is not None and self._is_validated():
                metrics["validation_dice"] = {**self._patch_dice()}
            self._folder.append_metrics(metrics)
            if time.monotonic() - self._last_checkpoint >= self._plan.training.checkpoint_seconds:
                self._save("running")
            yield self.epochs_done

    def finish(self) -> None:
        """Write the weights and the last checkpoint."""
        self._folder.write_weights(self.fit.network)
        self._save("finished")

    def _train_epoch(self, stopped: Callable[[], int | None]) -> tuple[list[torch.Tensor], float]:
        """Take steps to the end of the epoch, or of the time; return the losses and the last learning rate."""
        training = self._plan.training
        losses: list[torch.Tensor] = []
        lr = 0.0
        end = (self.fit.iterations_done // self._iterations + 1) * self._iterations
        before, begin = self.fit.seconds, time.monotonic()
        while self.fit.iterations_done < end and (not losses or self._progress < 1):
            lr = learning_rate(training.schedule, lr=training.optimizer.lr, progress=self._progress)
            losses.append(self.fit.step(self._batches.take(self.fit.iterations_done), lr=lr))
            if self._device.type == "cuda":
                self._batches.prepare(self.fit.iterations_done)
            self.fit.seconds = before + time.monotonic() - begin
            self._report(losses)
            if (number := stopped()) is not None:
                self._save("interrupted")
                raise InterruptionError(
                    f"stopped after {self.fit.iterations_done} iterations; go on with --resume",
                    signal_number=number,
                )
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self.fit.seconds = before + time.monotonic() - begin
        return losses, lr

    def _make_batch(self, iteration: int) -> Batch:
        """Make the training batch of an iteration."""
        return make_batch(
            self._train_cases,
            self._plan.sampling,
            transforms=self._plan.augmentation,
            seed=self._plan.training.seed,
            stream=TRAINING_STREAM,
            iteration=iteration,
            device=self._device,
        )

    def _report(self, losses: Sequence[torch.Tensor]) -> None:
        """Tell the listener; the loss is read now and then only, since reading waits for the device."""
        total = self._plan.training.epochs * self._iterations
        if self._device.type == "cpu" or len(losses) % 25 == 1:
            self._shown_loss = float(losses[-1])
        detail = f"epoch {self.epochs_done}/{self._plan.training.epochs}, loss {self._shown_loss:.3f}"
        self._listen(Progress("training", round(self._progress * total), total, detail))

    def _is_validated(self) -> bool:
        """Whether this epoch ends with a score on validation patches."""
        return self.epochs_done % self._plan.training.validate_every == 0 or self._progress >= 1

    def _patch_dice(self) -> dict[str, float | None]:
        """Score the network on patches of the validation cases."""
        assert self._validation_cases is not None
        return patch_dice(self.fit, self._validation_cases, self._plan, device=self._device)

    def _save(self, status: Literal["running", "interrupted", "finished"]) -> None:
        """Write a checkpoint and the run's record."""
        self._folder.write_checkpoint(self.fit.checkpoint())
        self._write_run(status)
        self._last_checkpoint = time.monotonic()

    def _write_run(self, status: Literal["running", "interrupted", "finished"]) -> None:
        self._folder.write_run(
            RunRecord(
                status=status,
                fold=self._fold,
                train_cases=self._cases.train,
                validation_cases=self._cases.validation,
                device=describe_device(self._device),
                precision=self._precision,
                versions=installed_versions(),
                command=tuple(sys.argv),
                started=self._started,
                epochs_done=self.epochs_done,
                iterations_done=self.fit.iterations_done,
                training_seconds=round(self.fit.seconds, 2),
                num_parameters=sum(parameter.numel() for parameter in self.fit.network.parameters()),
            )
        )

    def _choose_residence(self, store: Store) -> torch.device:
        """Decide where the cases are held."""
        wanted = self._plan.training.resident
        if wanted == "host" or self._device.type == "cpu":
            return torch.device("cpu")
        if wanted == "auto" and self._device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self._device)
            if 2 * resident_bytes(store, (*self._cases.train, *self._cases.validation)) > free:
                return torch.device("cpu")
        return self._device


@contextmanager
def _fast_arithmetic(device: torch.device, *, allow_tf32: bool) -> Iterator[None]:
    """Let a GPU choose its convolutions by measuring and, where allowed, round products to TF32; then undo it."""
    if device.type != "cuda":
        yield
        return
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = (cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32)
    cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = True, allow_tf32, allow_tf32
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = before
