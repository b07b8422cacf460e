"""The record of a training run: what ran, where, and how it went."""

from typing import Literal

from pydantic import JsonValue

from scanseg.specs.base import Document


class ExportedWeights(Document):
    """Which of a training's weights prediction uses."""

    checkpoint: Literal["last", "best"]
    """`best`: those with the best Dice on validation patches."""
    iterations: int
    """Steps after which these weights were there."""
    averaged: bool
    """They are the running average over steps."""
    patch_dice: float | None
    """Mean Dice of their labels on validation patches, where it was measured."""


class RunRecord(Document):
    """Written beside the weights when a run starts and at every checkpoint."""

    format: Literal[1] = 1
    status: Literal["running", "interrupted", "finished"]
    fold: int | Literal["all"]
    train_cases: tuple[str, ...]
    validation_cases: tuple[str, ...]
    device: str
    """The device in words, with its name."""
    precision: str
    versions: dict[str, str]
    """scanseg, python, torch, numpy and the platform."""
    command: tuple[str, ...]
    """Words of the command, the program by its name alone."""
    started: str
    """Date and time, ISO 8601 in UTC."""
    epochs_done: int
    iterations_done: int
    training_seconds: float
    """Time of the training, scores of patches and checkpoints among it, over all resumptions."""
    num_parameters: int
    num_processes: int = 1
    """Processes that shared each batch."""
    initial_weights: str | None = None
    """Model folder whose weights the network began with; None: random ones."""
    renewed_parameters: tuple[str, ...] = ()
    """Parameters that were not taken from there, since the labels differ."""
    resident: Literal["device", "host", "disk"] | None = None
    """Where the cases were held."""
    exported: ExportedWeights | None = None
    """What `model.safetensors` holds; None until the training is finished."""


class TrainingProgress(Document):
    """What a training has reached, beside its weights."""

    epochs_done: int = 0
    """Epochs that ended with a line of metrics."""
    losses: tuple[float, ...] = ()
    """Losses of the steps since."""
    best_iterations: int | None = None
    """Steps after which the Dice of validation patches was best."""
    best_dice: float | None = None
    watched: float | None = None
    """Best value of the measure that early stopping watches."""
    watched_epoch: int = 0
    """Epoch in which it was reached."""
    measured_epoch: int = 0
    """Epoch in which it was last measured."""


class TrainingState(Document):
    """The part of a checkpoint that is not a tensor."""

    format: Literal[1] = 1
    iterations_done: int
    training_seconds: float
    optimizer_groups: tuple[dict[str, JsonValue], ...]
    """Settings of the optimizer's parameter groups."""
    loss_scale: float | None = None
    """Scale of the loss, when training in float16."""
    num_steps_at_loss_scale: int | None = None
    """Steps since that scale has changed."""
    progress: TrainingProgress = TrainingProgress()
