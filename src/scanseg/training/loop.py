"""The training loop."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import JsonValue

from scanseg.batches import BatchShard, num_batches_at_once
from scanseg.errors import InterruptionError, ScansegError
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
from scanseg.specs import ExportedWeights, Fold, RunRecord
from scanseg.training.case_storage import choose_case_storage
from scanseg.training.folds import FoldChoice, check_validation
from scanseg.training.initial_weights import load_initial_weights
from scanseg.training.loaded_cases import LoadedCases
from scanseg.training.prefetch import BatchPrefetcher
from scanseg.training.progress_tracker import ProgressTracker, mean_dice
from scanseg.training.records import first_record, new_session, read_state, with_progress
from scanseg.training.reporting import TrainingReporter
from scanseg.training.schedules import learning_rate
from scanseg.training.step import TrainingStep
from scanseg.training.tensorboard import TensorBoardLog
from scanseg.training.time_limit import affordable_batches, finished_fraction
from scanseg.training.validation import patch_dice

Status = Literal["running", "interrupted", "finished"]


class TrainingLoop:
    """Train epoch by epoch and write the model folder.

    Every distributed process has a loop. The main process writes the files.
    """

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
        """Start or resume the training, and load its cases. See `scanseg.training.train`."""
        self._folder, self._plan, self._cases = folder, folder.plan, cases
        self._context, self._device, self._distributed = context, context.torch_device, context.distributed
        self._shard = BatchShard(context.distributed.rank, context.distributed.world_size)
        check_validation(folder.plan.training, cases, fold=fold)
        self._reporter = TrainingReporter(folder, context)
        self._tracker = ProgressTracker(self._plan.training.early_stop)
        self._start(store, fold, initial_weights)
        self._load_cases(store)
        at_once = num_batches_at_once(
            self._loaded.train, self._plan.sampling, device=self._device, shard=self._shard
        )
        make_batches = partial(self._loaded.make_batches, device=self._device, shard=self._shard)
        self._batches = BatchPrefetcher(make_batches, device=self._device, at_once=at_once)
        self._last_checkpoint = self._started = time.monotonic()
        self._log: TensorBoardLog | None = None
        if context.distributed.is_main_process:
            warning = folder.metrics.keep(
                self._tracker.epochs_done, iterations_done=self.step.iterations_done
            )
            context.report_warnings([] if warning is None else [warning])
            self._log = TensorBoardLog(folder.path, iterations_done=self.step.iterations_done)
        self._write_run("running")

    def _start(self, store: Store, fold: FoldChoice, initial_weights: Path | None) -> None:
        """Build the network with checkpointed or initial weights."""
        training = self._plan.training
        torch.manual_seed(training.seed)
        dtype = autocast_dtype(self._device, training.precision)
        checkpoint, earlier = self._distributed.on_main_process(lambda: read_state(self._folder))
        setup = self._distributed.on_main_process(self._folder.read_setup)
        network = self._folder.build_network()
        source = Path(setup.initial_weights) if setup and setup.initial_weights else initial_weights
        renewed = earlier.renewed_parameters if earlier else ()
        if source is not None and checkpoint is None:
            renewed = load_initial_weights(network, self._plan, source)
        self._reporter.start(network, self._cases)
        session = new_session(
            training,
            device=self._device,
            autocast_dtype=dtype,
            num_processes=self._distributed.world_size,
        )
        sessions = (*earlier.sessions, session) if earlier else (session,)
        self._record: RunRecord = first_record(
            network, self._cases, session, fold=fold, store=store, training=training
        ).model_copy(
            update={
                "sessions": sessions,
                "initial_weights": str(source) if source else None,
                "renewed_parameters": renewed,
            }
        )
        if earlier is None and self._distributed.is_main_process:
            self._folder.write_run(self._record)
        with memory_for("the network and its training state", device=self._device):
            self.step = TrainingStep(
                self._plan,
                network,
                context=self._context,
                autocast_dtype=dtype,
            )
            self.step.prepare()
            if checkpoint is not None:
                self.step.restore(checkpoint)
        if checkpoint is not None:
            self._tracker.restore(checkpoint.state.progress, checkpoint.best, device=self._device)

    def _load_cases(self, store: Store) -> None:
        """Load the cases into their storage."""
        training = self._plan.training
        storage = choose_case_storage(
            training.case_storage,
            store,
            (*self._cases.train, *self._cases.validation),
            device=self._device,
            num_sharing=self._distributed.local_world_size,
        )
        self._record = self._record.model_copy(update={"case_storage": storage})
        context = self._context.with_progress(self._report_loading)
        self._loaded = LoadedCases.load(self._plan, store, self._cases, storage, context=context)
        self._iterations = self._loaded.iterations_per_epoch

    def _report_loading(self, update: ProgressUpdate) -> None:
        """Report that a case is loaded, or stop."""
        self._context.progress(update)
        if (
            self._context.should_stop() is not None
            and self.step.iterations_done == 0
            and self._distributed.is_main_process
        ):
            interrupted = with_progress(
                self._record, status="interrupted", epochs_done=0, iterations_done=0, seconds=0.0
            )
            self._folder.write_run(interrupted)
        raise_if_stopped(self._context.should_stop, "stopped while cases were loaded; continue with --resume")

    def close(self) -> None:
        """Stop the worker processes and close the log."""
        if self._log is not None:
            self._log.close()
        self._loaded.close()

    @property
    def record(self) -> RunRecord:
        """The last written run record."""
        return self._record

    @property
    def has_best(self) -> bool:
        """Whether best weights exist."""
        return self._distributed.on_main_process(lambda: self._tracker.best_weights is not None)

    @property
    def epochs_done(self) -> int:
        """Finished epochs. The time limit may have cut the last one short."""
        return -(-self.step.iterations_done // self._iterations)

    @property
    def _fraction_done(self) -> float:
        """Finished fraction of the training, from 0 to 1."""
        return finished_fraction(
            self._plan.training,
            iterations=self.step.iterations_done,
            iterations_per_epoch=self._iterations,
            seconds=self.step.seconds,
            num_batches=self._num_validation_batches,
        )

    @property
    def _num_validation_batches(self) -> int:
        """Batches of validation patches to score.

        The number is chosen at the first scoring and kept.
        """
        if self._loaded.validation is None:
            return 0
        return self._tracker.num_validation_batches or affordable_batches(
            self._plan.training, iterations=self.step.iterations_done, seconds=self.step.seconds
        )

    def epochs(self) -> Iterator[int]:
        """Train, and yield the number of each finished epoch.

        Validation on patches and writing checkpoints count as training time. Compiling kernels does not.
        """
        self._started = time.monotonic() - self.step.seconds
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
            if self._loaded.validation is not None and self._is_validation_due():
                scores = self._patch_dice()
                metrics["validation_dice"] = {**scores}
                dice = mean_dice(scores)
                self._reporter.show_dice(dice)
            self._tracker.end_epoch(
                loss=loss, dice=dice, iterations=self.step.iterations_done, network=self.step.eval_network
            )
            if self._log is not None:
                self._folder.metrics.append(metrics)
                self._log.write(metrics)
            if self._is_checkpoint_due():
                self._save("running")
            yield self.epochs_done

    def finish(self) -> None:
        """Write the exported weights, the other weights, and the last checkpoint."""
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
        """Train to the end of the epoch or of the time limit.

        Returns:
            The last learning rate.
        """
        training, losses = self._plan.training, self._tracker.losses
        lr = learning_rate(training.schedule, lr=training.optimizer.lr, progress=self._fraction_done)
        end = (self._tracker.epochs_done + 1) * self._iterations
        while self.step.iterations_done < end and (not losses or self._fraction_done < 1):
            lr = learning_rate(training.schedule, lr=training.optimizer.lr, progress=self._fraction_done)
            with self._reporter.step():
                losses.append(self._step(lr))
            signal_number = self._synchronize()
            self._report(lr)
            if signal_number is not None:
                self._save("interrupted")
                raise InterruptionError(
                    f"stopped after {self.step.iterations_done} iterations; continue with --resume",
                    signal_number=signal_number,
                )
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        reported = self._fraction_done
        self._synchronize()
        if reported < 1 <= self._fraction_done:  # the time limit passed during the last step
            self._report(lr)
        return lr

    def _synchronize(self) -> int | None:
        """Share the main process's time and all stop requests.

        Returns:
            The number of a signal that any process received. `None`: no signal.
        """
        seconds = time.monotonic() - self._started - self.step.compiling_seconds
        gathered = self._distributed.gather_numbers([seconds, self._context.should_stop() or 0])
        self.step.seconds = gathered[0][0]
        return int(max(signal_number for _, signal_number in gathered)) or None

    def _is_checkpoint_due(self) -> bool:
        """Whether a checkpoint is due by the clock of the main process.

        All processes call this together.
        """
        elapsed = time.monotonic() - self._last_checkpoint
        return self._distributed.gather_numbers([elapsed])[0][0] >= self._plan.training.checkpoint_seconds

    def _shared_losses(self) -> list[float]:
        """Return the losses of this epoch's steps, averaged over all processes.

        Raises:
            ScansegError: A loss is not finite.
        """
        losses = self._tracker.losses
        own = torch.stack(losses).tolist() if losses else []
        shared = [float(loss) for loss in np.mean(self._distributed.gather_numbers(own), axis=0)]
        not_finite = [loss for loss in shared if not np.isfinite(loss)]
        if not_finite:
            raise ScansegError(
                f"{self._folder.path}: the training loss is {not_finite[0]} in epoch {self.epochs_done}. Try a lower "
                f"learning rate (--lr, now {self._plan.training.optimizer.lr}) or float32 "
                f"(--set training.precision=float32)"
            )
        return shared

    def _step(self, lr: float) -> torch.Tensor:
        """Train on one batch, prepare the next ones, return the loss."""
        with self._explained_memory():
            frozen = self.step.iterations_done < self._plan.training.frozen_encoder_epochs * self._iterations
            batch = self._batches.take(self.step.iterations_done)
            loss = self.step.run(batch, lr=lr, encoder_frozen=frozen)
            if self._device.type == "cuda":
                self._batches.prepare()
        return loss

    def _explained_memory(self) -> AbstractContextManager[None]:
        """Return a context that explains running out of memory on a batch."""
        sampling = self._plan.sampling
        return explained_memory(
            f"a batch of {sampling.batch_size} patches of {sampling.patch_size} voxels",
            advice="a smaller --batch-size, or the batch in parts (--set training.accumulation_steps=2)",
            device=self._device,
        )

    def _report(self, lr: float) -> None:
        """Report the progress after a step."""
        self._reporter.after_step(
            self._tracker.losses,
            lr=lr,
            iterations=self.step.iterations_done,
            iterations_per_epoch=self._iterations,
            epochs_done=self.epochs_done,
            seconds=self.step.seconds,
            fraction=self._fraction_done,
        )

    def _is_validation_due(self) -> bool:
        """Whether this epoch ends with validation on patches."""
        return self.epochs_done % self._plan.training.validate_every == 0 or self._fraction_done >= 1

    def _patch_dice(self) -> dict[str, float | None]:
        """Score the network on patches of the validation cases."""
        assert self._loaded.validation is not None
        self._distributed.broadcast(list(self.step.eval_network.buffers()))
        self._tracker.num_validation_batches = self._num_validation_batches
        try:
            with self._explained_memory():
                return patch_dice(
                    self.step,
                    self._loaded.validation,
                    self._plan,
                    num_batches=self._tracker.num_validation_batches,
                    context=self._context,
                )
        except InterruptionError:
            self._save("interrupted")
            raise
        finally:
            self._synchronize()

    def _save(self, status: Status) -> None:
        """Write a checkpoint and the run record."""
        progress = self._tracker.store(self._shared_losses())
        checkpoint = self.step.checkpoint()
        state = checkpoint.state.model_copy(update={"progress": progress})
        if self._distributed.is_main_process:
            self._folder.write_checkpoint(replace(checkpoint, state=state, best=self._tracker.best_weights))
        self._write_run(status)
        self._last_checkpoint = time.monotonic()

    def _write_run(self, status: Status) -> None:
        """Write the current run record."""
        self._record = with_progress(
            self._record,
            status=status,
            epochs_done=self.epochs_done,
            iterations_done=self.step.iterations_done,
            seconds=self.step.seconds,
        )
        if self._distributed.is_main_process:
            self._folder.write_run(self._record)
