"""The run record of a training that starts or resumes."""

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
from scanseg.runtime import describe_device, installed_versions
from scanseg.specs import Fold, RunRecord


def first_record(
    network: nn.Module,
    cases: Fold,
    *,
    fold: int | Literal["all"],
    device: torch.device,
    autocast_dtype: torch.dtype | None,
) -> RunRecord:
    """Return the run record of a training before its first step.

    Args:
        network: The network.
        cases: Training and validation cases.
        fold: Number of the fold, or `all`.
        device: Device of the training.
        autocast_dtype: Type of matrix products and convolutions. `None`: float32.
    """
    return RunRecord(
        status="running",
        fold=fold,
        train_cases=cases.train,
        validation_cases=cases.validation,
        device=describe_device(device),
        precision=str(autocast_dtype or torch.float32).removeprefix("torch."),
        versions=installed_versions(),
        command=command_words(sys.argv),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        epochs_done=0,
        iterations_done=0,
        training_seconds=0.0,
        num_parameters=sum(parameter.numel() for parameter in network.parameters()),
    )


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
