"""The machine: devices, memory, processes, signals, versions.

Names that need PyTorch load on first use. So worker processes that only read images start without PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from scanseg.runtime.cache_folder import cache_folder
from scanseg.runtime.context import RunContext
from scanseg.runtime.distributed import Distributed, count_launched, join_processes
from scanseg.runtime.engine import Job, NamedCase
from scanseg.runtime.host_memory import free_memory, keep_freed_memory, physical_memory
from scanseg.runtime.object_process import ObjectProcess
from scanseg.runtime.signals import raise_if_stopped, watch_signals
from scanseg.runtime.spawning import release_signals, spawning_jobs
from scanseg.runtime.workers import (
    Ticket,
    WorkerEndedError,
    WorkerPool,
    as_sendable,
    choose_workers,
    keep_workers,
    map_cases,
    started_early,
)

if TYPE_CHECKING:
    from scanseg.runtime.cuda_graph import (
        GraphedCall,
        autocast_without_cache,
        report_direct_passes,
        run_before_capture,
    )
    from scanseg.runtime.device import Precision, autocast_dtype, choose_device, describe_device, warm_up
    from scanseg.runtime.gradient_reduction import GradientReduction
    from scanseg.runtime.memory import (
        CaptureMemoryError,
        explained_memory,
        is_memory_error,
        lacks_memory,
        memory_for,
    )
    from scanseg.runtime.versions import installed_versions, source_commit

__all__ = [
    "CaptureMemoryError",
    "Distributed",
    "GradientReduction",
    "GraphedCall",
    "Job",
    "NamedCase",
    "ObjectProcess",
    "Precision",
    "RunContext",
    "Ticket",
    "WorkerEndedError",
    "WorkerPool",
    "as_sendable",
    "autocast_dtype",
    "autocast_without_cache",
    "cache_folder",
    "choose_device",
    "choose_workers",
    "count_launched",
    "describe_device",
    "explained_memory",
    "free_memory",
    "installed_versions",
    "is_memory_error",
    "join_processes",
    "keep_freed_memory",
    "keep_workers",
    "lacks_memory",
    "map_cases",
    "memory_for",
    "physical_memory",
    "raise_if_stopped",
    "release_signals",
    "report_direct_passes",
    "run_before_capture",
    "source_commit",
    "spawning_jobs",
    "started_early",
    "warm_up",
    "watch_signals",
]

_LOADED_ON_USE = {
    "cuda_graph": (
        "GraphedCall",
        "autocast_without_cache",
        "report_direct_passes",
        "run_before_capture",
    ),
    "device": ("Precision", "autocast_dtype", "choose_device", "describe_device", "warm_up"),
    "gradient_reduction": ("GradientReduction",),
    "memory": ("CaptureMemoryError", "explained_memory", "is_memory_error", "lacks_memory", "memory_for"),
    "versions": ("installed_versions", "source_commit"),
}


def __getattr__(name: str) -> Any:
    """Load the module of a name on its first use."""
    for module, names in _LOADED_ON_USE.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
