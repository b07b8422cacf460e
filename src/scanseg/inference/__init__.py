"""Segmentation of images: windows, resampling to the source grid, uncertainty, folders."""

from scanseg.inference.cuda_graph import CudaGraphNetwork
from scanseg.inference.ensemble import label_maps_of_groups, share_progress
from scanseg.inference.loading import load
from scanseg.inference.postprocessing import postprocess
from scanseg.inference.prediction import Prediction
from scanseg.inference.predictor import Predictor

__all__ = [
    "CudaGraphNetwork",
    "Prediction",
    "Predictor",
    "label_maps_of_groups",
    "load",
    "postprocess",
    "share_progress",
]
