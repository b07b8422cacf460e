"""Segmentation of images with trained networks: windows, restoring of the source grid, uncertainty, folders."""

from scanseg.inference.folders import predict_folder
from scanseg.inference.loading import load
from scanseg.inference.prediction import Prediction, PreparedImage
from scanseg.inference.predictor import Predictor
from scanseg.inference.restoring import Restored, resize_labels, restore
from scanseg.inference.windows import (
    Windowing,
    gaussian_weights,
    predict_slabs,
    predict_windows,
    window_starts,
)

__all__ = [
    "Prediction",
    "Predictor",
    "PreparedImage",
    "Restored",
    "Windowing",
    "gaussian_weights",
    "load",
    "predict_folder",
    "predict_slabs",
    "predict_windows",
    "resize_labels",
    "restore",
    "window_starts",
]
