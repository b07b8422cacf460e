"""The record of a training run: what ran, where, and how it went."""

from typing import Literal

from pydantic import JsonValue

from scanseg.specs.base import Document


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
    """Arguments of the process."""
    started: str
    """Date and time, ISO 8601 in UTC."""
    epochs_done: int
    iterations_done: int
    training_seconds: float
    """Time spent in training epochs, over all resumptions."""
    num_parameters: int


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
