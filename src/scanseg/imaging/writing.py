"""Write label maps and probabilities, whole or not at all."""

from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer

from scanseg.imaging.image import Image


def write_label_map(path: Path, label_map: Integer[np.ndarray, "*spatial"], *, like: Image) -> None:
    """Write a label map as uint8, on the grid of an image.

    The file appears under its name only once it is complete; one that is there is replaced.

    Args:
        path: The file; its ending chooses the format.
        label_map: Labels from 0 to 255, of shape (z, y, x) or (y, x).
        like: The image whose shape, spacing, origin and direction the label map has.

    Raises:
        InputError: The ending is not one that can hold a label map without loss, or shape or values do
            not fit.
    """
    raise NotImplementedError


def write_probabilities(
    path: Path, probabilities: Float[np.ndarray, "output *spatial"], *, like: Image
) -> None:
    """Write probabilities as a compressed `.npz` with the one array `probabilities`, in float16.

    The file appears under its name only once it is complete; one that is there is replaced.

    Args:
        path: The file, ending in `.npz`.
        probabilities: Values in [0, 1] of shape (output, z, y, x) or (output, y, x), on the source grid.
        like: The image whose shape the probabilities have.

    Raises:
        InputError: The ending is not `.npz`, or the shape is not that of the image.
    """
    raise NotImplementedError
