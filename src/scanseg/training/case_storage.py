"""Choose the case storage of a training: device, host memory or disk."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from scanseg.batches import TrainingCases, case_bytes, load_into_memory, open_cases
from scanseg.preprocessing import Store
from scanseg.runtime import RunContext, explained_memory

CaseStorage = Literal["device", "host", "disk"]

_MEMINFO = Path("/proc/meminfo")
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
    if needed * num_sharing <= _PART_OF_MEMORY * free_host_bytes():
        return "device" if device.type == "mps" else "host"  # mps computes in the host's memory
    return "disk"


def free_host_bytes() -> int:
    """Return the free memory of host or container in bytes."""
    free = [_available_bytes()]
    limit, used = (Path("/sys/fs/cgroup", name) for name in ("memory.max", "memory.current"))
    if limit.is_file() and used.is_file() and (text := limit.read_text().strip()).isdecimal():
        free.append(max(0, int(text) - int(used.read_text())))
    return min(free)


def _available_bytes() -> int:
    """Return the available memory of the host in bytes, with file caches."""
    if _MEMINFO.is_file():
        for line in _MEMINFO.read_text().splitlines():
            name, _, amount = line.partition(":")
            if name == "MemAvailable":
                return 1024 * int(amount.split()[0])
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


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
