"""Batches: sampling and augmentation of patches."""

from scanseg.batches.batches import Batch, TrainingCases, make_batch, make_batches, num_batches_at_once
from scanseg.batches.cascade import build_cascade_store, predicted_labels_of
from scanseg.batches.in_memory import case_bytes, load_into_memory
from scanseg.batches.on_disk import DiskCases, open_cases
from scanseg.batches.sampling import TRAINING_STREAM, VALIDATION_STREAM, iterations_per_pass
from scanseg.batches.shard import BatchShard

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
