"""Data sets that have names: from the forms in which people have them to the raw layout."""

from scanseg.datasets.conversion import Conversion, convert_dataset
from scanseg.datasets.objects import interior_and_boundary
from scanseg.datasets.published import published_split
from scanseg.datasets.sources import NamedDataset
from scanseg.datasets.table import NAMED_DATASETS, find_dataset

__all__ = [
    "NAMED_DATASETS",
    "Conversion",
    "NamedDataset",
    "convert_dataset",
    "find_dataset",
    "interior_and_boundary",
    "published_split",
]
