"""The record of a run, as it is when the run begins."""

import sys
from datetime import UTC, datetime
from typing import Literal

import torch
from torch import nn

from scanseg.models.device import describe_device
from scanseg.models.versions import installed_versions
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
        command=tuple(sys.argv),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        epochs_done=0,
        iterations_done=0,
        training_seconds=0.0,
        num_parameters=sum(parameter.numel() for parameter in network.parameters()),
    )
