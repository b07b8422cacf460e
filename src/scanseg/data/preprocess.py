"""From an image in its file's grid to the array that a network sees."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Integer, UInt8

from scanseg.imaging import Image
from scanseg.specs import CaseGeometry, PreprocessingSpec


@dataclass(frozen=True, eq=False)
class PreprocessedCase:
    """A case on the network's grid."""

    image: Float32[np.ndarray, "channel z y x"]
    label_map: UInt8[np.ndarray, "z y x"]
    geometry: CaseGeometry


def preprocess_image(
    image: Image, preprocessing: PreprocessingSpec
) -> tuple[Float32[np.ndarray, "channel z y x"], CaseGeometry]:
    """Permute, crop, normalise and resample an image.

    Args:
        image: The image as it was read.
        preprocessing: What to do.

    Returns:
        The array, and how to come back to the source's grid.

    Raises:
        InputError: The image has another number of channels than the preprocessing.
    """
    raise NotImplementedError


def preprocess_case(
    image: Image, label_map: Integer[np.ndarray, "*spatial"], preprocessing: PreprocessingSpec
) -> PreprocessedCase:
    """Preprocess an image and its label map alike.

    Args:
        image: The image as it was read.
        label_map: Labels from 0 to 255 on the image's grid, of shape (z, y, x) or (y, x).
        preprocessing: What to do.

    Raises:
        InputError: The label map has another shape than the image, or the image another number of channels
            than the preprocessing.
    """
    raise NotImplementedError
