"""Converters of public data sets into the raw layout."""

from scanseg.converters.conversion import (
    Conversion,
    SourceInspection,
    compute_source_digest,
    convert_dataset,
    inspect_dataset,
)
from scanseg.converters.label_table import read_label_table
from scanseg.converters.own_cases import OverlapRule
from scanseg.converters.own_folder import (
    OWN_FOLDER,
    FolderInspection,
    convert_folder,
    inspect_folder,
    name_folders,
)
from scanseg.converters.own_survey import FolderOptions
from scanseg.converters.table import NAMED_DATASETS, find_dataset

__all__ = [
    "NAMED_DATASETS",
    "OWN_FOLDER",
    "Conversion",
    "FolderInspection",
    "FolderOptions",
    "OverlapRule",
    "SourceInspection",
    "compute_source_digest",
    "convert_dataset",
    "convert_folder",
    "find_dataset",
    "inspect_dataset",
    "inspect_folder",
    "name_folders",
    "read_label_table",
]
