"""One training from its start, or its last checkpoint, to its end."""

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import JsonValue

from scanseg.batches import (
    TRAINING_STREAM,
    Batch,
    BatchShard,
    DiskCases,
    TrainingCases,
    iterations_per_pass,
    make_batches,
    num_batches_at_once,
    predicted_of,
)
from scanseg.errors import InterruptionError, ScansegError, UsageError
from scanseg.models import ModelFolder
from scanseg.preprocessing import Store
from scanseg.progress import ProgressUpdate
from scanseg.runtime import (
    RunContext,
    autocast_dtype,
    explained_memory,
    memory_for,
    raise_if_stopped,
)
from scanseg.specs import ExportedWeights, Fold, RunRecord, TrainingSpec
from scanseg.training.case_storage import choose_case_storage, load_cases
from scanseg.training.folds import FoldChoice
from scanseg.training.initial_weights import load_initial_weights
from scanseg.training.prefetch import BatchPrefetcher
from scanseg.training.progress_tracker import ProgressTracker, mean_dice
from scanseg.training.records import first_record, read_state
from scanseg.training.schedules import learning_rate
from scanseg.training.step import TrainingStep
from scanseg.training.tensorboard import TensorBoardLog
from scanseg.training.validation import patch_dice

Status = Literal["running", "interrupted", "finished"]


class TrainingLoop:
    """A training that goes on epoch by epoch; the first of its processes writes the model folder."""

    def __init__(
        self,
        folder: ModelFolder,
        store: Store,
        cases: Fold,
        *,
        fold: FoldChoice,
        initial_weights: Path | None,
        context: RunContext,
    ) -> None:
        """Go to where the training was left, or begin it; read the cases. See `scanseg.training.train`."""
        self._folder, self._plan, self._cases = folder, folder.plan, cases
        self._context, self._device, self._distributed = context, context.torch_device, context.distributed
        self._shard = BatchShard(context.distributed.rank, context.distributed.world_size)
        _check_validation(folder.plan.training, cases, fold=fold)
        self._shown_loss: float | None = None
        self._shown_dice: float | None = None
        self._tracker = ProgressTracker(self._plan.training.early_stop)
        self._begin(fold, initial_weights)
        self._load(store)
        at_once = num_batches_at_once(
            self._train_cases, self._plan.sampling, device=self._device, shard=self._shard
        )
        self._batches = BatchPrefetcher(self._make_batches, device=self._device, at_once=at_once)
        self._last_checkpoint = self._began = time.monotonic()
        self._log: TensorBoardLog | None = None
        if context.distributed.is_main_process:
            folder.keep_metrics(self._tracker.epochs_done)
            self._log = TensorBoardLog(folder.path, iterations_done=self.step.iterations_done)
        self._write_run("running")

    def _begin(self, fold: FoldChoice, initial_weights: Path | None) -> None:
        """Build the network and put the last checkpoint, or the weights to begin with, into it."""
        training = self._plan.training
        torch.manual_seed(training.seed)
        dtype = autocast_dtype(self._device, training.precision)
        checkpoint, begun = self._distributed.on_main_process(lambda: read_state(self._folder))
        network = self._folder.build_network()
        source = Path(begun.initial_weights) if begun and begun.initial_weights else initial_weights
        taken = None
        if source is not None and checkpoint is None:
            taken = load_initial_weights(network, self._plan, source)
        self._record: RunRecord = first_record(
            network, self._cases, fold=fold, device=self._device, autocast_dtype=dtype
        ).model_copy(
            update={
                "num_processes": self._distributed.world_size,
                "initial_weights": str(source) if source else None,
                "renewed_parameters": taken.renewed if taken else begun.renewed_parameters if begun else (),
            }
        )
        if begun is None and self._distributed.is_main_process:
            self._folder.write_run(self._record)
        with memory_for("the network and what its training keeps of it", device=self._device):
            self.step = TrainingStep(
                self._plan,
                network,
                context=self._context,
                autocast_dtype=dtype,
            )
            if checkpoint is not None:
                self.step.restore(checkpoint)
        if checkpoint is not None:
            self._tracker.restore(checkpoint.state.progress, checkpoint.best, device=self._device)

    def _load(self, store: Store) -> None:
        """Bring the cases to where they are held."""
        training = self._plan.training
        storage = choose_case_storage(
            training.case_storage,
            store,
            (*self._cases.train, *self._cases.validation),
            device=self._device,
            num_sharing=self._distributed.local_world_size,
        )
        self._record = self._record.model_copy(update={"case_storage": storage})

        def bring(cases: Sequence[str]) -> TrainingCases:
            return load_cases(
                store,
                cases,
                storage,
                seed=training.seed,
                context=self._context.with_progress(self._report_loading),
            )

        self._train_cases = bring(self._cases.train)
        self._validation_cases = bring(self._cases.validation) if self._cases.validation else None
        self._iterations = training.iterations_per_epoch or iterations_per_pass(
            self._train_cases, self._plan.sampling
        )

    def _report_loading(self, update: ProgressUpdate) -> None:
        """Tell of a case that is loaded, or stop."""
        self._context.progress(update)
        if (
            self._context.should_stop() is not None
            and self.step.iterations_done == 0
            and self._distributed.is_main_process
        ):
            self._folder.write_run(self._record.model_copy(update={"status": "interrupted"}))
        raise_if_stopped(self._context.should_stop, "stopped while cases were loaded; go on with --resume")

    def close(self) -> None:
        """End the processes that read cases, and close the log."""
        if self._log is not None:
            self._log.close()
        for cases in (self._train_cases, self._validation_cases):
            if isinstance(cases, DiskCases):
                cases.close()

    @property
    def record(self) -> RunRecord:
        """The run as it was last written."""
        return self._record

    @property
    def has_best(self) -> bool:
        """Whether the weights that were best on validation patches are known."""
        return self._distributed.on_main_process(lambda: self._tracker.best_weights is not None)

    @property
    def epochs_done(self) -> int:
        """Epochs that are done, the last one possibly cut short by the clock."""
        return -(-self.step.iterations_done // self._iterations)

    @property
    def _fraction_done(self) -> float:
        """Part of the training that is done, by iterations or by the clock, whichever is further."""
        training = self._plan.training
        done = self.step.iterations_done / (training.epochs * self._iterations)
        if training.max_minutes is not None:
            done = max(done, self.step.seconds / (60 * training.max_minutes))
        return min(done, 1.0)

    def epochs(self) -> Iterator[int]:
        """Train epoch by epoch; yields the number of each after it is done.

        The clock runs on while patches are scored and checkpoints are written.
        """
        self._began = time.monotonic() - self.step.seconds
        while (self._fraction_done < 1 or self._tracker.losses) and not self._tracker.is_exhausted:
            lr = self._train_epoch()
            loss = float(np.mean(self._shared_losses()))
            metrics: dict[str, JsonValue] = {
                "epoch": self.epochs_done,
                "iterations": self.step.iterations_done,
                "seconds": round(self.step.seconds, 2),
                "lr": lr,
                "loss": loss,
            }
            dice = None
            if self._validation_cases is not None and self._is_validated():
                scores = self._patch_dice()
                metrics["validation_dice"] = {**scores}
                self._shown_dice = dice = mean_dice(scores)
            self._tracker.end_epoch(
                loss=loss, dice=dice, iterations=self.step.iterations_done, network=self.step.eval_network
            )
            if self._log is not None:
                self._folder.append_metrics(metrics)
                self._log.write(metrics)
            if self._is_checkpoint_due():
                self._save("running")
            yield self.epochs_done

    def finish(self) -> None:
        """Write the weights, those that are exported and the others, and the last checkpoint."""
        best, progress = self._tracker.best_weights, self._tracker
        exports_best = self._plan.training.export == "best" and best is not None
        last = self.step.eval_network.state_dict()
        is_both = progress.best_iterations == self.step.iterations_done
        self._record = self._record.model_copy(
            update={
                "exported": ExportedWeights(
                    checkpoint="best" if exports_best else "last",
                    iterations=(exports_best and progress.best_iterations) or self.step.iterations_done,
                    ema=self.step.ema is not None,
                    patch_dice=progress.best_dice if exports_best or is_both else None,
                )
            }
        )
        if self._distributed.is_main_process:
            if best is not None:
                self._folder.write_weights(last if exports_best else best, "last" if exports_best else "best")
            self._folder.write_weights(best if exports_best and best is not None else last)
        self._save("finished")

    def _train_epoch(self) -> float:
        """Take steps to the end of the epoch, or of the time; return the last learning rate."""
        training, losses = self._plan.training, self._tracker.losses
        lr = learning_rate(training.schedule, lr=training.optimizer.lr, progress=self._fraction_done)
        end = (self._tracker.epochs_done + 1) * self._iterations
        while self.step.iterations_done < end and (not losses or self._fraction_done < 1):
            lr = learning_rate(training.schedule, lr=training.optimizer.lr, progress=self._fraction_done)
            losses.append(self._step(lr))
            number = self._agree()
            self._report(losses)
            if number is not None:
                self._save("interrupted")
                raise InterruptionError(
                    f"stopped after {self.step.iterations_done} iterations; go on with --resume",
                    signal_number=number,
                )
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        told = self._fraction_done
        self._agree()
        if told < 1 <= self._fraction_done:  # the clock ended while the last step was waited for
            self._report(losses)
        return lr

    def _agree(self) -> int | None:
        """Let every process have the first one's time; return the signal that came to any of them."""
        seconds = time.monotonic() - self._began
        everywhere = self._distributed.gather_numbers([seconds, self._context.should_stop() or 0])
        self.step.seconds = everywhere[0][0]
        return int(max(signal_number for _, signal_number in everywhere)) or None

    def _is_checkpoint_due(self) -> bool:
        """Whether the first process wants a checkpoint, in which all take part."""
        elapsed = time.monotonic() - self._last_checkpoint
        return self._distributed.gather_numbers([elapsed])[0][0] >= self._plan.training.checkpoint_seconds

    def _shared_losses(self) -> list[float]:
        """Return the losses of the steps since the last epoch's end, each the mean over the processes.

        Raises:
            ScansegError: One is no number.
        """
        losses = self._tracker.losses
        here = torch.stack(losses).tolist() if losses else []
        shared = [float(loss) for loss in np.mean(self._distributed.gather_numbers(here), axis=0)]
        strange = [loss for loss in shared if not np.isfinite(loss)]
        if strange:
            raise ScansegError(
                f"the training loss is {strange[0]} in epoch {self.epochs_done} of {self._folder.path}; a lower "
                f"learning rate (--lr, now {self._plan.training.optimizer.lr}) or float32 "
                f"(--set training.precision=float32) may help"
            )
        return shared

    def _step(self, lr: float) -> torch.Tensor:
        """Learn from one batch, and let the next ones be made meanwhile; return the loss."""
        with self._explained_memory():
            frozen = self.step.iterations_done < self._plan.training.frozen_encoder_epochs * self._iterations
            batch = self._batches.take(self.step.iterations_done)
            loss = self.step.run(batch, lr=lr, encoder_frozen=frozen)
            if self._device.type == "cuda":
                self._batches.prepare()
        return loss

    def _explained_memory(self) -> AbstractContextManager[None]:
        """Say what to do where the memory does not suffice for a batch."""
        sampling = self._plan.sampling
        return explained_memory(
            f"a batch of {sampling.batch_size} patches of {sampling.patch_size} voxels",
            advice="a smaller --batch-size, or the batch in parts (--set training.accumulation_steps=2)",
            device=self._device,
        )

    def _make_batches(self, iterations: Sequence[int]) -> Sequence[Batch]:
        """Make this process's part of the training batches of some iterations."""
        return make_batches(
            self._train_cases,
            self._plan.sampling,
            transforms=self._plan.augmentation,
            seed=self._plan.training.seed,
            stream=TRAINING_STREAM,
            iterations=iterations,
            device=self._device,
            shard=self._shard,
            predicted=predicted_of(self._plan),
        )

    def _report(self, losses: Sequence[torch.Tensor]) -> None:
        """Tell the listener; the loss is read now and then only, since reading waits for the device."""
        training = self._plan.training
        if self._shown_loss is None or self._device.type == "cpu" or len(losses) % 25 == 1:
            self._shown_loss = float(losses[-1])
        by_clock = training.max_minutes is not None
        of = " of at most " if by_clock else "/"
        detail = f"epoch {self.epochs_done}{of}{training.epochs}, loss {self._shown_loss:.3f}"
        if self._shown_dice is not None:
            detail += f", Dice {self._shown_dice:.3f}"
        done, total = self.step.iterations_done, training.epochs * self._iterations
        if not by_clock:
            self._context.progress(ProgressUpdate("training", done, total, detail))
            return
        detail = f"iteration {done}, {detail}"
        left = round(self.step.seconds * (1 / self._fraction_done - 1)) or int(self._fraction_done < 1)
        seconds = int(self.step.seconds)
        self._context.progress(ProgressUpdate("training", seconds, seconds + left, detail, unit="seconds"))

    def _is_validated(self) -> bool:
        """Whether this epoch ends with a score on validation patches."""
        return self.epochs_done % self._plan.training.validate_every == 0 or self._fraction_done >= 1

    def _patch_dice(self) -> dict[str, float | None]:
        """Score the network on patches of the validation cases."""
        assert self._validation_cases is not None
        self._distributed.broadcast(list(self.step.eval_network.buffers()))
        with self._explained_memory():
            return patch_dice(
                self.step,
                self._validation_cases,
                self._plan,
                context=self._context,
            )

    def _save(self, status: Status) -> None:
        """Write a checkpoint and the run's record."""
        progress = self._tracker.store(self._shared_losses())
        checkpoint = self.step.checkpoint()
        state = checkpoint.state.model_copy(update={"progress": progress})
        if self._distributed.is_main_process:
            self._folder.write_checkpoint(replace(checkpoint, state=state, best=self._tracker.best_weights))
        self._write_run(status)
        self._last_checkpoint = time.monotonic()

    def _write_run(self, status: Status) -> None:
        """Write the run's record as it stands."""
        done = {
            "status": status,
            "epochs_done": self.epochs_done,
            "iterations_done": self.step.iterations_done,
            "training_seconds": round(self.step.seconds, 2),
        }
        self._record = self._record.model_copy(update=done)
        if self._distributed.is_main_process:
            self._folder.write_run(self._record)


def _check_validation(training: TrainingSpec, cases: Fold, *, fold: FoldChoice) -> None:
    """Make sure that there are validation cases where a choice depends on them.

    Raises:
        UsageError: There are none.
    """
    if cases.validation:
        return
    if training.export == "best":
        raise UsageError(f"training.export best needs validation cases; fold {fold} has none. Choose last.")
    if training.early_stop is not None and training.early_stop.measure == "validation-dice":
        raise UsageError(
            f"training.early_stop by validation-dice needs validation cases; fold {fold} has none. Choose the "
            f'measure "loss", or leave early_stop out.'
        )
