"""Segmentation of images with trained networks: windows, restoring of the source grid, folders."""

from scanseg.inference.folders import predict_folder
from scanseg.inference.predictor import Prediction, Predictor, PreparedImage, load
from scanseg.inference.restoring import resize_labels, restore_label_map, restore_probabilities
from scanseg.inference.windows import gaussian_weights, predict_windows, window_starts

__all__ = [
    "Prediction",
    "Predictor",
    "PreparedImage",
    "gaussian_weights",
    "load",
    "predict_folder",
    "predict_windows",
    "resize_labels",
    "restore_label_map",
    "restore_probabilities",
    "window_starts",
]
