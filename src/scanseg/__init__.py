"""Segmentation of medical images with networks that read an image as a sequence."""

__version__ = "0.1.0"
