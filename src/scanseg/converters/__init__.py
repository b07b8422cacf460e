"""Converters of public data sets into the raw layout."""

from scanseg.converters.conversion import Conversion, compute_source_digest, convert_dataset
from scanseg.converters.table import NAMED_DATASETS, find_dataset

__all__ = [
    "NAMED_DATASETS",
    "Conversion",
    "compute_source_digest",
    "convert_dataset",
    "find_dataset",
]
