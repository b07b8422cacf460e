"""Progress of a training: console updates, warnings, and losses within an epoch."""

from collections.abc import Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor, nn

from scanseg.messages import counted
from scanseg.models import ModelFolder
from scanseg.progress import ProgressUpdate
from scanseg.runtime import RunContext, describe_device
from scanseg.specs import Fold
from scanseg.training.step_watch import StepWatch

_STEPS_BETWEEN_LOSSES = 25
"""On other devices than CPUs the loss is read at this interval, because reading waits for the device."""
_SECONDS_BETWEEN_POINTS = 10.0
_POINTS_BY_CLOCK = 50
"""Losses within epochs of a training with a time limit."""


class TrainingReporter:
    """Report the progress of a training, and write losses within its epochs."""

    def __init__(self, folder: ModelFolder, context: RunContext) -> None:
        """See the class.

        Args:
            folder: The model folder.
            context: Progress callback and device.
        """
        self._folder, self._context = folder, context
        self._training, self._device = folder.plan.training, context.torch_device
        self._watch = StepWatch(on_cpu=self._device.type == "cpu")
        self._loss: float | None = None
        self._dice: float | None = None
        self._last_point = 0.0
        self._num_written = 0

    def start(self, network: nn.Module, cases: Fold) -> None:
        """Report device, recipe, cases, size of the network and model folder.

        Args:
            network: The network.
            cases: Training and validation cases.
        """
        plan, training = self._folder.plan, self._training
        num_parameters = sum(parameter.numel() for parameter in network.parameters())
        limit = "" if training.max_minutes is None else f", at most {training.max_minutes:g} minutes"
        note = (
            f"training {plan.recipe} on {describe_device(self._device)}: {len(cases.train)} training and "
            f"{counted(len(cases.validation), 'validation case')}, {num_parameters / 1e6:.2f} million parameters, "
            f"batches of {plan.sampling.batch_size} x {' x '.join(map(str, plan.sampling.patch_size))}, "
            f"{counted(training.epochs, 'epoch')}{limit}, output {self._folder.path}"
        )
        self._context.progress(ProgressUpdate("starting", 1, 1, notes=(note,)))

    def step(self) -> AbstractContextManager[None]:
        """Return a context that measures a step."""
        return self._watch.step()

    def show_dice(self, dice: float | None) -> None:
        """Show the Dice of the last validation patches in further updates."""
        self._dice = dice

    def after_step(
        self,
        losses: Sequence[Tensor],
        *,
        lr: float,
        iterations: int,
        iterations_per_epoch: int,
        epochs_done: int,
        seconds: float,
        fraction: float,
    ) -> None:
        """Report the progress after a step.

        Args:
            losses: Losses of the epoch so far.
            lr: The learning rate.
            iterations: Optimizer steps.
            iterations_per_epoch: Steps of an epoch.
            epochs_done: Finished epochs, with the current one.
            seconds: Training time in seconds.
            fraction: Finished fraction of the training, from 0 to 1.
        """
        training = self._training
        if self._loss is None or self._device.type == "cpu" or len(losses) % _STEPS_BETWEEN_LOSSES == 1:
            self._loss = float(losses[-1])
        by_clock = training.max_minutes is not None
        of = " of at most " if by_clock else "/"
        detail = f"epoch {epochs_done}{of}{training.epochs}, loss {self._loss:.3f}"
        if self._dice is not None:
            detail += f", patch Dice {self._dice:.3f}"
        total = training.epochs * iterations_per_epoch
        if by_clock:
            left = round(seconds * (1 / fraction - 1)) or int(fraction < 1)
            detail = f"iteration {iterations}, {detail}"
            update = ProgressUpdate("training", int(seconds), int(seconds) + left, detail, unit="seconds")
        else:
            update = ProgressUpdate("training", iterations, total, detail)
            self._context.report_warnings(
                self._watch.long_training(
                    epochs=training.epochs, iterations=iterations_per_epoch, num_left=total - iterations
                )
            )
        self._context.report_warnings(self._watch.busy_processors(num_threads=torch.get_num_threads()))
        self._context.progress(update)
        self._write_point(
            losses, lr=lr, iterations=iterations, iterations_per_epoch=iterations_per_epoch, seconds=seconds
        )

    def _write_point(
        self,
        losses: Sequence[Tensor],
        *,
        lr: float,
        iterations: int,
        iterations_per_epoch: int,
        seconds: float,
    ) -> None:
        """Write the mean loss since the last point, if due.

        With distributed processes it is the loss of the main process.
        """
        if len(losses) <= self._num_written:  # another epoch
            self._num_written = 0
        is_end = iterations % iterations_per_epoch == 0
        if is_end or seconds - self._last_point < self._seconds_between_points:
            return
        self._last_point = seconds
        if not self._context.distributed.is_main_process:
            return
        since = torch.stack(list(losses[self._num_written :])).tolist()
        self._num_written = len(losses)
        self._folder.metrics.append(
            {
                "epoch": -(-iterations // iterations_per_epoch),
                "epochs_done": round(iterations / iterations_per_epoch, 4),
                "iterations": iterations,
                "seconds": round(seconds, 2),
                "lr": lr,
                "loss": float(np.mean(since)),
            }
        )

    @property
    def _seconds_between_points(self) -> float:
        """Time between two losses within an epoch."""
        if self._training.max_minutes is None:
            return _SECONDS_BETWEEN_POINTS
        return min(_SECONDS_BETWEEN_POINTS, 60 * self._training.max_minutes / _POINTS_BY_CLOCK)
