"""The training loop: from a plan and a store to a model folder."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import JsonValue

from scanseg.data.batches import Batch, make_batch
from scanseg.data.resident import hold_cases, resident_bytes
from scanseg.data.sampling import TRAINING_STREAM, iterations_per_pass
from scanseg.data.store import Store
from scanseg.errors import InputError, ScansegError
from scanseg.models import ModelFolder
from scanseg.models.device import autocast_dtype
from scanseg.progress import Progress, ProgressListener, ignore_progress
from scanseg.specs import Fold
from scanseg.training.ahead import BatchesAhead
from scanseg.training.cases import FoldChoice, choose_cases
from scanseg.training.fit import Fit
from scanseg.training.memory import explained_memory
from scanseg.training.records import first_record
from scanseg.training.schedules import learning_rate
from scanseg.training.signals import InterruptionError, raise_if_stopped
from scanseg.training.validation import patch_dice, validate


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


def train(
    folder: ModelFolder,
    store: Store,
    *,
    fold: FoldChoice | None,
    device: torch.device,
    stopped: Callable[[], int | None] = lambda: None,
    listen: ProgressListener = ignore_progress,
) -> TrainingResult:
    """Train the network of a model folder's plan, from its last checkpoint if it has one, to the end.

    Args:
        folder: The model folder; its plan says how.
        store: The preprocessed cases.
        fold: Which cases to train on, see `choose_fold`; None: those with which the training began.
        device: Where to train.
        stopped: Gives the number of a signal once the training shall stop; asked after every iteration and case.
        listen: Told of progress.

    Raises:
        InterruptionError: `stopped` gave a signal; the state has been saved.
        InputError: The store does not fit the plan, or lacks cases with which the training began.
        UsageError: There is no such fold, or the training began with another.
        ScansegError: The loss is no longer a number, or the device's memory does not suffice.
    """
    if store.index.preprocessing != folder.plan.preprocessing or store.index.dataset != folder.plan.dataset:
        raise InputError(f"{store.folder} was made for another plan. Choose another store, or leave it out.")
    fold, cases = choose_cases(folder, store, fold=fold)
    with _fast_arithmetic(device, allow_tf32=folder.plan.training.allow_tf32):
        run = _Run(folder, store, cases, fold=fold, device=device, stopped=stopped, listen=listen)
        for _ in run.epochs():
            pass
        run.finish()
        report = validate(
            run.fit.network, folder, store, cases.validation, device=device, stopped=stopped, listen=listen
        )
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
        stopped: Callable[[], int | None],
        listen: ProgressListener,
    ) -> None:
        self._folder, self._plan, self._cases = folder, folder.plan, cases
        self._device, self._stopped, self._listen = device, stopped, listen
        training = self._plan.training
        torch.manual_seed(training.seed)
        dtype = autocast_dtype(device, training.precision)
        network = folder.build_network()
        self._record = first_record(network, cases, fold=fold, device=device, autocast_dtype=dtype)
        if folder.read_run() is None:
            folder.write_run(self._record)
        self.fit = Fit(self._plan, network.to(device), device=device, autocast_dtype=dtype)
        checkpoint = folder.read_checkpoint()
        if checkpoint is not None:
            self.fit.restore(checkpoint)
        self._load(store)
        self._batches = BatchesAhead(self._make_batch, device=device)
        self._last_checkpoint = time.monotonic()
        folder.keep_metrics(self.fit.iterations_done)
        self._write_run("running")

    def _load(self, store: Store) -> None:
        """Read the cases into memory."""
        training = self._plan.training
        held_on = self._choose_residence(store)
        hold = partial(hold_cases, store, device=held_on, seed=training.seed, listen=self._listen_to_loading)
        with explained_memory("all cases", advice="--set training.resident=host", device=held_on):
            self._train_cases = hold(self._cases.train)
            self._validation_cases = hold(self._cases.validation) if self._cases.validation else None
        self._iterations = training.iterations_per_epoch or iterations_per_pass(
            self._train_cases, self._plan.sampling
        )

    def _listen_to_loading(self, progress: Progress) -> None:
        """Tell of a case that is loaded, or stop."""
        self._listen(progress)
        if self._stopped() is not None and self.fit.iterations_done == 0:
            self._folder.write_run(self._record.model_copy(update={"status": "interrupted"}))
        raise_if_stopped(self._stopped, "stopped while cases were loaded; go on with --resume")

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

    def epochs(self) -> Iterator[int]:
        """Train epoch by epoch; yields the number of each after it is done."""
        while self._progress < 1:
            losses, lr = self._train_epoch()
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
        self._folder.write_weights(self.fit.judged.state_dict())
        self._save("finished")

    def _train_epoch(self) -> tuple[list[torch.Tensor], float]:
        """Take steps to the end of the epoch, or of the time; return the losses and the last learning rate."""
        training = self._plan.training
        losses: list[torch.Tensor] = []
        lr = 0.0
        end = (self.fit.iterations_done // self._iterations + 1) * self._iterations
        before, begin = self.fit.seconds, time.monotonic()
        while self.fit.iterations_done < end and (not losses or self._progress < 1):
            lr = learning_rate(training.schedule, lr=training.optimizer.lr, progress=self._progress)
            losses.append(self._step(lr))
            self.fit.seconds = before + time.monotonic() - begin
            self._report(losses)
            if (number := self._stopped()) is not None:
                self._save("interrupted")
                raise InterruptionError(
                    f"stopped after {self.fit.iterations_done} iterations; go on with --resume",
                    signal_number=number,
                )
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self.fit.seconds = before + time.monotonic() - begin
        return losses, lr

    def _step(self, lr: float) -> torch.Tensor:
        """Learn from one batch, and let the next be made meanwhile; return the loss."""
        with self._explained_memory():
            loss = self.fit.step(self._batches.take(self.fit.iterations_done), lr=lr)
            if self._device.type == "cuda":
                self._batches.prepare(self.fit.iterations_done)
        return loss

    def _explained_memory(self) -> AbstractContextManager[None]:
        """Say what to do where the memory does not suffice for a batch."""
        sampling = self._plan.sampling
        return explained_memory(
            f"a batch of {sampling.batch_size} patches of {sampling.patch_size} voxels",
            advice="a smaller --batch-size",
            device=self._device,
        )

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
        with self._explained_memory():
            return patch_dice(self.fit, self._validation_cases, self._plan, device=self._device)

    def _save(self, status: Literal["running", "interrupted", "finished"]) -> None:
        """Write a checkpoint and the run's record."""
        self._folder.write_checkpoint(self.fit.checkpoint())
        self._write_run(status)
        self._last_checkpoint = time.monotonic()

    def _write_run(self, status: Literal["running", "interrupted", "finished"]) -> None:
        """Write the run's record as it stands."""
        done = {
            "status": status,
            "epochs_done": self.epochs_done,
            "iterations_done": self.fit.iterations_done,
            "training_seconds": round(self.fit.seconds, 2),
        }
        self._folder.write_run(self._record.model_copy(update=done))

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
    """Make a GPU the current one, let it measure its convolutions and, where allowed, use TF32; then undo it."""
    if device.type != "cuda":
        yield
        return
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = (cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32)
    cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = True, allow_tf32, allow_tf32
    try:
        with torch.cuda.device(device):
            yield
    finally:
        cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = before
