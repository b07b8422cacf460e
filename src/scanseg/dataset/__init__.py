"""Raw data sets in nnU-Net's layout: description, check, splits, fingerprint."""

from scanseg.dataset.case_names import find_name_fault
from scanseg.dataset.check import CheckReport, check_dataset, checked_early
from scanseg.dataset.description import DESCRIPTION_FILE, read_description
from scanseg.dataset.digest import compute_dataset_digest
from scanseg.dataset.fingerprint import compute_fingerprint
from scanseg.dataset.folder_cases import FolderCases, find_folder_cases
from scanseg.dataset.folder_pairs import FolderCase
from scanseg.dataset.image_folder import ImageFolder, find_images
from scanseg.dataset.inspection import check_values, count_values
from scanseg.dataset.intensities import measure_ranges
from scanseg.dataset.naming import FaultyCase
from scanseg.dataset.raw import (
    IMAGES_FOLDER,
    TEST_IMAGES_FOLDER,
    TEST_LABELS_FOLDER,
    RawCase,
    RawDataset,
    find_cases_of_files,
    find_test_cases,
    open_dataset,
    read_case,
)
from scanseg.dataset.series_cases import SeriesCases, find_series_cases, find_series_places
from scanseg.dataset.splits import NNUNET_SPLITS_FILE, SPLITS_FILE, find_splits, list_unused

__all__ = [
    "DESCRIPTION_FILE",
    "IMAGES_FOLDER",
    "NNUNET_SPLITS_FILE",
    "SPLITS_FILE",
    "TEST_IMAGES_FOLDER",
    "TEST_LABELS_FOLDER",
    "CheckReport",
    "FaultyCase",
    "FolderCase",
    "FolderCases",
    "ImageFolder",
    "RawCase",
    "RawDataset",
    "SeriesCases",
    "check_dataset",
    "check_values",
    "checked_early",
    "compute_dataset_digest",
    "compute_fingerprint",
    "count_values",
    "find_cases_of_files",
    "find_folder_cases",
    "find_images",
    "find_name_fault",
    "find_series_cases",
    "find_series_places",
    "find_splits",
    "find_test_cases",
    "list_unused",
    "measure_ranges",
    "open_dataset",
    "read_case",
    "read_description",
]
