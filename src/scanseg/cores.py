"""Cores that this process may use, and OpenMP variables."""

import math
import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def available_cores() -> int:
    """Return the number of cores that this process may use.

    A cluster may bind a process to some cores, and a container may limit its processor time.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = _container_limit()
    return bound if limit is None else max(1, min(bound, math.ceil(limit)))


def choose_threads(environment: Mapping[str, str]) -> int:
    """Return the number of threads of a library without OpenMP.

    Args:
        environment: Environment variables of the process. `OMP_NUM_THREADS`, if set, holds for these libraries too.
    """
    wanted = environment.get("OMP_NUM_THREADS", "")
    return int(wanted) if wanted.isdecimal() and int(wanted) > 0 else available_cores()


def prepare_threads(environment: MutableMapping[str, str]) -> None:
    """Set OpenMP variables that the user has not set.

    Waiting threads sleep (`OMP_WAIT_POLICY=PASSIVE`). Otherwise they spin, and each step takes many times longer as
    soon as another program uses a core. The number of threads (`OMP_NUM_THREADS`) is set in containers with a limit,
    which OpenMP does not know. Both take effect only before PyTorch is imported.

    Args:
        environment: Environment variables of the process. They are changed.
    """
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if _container_limit() is not None:
        environment.setdefault("OMP_NUM_THREADS", str(available_cores()))


def _container_limit() -> float | None:
    """Return the processor time of a container in cores. `None`: no limit."""
    try:
        if (_CGROUP / "cpu.max").is_file():
            quota, period = (_CGROUP / "cpu.max").read_text().split()
        else:
            quota = (_CGROUP / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (_CGROUP / "cpu" / "cpu.cfs_period_us").read_text().strip()
        return int(quota) / int(period) if quota not in ("max", "-1") else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
