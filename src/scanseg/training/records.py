"""The run record of a training that starts or resumes."""

import hashlib
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from scanseg.errors import InputError
from scanseg.messages import counted
from scanseg.models import Checkpoint, ModelFolder
from scanseg.preprocessing import Store
from scanseg.runtime import describe_device, installed_versions, source_commit
from scanseg.specs import Fold, RunRecord, TrainingSession, TrainingSpec


def first_record(
    network: nn.Module,
    cases: Fold,
    session: TrainingSession,
    *,
    fold: int | Literal["all"],
    store: Store,
    training: TrainingSpec,
) -> RunRecord:
    """Return the run record of a training before its first step.

    Args:
        network: The network.
        cases: Training and validation cases.
        session: The command that starts the training.
        fold: Number of the fold, or `all`.
        store: Store of the cases.
        training: Training of the plan.
    """
    return RunRecord(
        status="running",
        fold=fold,
        train_cases=cases.train,
        validation_cases=cases.validation,
        seed=training.seed,
        mirror_validation=training.mirror_validation,
        data_digest=_data_digest(store, cases),
        sessions=(session,),
        epochs_done=0,
        iterations_done=0,
        training_seconds=0.0,
        num_parameters=sum(parameter.numel() for parameter in network.parameters()),
    )


def new_session(
    training: TrainingSpec,
    *,
    device: torch.device,
    autocast_dtype: torch.dtype | None,
    num_processes: int,
) -> TrainingSession:
    """Return the record of a command that starts or resumes a training.

    Args:
        training: Planned epochs and time limit.
        device: Device of the training.
        autocast_dtype: Type of matrix products and convolutions. `None`: float32.
        num_processes: Number of distributed processes.
    """
    return TrainingSession(
        command=command_words(sys.argv),
        started=_now(),
        epochs=training.epochs,
        max_minutes=training.max_minutes,
        host=platform.node() or None,
        device=describe_device(device),
        precision=str(autocast_dtype or torch.float32).removeprefix("torch."),
        num_processes=num_processes,
        versions=installed_versions(),
        commit=source_commit(),
    )


def with_progress(
    record: RunRecord,
    *,
    status: Literal["running", "interrupted", "finished"],
    epochs_done: int,
    iterations_done: int,
    seconds: float,
) -> RunRecord:
    """Return a run record with the progress of its last session.

    Args:
        record: The record.
        status: Status of the training.
        epochs_done: Finished epochs.
        iterations_done: Optimizer steps.
        seconds: Training time in seconds.
    """
    *earlier, last = record.sessions
    ended = None if status == "running" else _now()
    last = last.model_copy(update={"ended": ended, "iterations_done": iterations_done})
    return record.model_copy(
        update={
            "status": status,
            "sessions": (*earlier, last),
            "epochs_done": epochs_done,
            "iterations_done": iterations_done,
            "training_seconds": round(seconds, 2),
        }
    )


def _now() -> str:
    """Return the time, ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _data_digest(store: Store, cases: Fold) -> str:
    """Return the checksum of preprocessed cases."""
    content = hashlib.sha256()
    for name in (*cases.train, *cases.validation):
        content.update(f"{name} {store.case_digest(store.case(name))}\n".encode())
    return content.hexdigest()


def read_state(folder: ModelFolder) -> tuple[Checkpoint | None, RunRecord | None]:
    """Read the last checkpoint and the run record of a resumed training.

    Args:
        folder: The model folder.

    Returns:
        The checkpoint and the record, each `None` if it does not exist yet.

    Raises:
        InputError: A file cannot be read, or the checkpoint of the record is missing.
    """
    checkpoint, record = folder.read_checkpoint(), folder.read_run()
    if checkpoint is None and record is not None and record.iterations_done:
        raise InputError(
            f"{folder.path}: run.json records {counted(record.iterations_done, 'iteration')}, but their checkpoint "
            f"(state/) is missing. Restore it, or train again in another folder."
        )
    return checkpoint, record


def command_words(arguments: Sequence[str]) -> tuple[str, ...]:
    """Return a command line without the installation folder of its program.

    Args:
        arguments: Arguments of the process, the program first. Empty if Python is embedded in another program.
    """
    if not arguments:
        return ()
    program = Path(arguments[0]).name
    return ("scanseg" if program == "__main__.py" else program, *arguments[1:])
