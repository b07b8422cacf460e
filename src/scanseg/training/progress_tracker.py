"""Track the progress of a training: losses, best weights and early stopping."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from scanseg.specs import EarlyStopSpec, TrainingProgress


class ProgressTracker:
    """Progress of a training, which a checkpoint stores."""

    def __init__(self, early_stop: EarlyStopSpec | None) -> None:
        """Start at epoch 0.

        Args:
            early_stop: Settings of early stopping. `None`: no early stopping.
        """
        self.epochs_done = 0
        self.losses: list[Tensor] = []
        """Losses of the steps since the last finished epoch."""
        self.best_weights: dict[str, Tensor] | None = None
        """Weights with the highest Dice on validation patches, in host memory."""
        self.best_dice: float | None = None
        self.best_iterations: int | None = None
        self.num_validation_batches: int | None = None
        """Batches of validation patches that are scored. `None`: not chosen yet."""
        self._early_stop = early_stop
        self._best_monitored: float | None = None
        self._best_monitored_epoch = 0
        self._last_monitored_epoch = 0

    @property
    def is_exhausted(self) -> bool:
        """Whether the monitored measure has not improved within the patience.

        Epochs count up to the last measurement, because later weights may be better.
        """
        if self._early_stop is None or self._best_monitored is None:
            return False
        return self._last_monitored_epoch - self._best_monitored_epoch >= self._early_stop.patience_epochs

    def end_epoch(self, *, loss: float, dice: float | None, iterations: int, network: nn.Module) -> None:
        """Record the end of an epoch.

        Args:
            loss: Mean loss of its steps.
            dice: Mean Dice over labels on validation patches, from 0 to 1. `None`: not measured.
            iterations: Optimizer steps since the start of the training.
            network: The evaluated network.
        """
        self.epochs_done += 1
        self.losses = []
        if dice is not None and (self.best_dice is None or dice > self.best_dice):
            self.best_dice, self.best_iterations = dice, iterations
            self.best_weights = {
                name: value.to("cpu", copy=True) for name, value in network.state_dict().items()
            }
        if self._early_stop is None:
            return
        value = -loss if self._early_stop.measure == "loss" else dice
        if value is None:
            return
        self._last_monitored_epoch = self.epochs_done
        if self._best_monitored is None or value > self._best_monitored + self._early_stop.least_improvement:
            self._best_monitored, self._best_monitored_epoch = value, self.epochs_done

    def store(self, losses: Sequence[float]) -> TrainingProgress:
        """Return the progress without the best weights.

        Args:
            losses: Losses of the steps since the last finished epoch, averaged over all processes.
        """
        return TrainingProgress(
            epochs_done=self.epochs_done,
            losses=tuple(losses),
            best_iterations=self.best_iterations,
            best_dice=self.best_dice,
            best_monitored=self._best_monitored,
            best_monitored_epoch=self._best_monitored_epoch,
            last_monitored_epoch=self._last_monitored_epoch,
            num_validation_batches=self.num_validation_batches,
        )

    def restore(
        self, progress: TrainingProgress, best: dict[str, Tensor] | None, *, device: torch.device
    ) -> None:
        """Restore stored progress.

        Args:
            progress: Progress from `store`.
            best: Best weights. `None`: none exist.
            device: Device of the losses.
        """
        self.epochs_done = progress.epochs_done
        self.losses = [torch.tensor(loss, device=device) for loss in progress.losses]
        self.best_weights, self.best_dice = best, progress.best_dice
        self.best_iterations = progress.best_iterations
        self.num_validation_batches = progress.num_validation_batches
        self._best_monitored, self._best_monitored_epoch = (
            progress.best_monitored,
            progress.best_monitored_epoch,
        )
        self._last_monitored_epoch = progress.last_monitored_epoch


def mean_dice(scores: Mapping[str, float | None]) -> float | None:
    """Return the mean Dice over the scored labels.

    Args:
        scores: Dice of each label. `None`: the label is neither annotated nor predicted.

    Returns:
        The mean, or `None` if no label was scored.
    """
    counted = [score for score in scores.values() if score is not None]
    return sum(counted) / len(counted) if counted else None
