"""Converters of public data sets into the raw layout."""

from scanseg.converters.conversion import Conversion, convert_dataset
from scanseg.converters.table import NAMED_DATASETS, find_dataset

__all__ = [
    "NAMED_DATASETS",
    "Conversion",
    "convert_dataset",
    "find_dataset",
]
