"""Batches: sampling and augmentation of patches.

Names that need PyTorch load on first use, so that processes that only read patches start without it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from scanseg.batches.shard import BatchShard

if TYPE_CHECKING:
    from scanseg.batches.batches import Batch, TrainingCases, make_batch, make_batches, num_batches_at_once
    from scanseg.batches.cascade import build_cascade_store, predicted_labels_of
    from scanseg.batches.in_memory import case_bytes, load_into_memory
    from scanseg.batches.on_disk import DiskCases, open_cases
    from scanseg.batches.sampling import TRAINING_STREAM, VALIDATION_STREAM, iterations_per_pass

__all__ = [
    "TRAINING_STREAM",
    "VALIDATION_STREAM",
    "Batch",
    "BatchShard",
    "DiskCases",
    "TrainingCases",
    "build_cascade_store",
    "case_bytes",
    "iterations_per_pass",
    "load_into_memory",
    "make_batch",
    "make_batches",
    "num_batches_at_once",
    "open_cases",
    "predicted_labels_of",
]

_LOADED_ON_USE = {
    "batches": ("Batch", "TrainingCases", "make_batch", "make_batches", "num_batches_at_once"),
    "cascade": ("build_cascade_store", "predicted_labels_of"),
    "in_memory": ("case_bytes", "load_into_memory"),
    "on_disk": ("DiskCases", "open_cases"),
    "sampling": ("TRAINING_STREAM", "VALIDATION_STREAM", "iterations_per_pass"),
}


def __getattr__(name: str) -> Any:
    """Load the module of a name on its first use."""
    for module, names in _LOADED_ON_USE.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
