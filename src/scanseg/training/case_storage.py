"""Choose the case storage of a training: device, host memory or disk."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch

from scanseg.batches import TrainingCases, case_bytes, load_into_memory, open_cases
from scanseg.preprocessing import Store
from scanseg.runtime import RunContext, explained_memory, free_memory

CaseStorage = Literal["device", "host", "disk"]

_PART_OF_MEMORY = 0.5
"""Fraction of the free memory that cases may take under `auto`."""


def choose_case_storage(
    wanted: Literal["auto", "device", "host", "disk"],
    store: Store,
    cases: Sequence[str],
    *,
    device: torch.device,
    num_sharing: int = 1,
) -> CaseStorage:
    """Choose the storage of the cases.

    Args:
        wanted: The setting `training.case_storage` of the plan. `auto`: the first of device and host in which the
            cases take at most half of the free memory, or else the disk.
        store: The store.
        cases: Names of all cases of the training.
        device: Device of the network.
        num_sharing: Processes that share the host's memory, each with its own copy of the cases.
    """
    if wanted != "auto":
        return wanted
    needed = case_bytes(store, cases)
    if device.type == "cuda" and needed <= _PART_OF_MEMORY * torch.cuda.mem_get_info(device)[0]:
        return "device"
    if needed * num_sharing <= _PART_OF_MEMORY * free_memory():
        return "device" if device.type == "mps" else "host"  # mps computes in the host's memory
    return "disk"


def load_cases(
    store: Store, cases: Sequence[str], storage: CaseStorage, *, seed: int, context: RunContext
) -> TrainingCases:
    """Load cases into their storage, or open them on disk.

    Args:
        store: The store.
        cases: Names of the cases, at least one.
        storage: Storage of the cases.
        seed: Seed of the training.
        context: Device of the network, worker processes that read from disk, and progress.

    Raises:
        ScansegError: The device or the host has too little memory.
    """
    if storage == "disk":
        return open_cases(store, cases, context=context, seed=seed)
    target = context.torch_device if storage == "device" else torch.device("cpu")
    with explained_memory("all cases", advice="--set training.case_storage=disk", device=target):
        return load_into_memory(store, cases, context=replace(context, device=str(target)), seed=seed)
