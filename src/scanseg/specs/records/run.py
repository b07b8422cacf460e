"""The record and the state of a training."""

from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from scanseg.specs.base import CaseName, Document, RenamedFields, Step
from scanseg.specs.records.source import FileStamp


class ExportedWeights(RenamedFields):
    """The exported weights of a training, which prediction uses."""

    checkpoint: Literal["last", "best"]
    """`last`, or `best` (highest Dice on validation patches)."""
    iterations: Step
    """Optimizer steps of these weights."""
    ema: bool
    """These are EMA weights."""
    patch_dice: float | None
    """Mean Dice over labels on validation patches. `None`: not measured."""


class TrainingSetup(Document):
    """The file `setup.json`: choices of a training that its plan lacks.

    It is written together with the plan. A training that is killed before its first step is resumed with its choices.
    """

    fold: NonNegativeInt | Literal["all"] | None
    """Number of the fold, or `all`. `None`: a cross-validation of all folds."""
    initial_weights: str | None
    """Model folder of the initial weights, or file of encoder weights. `None`: random weights."""
    first_stage: dict[str, FileStamp] | None = None
    """Weights of the first stage of a cascade, by their path in its folder. `None`: no cascade, or not known."""


class TrainingSession(Document):
    """One command that started or resumed a training."""

    command: tuple[str, ...]
    """Arguments of the command line, with the program's name without its folder."""
    started: str
    """Start time, ISO 8601 in UTC."""
    ended: str | None = None
    """End time, ISO 8601 in UTC. `None`: it is running, or it was killed."""
    iterations_done: Step = 0
    """Optimizer steps at its end, over all sessions."""
    epochs: Step | None = None
    """Planned epochs. `None`: an older record without them."""
    max_minutes: NonNegativeFloat | None = None
    """Planned time limit in minutes over all sessions. `None`: no limit, or an older record without it."""
    host: str | None = None
    """Name of the machine. `None`: an older record without it."""
    device: str
    """Device with its name."""
    precision: str
    """Type of the computation, such as `bfloat16`."""
    num_processes: PositiveInt = 1
    """Number of distributed processes."""
    versions: dict[str, str]
    """Versions of scanseg, python, torch, numpy and the platform."""
    commit: str | None = None
    """Git commit of scanseg. `None`: scanseg was not installed from a git repository."""


_SESSION_FIELDS = ("command", "started", "device", "precision", "num_processes", "versions")
"""Fields of a run record with a single session."""


class RunRecord(RenamedFields):
    """The file `run.json` of a model folder.

    It is written when a training starts and at every checkpoint.
    """

    format: Literal[1] = 1
    """Version of the file format."""
    status: Literal["running", "interrupted", "finished"]
    """Status of the training."""
    fold: NonNegativeInt | Literal["all"]
    """Number of the fold, from 0. `all`: every case is a training case."""
    train_cases: tuple[CaseName, ...]
    """Names of the training cases."""
    validation_cases: tuple[CaseName, ...]
    """Names of the validation cases."""
    seed: NonNegativeInt | None = None
    """Seed of all random draws. `None`: an older record without it."""
    mirror_validation: bool | None = None
    """The scores of validation cases are averaged over flips. `None`: an older record without it."""
    data_digest: str | None = None
    """Checksum of the preprocessed training and validation cases. `None`: an older record without it."""
    sessions: Annotated[tuple[TrainingSession, ...], Field(min_length=1)]
    """Commands that started and resumed the training, in order."""
    epochs_done: Step
    """Finished epochs."""
    iterations_done: Step
    """Optimizer steps."""
    training_seconds: NonNegativeFloat
    """Training time in seconds over all resumptions, including validation on patches and checkpoints."""
    num_parameters: int
    """Parameters of the network."""
    initial_weights: str | None = None
    """Model folder of the initial weights, or file of encoder weights. `None`: random weights."""
    renewed_parameters: tuple[str, ...] = ()
    """Names of parameters with random initial weights, because the labels differ."""
    case_storage: Literal["device", "host", "disk"] | None = None
    """Storage of the cases during the training. `None`: an older record without it."""
    exported: ExportedWeights | None = None
    """Weights in `model.safetensors`. `None`: the training is not finished."""

    @model_validator(mode="before")
    @classmethod
    def _read_single_session(cls, content: Any) -> Any:
        """Read a record that describes only the last command."""
        if not isinstance(content, dict) or "sessions" in content or "command" not in content:
            return content
        session = {name: content[name] for name in _SESSION_FIELDS if name in content}
        others = {name: value for name, value in content.items() if name not in _SESSION_FIELDS}
        return {**others, "sessions": [{**session, "iterations_done": content.get("iterations_done", 0)}]}


class TrainingProgress(RenamedFields):
    """Progress of a training, apart from its weights."""

    epochs_done: Step = 0
    """Finished epochs, each with a line of metrics."""
    losses: tuple[float, ...] = ()
    """Losses of the steps since the last finished epoch."""
    best_iterations: Step | None = None
    """Optimizer steps of the weights with the highest Dice on validation patches. `None`: not measured."""
    best_dice: float | None = None
    """Highest mean Dice on validation patches, from 0 to 1. `None`: not measured."""
    best_monitored: float | None = None
    """Best value of the measure that early stopping monitors. `None`: not measured."""
    best_monitored_epoch: Step = 0
    """Epoch of this value."""
    last_monitored_epoch: Step = 0
    """Epoch of the last measurement."""
    num_validation_batches: PositiveInt | None = None
    """Batches of validation patches that are scored. `None`: not chosen yet."""


class TrainingState(RenamedFields):
    """State of a training in a checkpoint, apart from tensors."""

    format: Literal[1] = 1
    """Version of the file format."""
    iterations_done: Step
    """Optimizer steps."""
    training_seconds: NonNegativeFloat
    """Training time in seconds over all resumptions."""
    optimizer_groups: tuple[dict[str, JsonValue], ...]
    """Settings of the optimizer's parameter groups."""
    num_optimizer_tensors: NonNegativeInt | None = None
    """Number of the optimizer's tensors. `None`: an older checkpoint without it."""
    loss_scale: NonNegativeFloat | None = None
    """Scale of the loss in float16. `None`: another type."""
    num_steps_at_loss_scale: NonNegativeInt | None = None
    """Optimizer steps since the last change of the scale. `None`: no scale."""
    progress: TrainingProgress = TrainingProgress()
    """Progress of the training."""
