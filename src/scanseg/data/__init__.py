"""Cases: found, checked, measured, preprocessed, stored and sampled."""

from scanseg.data.check import CheckReport, check_dataset
from scanseg.data.fingerprint import measure
from scanseg.data.folds import find_splits
from scanseg.data.geometry import crop_from_source, lifted_spacing, place_in_source, separates_z
from scanseg.data.preprocess import PreprocessedCase, preprocess_case, preprocess_image
from scanseg.data.raw import RawCase, RawDataset, find_cases, find_cases_of, open_dataset
from scanseg.data.store import Store, store_name
from scanseg.data.store_building import build_store

__all__ = [
    "CheckReport",
    "PreprocessedCase",
    "RawCase",
    "RawDataset",
    "Store",
    "build_store",
    "check_dataset",
    "crop_from_source",
    "find_cases",
    "find_cases_of",
    "find_splits",
    "lifted_spacing",
    "measure",
    "open_dataset",
    "place_in_source",
    "preprocess_case",
    "preprocess_image",
    "separates_z",
    "store_name",
]
