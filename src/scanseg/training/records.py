"""The record of a run, as it is when the run begins or goes on."""

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
    """Describe a run in which nothing has been learnt yet.

    Args:
        network: The network.
        cases: What it trains and validates on.
        fold: How these cases were chosen.
        device: Where it trains.
        autocast_dtype: Type of its products; None: float32.
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
    """Read the last checkpoint and the record of a run that goes on; None where there is none yet.

    Args:
        folder: The model folder.

    Raises:
        InputError: They cannot be read, or the record tells of a checkpoint that is gone.
    """
    checkpoint, record = folder.read_checkpoint(), folder.read_run()
    if checkpoint is None and record is not None and record.iterations_done:
        raise InputError(
            f"{folder.path}: run.json tells of {counted(record.iterations_done, 'iteration')}, but their checkpoint "
            f"(state/) is gone; put it back, or train anew in another folder."
        )
    return checkpoint, record


def command_words(arguments: Sequence[str]) -> tuple[str, ...]:
    """Return the words of a command without the folder of its program, which says where somebody installed it.

    Args:
        arguments: Those of a process, the program first; none where Python is embedded in another program.
    """
    if not arguments:
        return ()
    program = Path(arguments[0]).name
    return ("scanseg" if program == "__main__.py" else program, *arguments[1:])
