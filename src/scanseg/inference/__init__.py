"""Segmentation of images: windows, resampling to the source grid, uncertainty, folders.

Names that need PyTorch load on first use. So exported models predict without PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from scanseg.inference.case_files import CaseOptions, CaseToPredict, segment_case, write_case
from scanseg.inference.ensemble import label_maps_of_groups, share_progress
from scanseg.inference.exported import EXPORTED_FILE, is_exported
from scanseg.inference.folder import CaseRunner, FolderWork, predict_folder
from scanseg.inference.folder_options import FolderOptions
from scanseg.inference.loading import load
from scanseg.inference.outputs import (
    WRITTEN_AS,
    CaseOutputs,
    OutputFormat,
    OutputOptions,
    check_output,
    find_outputs,
    write_map,
)
from scanseg.inference.postprocessing import postprocess
from scanseg.inference.prediction import Prediction
from scanseg.inference.predictor import Predictor
from scanseg.inference.resample import resample_slices
from scanseg.inference.sessions import Runtime, open_session, run_session
from scanseg.inference.small_case import predict_small_case
from scanseg.inference.uncertainty import to_probabilities

if TYPE_CHECKING:
    from scanseg.inference.cuda_graph import CudaGraphNetwork

__all__ = [
    "EXPORTED_FILE",
    "WRITTEN_AS",
    "CaseOptions",
    "CaseOutputs",
    "CaseRunner",
    "CaseToPredict",
    "CudaGraphNetwork",
    "FolderOptions",
    "FolderWork",
    "OutputFormat",
    "OutputOptions",
    "Prediction",
    "Predictor",
    "Runtime",
    "check_output",
    "find_outputs",
    "is_exported",
    "label_maps_of_groups",
    "load",
    "open_session",
    "postprocess",
    "predict_folder",
    "predict_small_case",
    "resample_slices",
    "run_session",
    "segment_case",
    "share_progress",
    "to_probabilities",
    "write_case",
    "write_map",
]


def __getattr__(name: str) -> Any:
    """Load a module that needs PyTorch on the first use of its name."""
    if name == "CudaGraphNetwork":
        return import_module("scanseg.inference.cuda_graph").CudaGraphNetwork
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
