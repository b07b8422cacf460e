"""Preprocessing of cases, and stores of preprocessed cases."""

from scanseg.preprocessing.case import preprocess_image, to_grid
from scanseg.preprocessing.compressed import (
    import_array_library,
    open_array,
    read_array,
    read_part,
    write_array,
)
from scanseg.preprocessing.geometry import crop_from_source, flip, permute, place_in_source, separates_z
from scanseg.preprocessing.normalization import find_hidden_channels, find_range_faults
from scanseg.preprocessing.store import (
    CASES_FOLDER,
    IMAGE_FILE,
    INDEX_FILE,
    LABEL_MAP_FILE,
    PACKING_BASE,
    REFERENCE_FILE,
    Store,
    store_name,
)
from scanseg.preprocessing.store_building import build_store, lock_store

__all__ = [
    "CASES_FOLDER",
    "IMAGE_FILE",
    "INDEX_FILE",
    "LABEL_MAP_FILE",
    "PACKING_BASE",
    "REFERENCE_FILE",
    "Store",
    "build_store",
    "crop_from_source",
    "find_hidden_channels",
    "find_range_faults",
    "flip",
    "import_array_library",
    "lock_store",
    "open_array",
    "permute",
    "place_in_source",
    "preprocess_image",
    "read_array",
    "read_part",
    "separates_z",
    "store_name",
    "to_grid",
    "write_array",
]
