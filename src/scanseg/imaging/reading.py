"""Read images and label maps of any known format."""

from collections.abc import Sequence
from pathlib import Path

from scanseg.imaging.image import Image


def read_image(paths: Path | Sequence[Path]) -> Image:
    """Read an image from one file, or from several that hold its channels.

    One file may hold several channels: a colour raster, a vector image, a NIfTI file of four axes (the last
    is the channel). Voxels keep the type they have in the file.

    Args:
        paths: One file, or one file for each channel in their order.

    Raises:
        InputError: A file is missing, damaged, not an image, empty, holds NaN or infinities, has not two or
            three spatial axes, has an alpha channel that varies, or the files do not lie on one grid.
    """
    raise NotImplementedError


def read_label_map(path: Path) -> Image:
    """Read a label map: integers from 0 to 255 in one channel.

    Args:
        path: The file; floats are accepted where all of them are whole.

    Returns:
        The label map as uint8 of shape (1, z, y, x) or (1, y, x), with its place in space.

    Raises:
        InputError: As `read_image`; or values are not whole, negative, above 255, or there are several
            channels that differ.
    """
    raise NotImplementedError


def count_channels(path: Path) -> int:
    """Count the channels of an image file from its header.

    Args:
        path: The file.

    Raises:
        InputError: The file cannot be read.
    """
    raise NotImplementedError
