"""Where the cases of a training are held: on the device, in host memory, or on disk."""

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
"""Part of the free memory that cases may take when the place is chosen for them."""


def choose_case_storage(
    wanted: Literal["auto", "device", "host", "disk"],
    store: Store,
    cases: Sequence[str],
    *,
    device: torch.device,
    num_sharing: int = 1,
) -> CaseStorage:
    """Decide where cases are held.

    Args:
        wanted: A plan's `training.case_storage`; `auto`: the first of device, host and disk where they need at
            most half of the free memory.
        store: The store.
        cases: Names of all cases that are needed.
        device: Where the network is.
        num_sharing: Processes that share the host's memory, each with cases of its own.
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
    """Return how much memory a process may still take: of the host, or of the container it runs in."""
    free = [_available_bytes()]
    limit, used = (Path("/sys/fs/cgroup", name) for name in ("memory.max", "memory.current"))
    if limit.is_file() and used.is_file() and (text := limit.read_text().strip()).isdecimal():
        free.append(max(0, int(text) - int(used.read_text())))
    return min(free)


def _available_bytes() -> int:
    """Return what the system would give away, caches of files among it."""
    if _MEMINFO.is_file():
        for line in _MEMINFO.read_text().splitlines():
            name, _, amount = line.partition(":")
            if name == "MemAvailable":
                return 1024 * int(amount.split()[0])
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def load_cases(
    store: Store, cases: Sequence[str], storage: CaseStorage, *, seed: int, context: RunContext
) -> TrainingCases:
    """Bring cases to where they are held.

    Args:
        store: The store.
        cases: Names of the cases; at least one.
        storage: Where.
        seed: Seed of the run.
        context: Device of the network, workers that read from disk, and progress.

    Raises:
        ScansegError: The memory does not suffice.
    """
    if storage == "disk":
        return open_cases(store, cases, context=context, seed=seed)
    held_on = context.torch_device if storage == "device" else torch.device("cpu")
    with explained_memory("all cases", advice="--set training.case_storage=disk", device=held_on):
        return load_into_memory(store, cases, context=replace(context, device=str(held_on)), seed=seed)
