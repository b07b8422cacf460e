"""How far a training has come: the epoch's losses, its best weights, and whether it still gets better."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from scanseg.specs import EarlyStopSpec, TrainingProgress


class ProgressTracker:
    """What a training has reached, beside its weights; all of it is in a checkpoint."""

    def __init__(self, early_stop: EarlyStopSpec | None) -> None:
        """Begin with nothing.

        Args:
            early_stop: When to end for want of improvement.
        """
        self.epochs_done = 0
        self.losses: list[Tensor] = []
        """Losses of the steps since the last epoch's end."""
        self.best_weights: dict[str, Tensor] | None = None
        """Those with the best Dice on validation patches, in host memory."""
        self.best_dice: float | None = None
        self.best_iterations: int | None = None
        self._early_stop = early_stop
        self._best_monitored: float | None = None
        self._best_monitored_epoch = 0
        self._last_monitored_epoch = 0

    @property
    def is_exhausted(self) -> bool:
        """Whether the measure that early stopping watches has not improved for too long.

        Epochs count up to the last measurement: what has not been measured may have improved.
        """
        if self._early_stop is None or self._best_monitored is None:
            return False
        return self._last_monitored_epoch - self._best_monitored_epoch >= self._early_stop.patience_epochs

    def end_epoch(self, *, loss: float, dice: float | None, iterations: int, network: nn.Module) -> None:
        """Note how an epoch ended.

        Args:
            loss: Mean loss of its steps.
            dice: Mean Dice of the labels on validation patches; None: not measured.
            iterations: Steps since the beginning.
            network: The network that was measured.
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
        """Return all of it but the weights.

        Args:
            losses: Losses of the steps since the last epoch's end, over all processes.
        """
        return TrainingProgress(
            epochs_done=self.epochs_done,
            losses=tuple(losses),
            best_iterations=self.best_iterations,
            best_dice=self.best_dice,
            best_monitored=self._best_monitored,
            best_monitored_epoch=self._best_monitored_epoch,
            last_monitored_epoch=self._last_monitored_epoch,
        )

    def restore(
        self, progress: TrainingProgress, best: dict[str, Tensor] | None, *, device: torch.device
    ) -> None:
        """Go back to what was stored.

        Args:
            progress: What `store` returned.
            best: The best weights.
            device: Where losses are.
        """
        self.epochs_done = progress.epochs_done
        self.losses = [torch.tensor(loss, device=device) for loss in progress.losses]
        self.best_weights, self.best_dice = best, progress.best_dice
        self.best_iterations = progress.best_iterations
        self._best_monitored, self._best_monitored_epoch = (
            progress.best_monitored,
            progress.best_monitored_epoch,
        )
        self._last_monitored_epoch = progress.last_monitored_epoch


def mean_dice(scores: Mapping[str, float | None]) -> float | None:
    """Return the mean over the labels that were there or predicted; None: there was none."""
    counted = [score for score in scores.values() if score is not None]
    return sum(counted) / len(counted) if counted else None
