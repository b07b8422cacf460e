"""Raw data sets in nnU-Net's layout: opened, checked and measured."""

from scanseg.dataset.check import CheckReport, check_dataset
from scanseg.dataset.description import DESCRIPTION_FILE, read_description
from scanseg.dataset.fingerprint import measure
from scanseg.dataset.inspection import count_values, judge_values
from scanseg.dataset.naming import count_others
from scanseg.dataset.raw import (
    IMAGES_FOLDER,
    RawCase,
    RawDataset,
    find_cases,
    find_cases_of,
    open_dataset,
    read_case,
)
from scanseg.dataset.splits import NNUNET_FILE, OUR_FILE, find_splits

__all__ = [
    "DESCRIPTION_FILE",
    "IMAGES_FOLDER",
    "NNUNET_FILE",
    "OUR_FILE",
    "CheckReport",
    "RawCase",
    "RawDataset",
    "check_dataset",
    "count_others",
    "count_values",
    "find_cases",
    "find_cases_of",
    "find_splits",
    "judge_values",
    "measure",
    "open_dataset",
    "read_case",
    "read_description",
]
