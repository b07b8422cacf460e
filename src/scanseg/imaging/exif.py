"""Orientation tags of pictures: EXIF and TIFF tag 274.

Cameras and microscopes store the pixels as they leave the sensor, and a tag that turns or mirrors them for display.
Arrays of scanseg hold the displayed picture. Source: Exif 3.0, section 4.6.5.1.1; TIFF 6.0, page 36.
"""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Shaped

if TYPE_CHECKING:
    import PIL.Image

ORIENTATION_TAG = 274
"""Number of the tag (0x0112)."""
STORED_AS_DISPLAYED = 1
"""Orientation of pictures whose pixels are stored as they are displayed."""

_SWAPS_AXES = (5, 6, 7, 8)
"""Orientations whose displayed rows are stored columns."""
_FLIPS_Y = (3, 4, 7, 8)
"""Orientations whose displayed picture is reversed along y, after the swap."""
_FLIPS_X = (2, 3, 6, 7)
"""Orientations whose displayed picture is reversed along x, after the swap."""


def valid_orientation(value: object) -> int:
    """Return an orientation from 1 to 8.

    Args:
        value: Value of the tag. Any other value counts as 1, as in viewers.
    """
    if isinstance(value, int) and STORED_AS_DISPLAYED <= value <= max(_SWAPS_AXES):
        return int(value)
    return STORED_AS_DISPLAYED


def read_orientation(picture: "PIL.Image.Image") -> int:
    """Return the orientation of an open picture.

    It is the EXIF tag, or else the XMP entry.

    Args:
        picture: Picture of pillow. Its pixels are loaded if the tag may follow them.

    Returns:
        A value from 1 to 8. It is 1 if the tag is missing or damaged.
    """
    try:
        return valid_orientation(picture.getexif().get(ORIENTATION_TAG))
    except Exception:  # damaged EXIF data raise errors of many kinds, and viewers show the picture
        return STORED_AS_DISPLAYED


def as_displayed(array: Shaped[np.ndarray, "*axes y x"], orientation: int) -> Shaped[np.ndarray, "*axes v u"]:
    """Turn and mirror stored pixels into the displayed picture.

    Args:
        array: Stored pixels. The last two axes are rows and columns.
        orientation: Value of the tag from 1 to 8.
    """
    if orientation in _SWAPS_AXES:
        array = array.swapaxes(-1, -2)
    return _flipped(array, y=orientation in _FLIPS_Y, x=orientation in _FLIPS_X)


def as_stored(array: Shaped[np.ndarray, "*axes v u"], orientation: int) -> Shaped[np.ndarray, "*axes y x"]:
    """Turn and mirror a displayed picture into its stored pixels.

    Args:
        array: Displayed picture. The last two axes are rows and columns.
        orientation: Value of the tag from 1 to 8.
    """
    array = _flipped(array, y=orientation in _FLIPS_Y, x=orientation in _FLIPS_X)
    return array.swapaxes(-1, -2) if orientation in _SWAPS_AXES else array


def _flipped(array: np.ndarray, *, y: bool, x: bool) -> np.ndarray:
    """Reverse the rows, the columns, or both."""
    return array[..., :: -1 if y else 1, :: -1 if x else 1]
