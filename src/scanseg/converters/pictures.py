"""Conversion of pictures to 8-bit colour, and pictures with masks."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from scanseg.converters.pairing import note_unused_files, pair_by_name
from scanseg.converters.sources import Found, Sample, SourceCase, first_folder
from scanseg.errors import InputError
from scanseg.imaging import Image, read_image
from scanseg.messages import counted

PERCENTILES = (0.5, 99.5)
"""Percentiles of the non-zero intensities of a channel that are scaled to 0 and 255.

They apply to pictures of more than 8 bits.
"""
_MASK_THRESHOLD = 127
_NEAR = 50
"""Largest difference from 0 or 255 that counts as one of them."""


def as_colour(image: Image) -> tuple[Image, tuple[str, ...]]:
    """Convert a picture to three channels of 8 bits.

    A single channel is repeated. A missing third channel is 0. More than 8 bits are scaled between two percentiles,
    channel by channel, as in the baseline of the NeurIPS cell challenge.

    Args:
        image: Picture (channel, y, x) of one to three channels.

    Returns:
        The picture (3, y, x), and a note on the scaling, if any.

    Raises:
        InputError: The image has more than three channels, or more than two axes.
    """
    if image.num_axes != 2 or image.num_channels > 3:
        raise InputError(
            f"expected a picture of at most 3 channels, got {counted(image.num_channels, 'channel')} of "
            f"{image.num_axes} axes."
        )
    image, notes = as_8_bits(image)
    array = image.array
    if len(array) == 1:
        array = np.repeat(array, 3, axis=0)
    elif len(array) == 2:
        array = np.concatenate([array, np.zeros_like(array[:1])])
    return replace(image, array=array), notes


def as_8_bits(image: Image) -> tuple[Image, tuple[str, ...]]:
    """Scale the channels of a deeper picture to 8 bits.

    Args:
        image: Picture (channel, y, x).

    Returns:
        The picture, and a note on the scaling, if any.
    """
    if image.array.dtype == np.uint8:
        return image, ()
    note = (
        f"{image.array.dtype} scaled to 8 bits between percentiles {PERCENTILES[0]:g} and {PERCENTILES[1]:g}"
    )
    return replace(image, array=np.stack([_to_8_bits(channel) for channel in image.array])), (note,)


def find_masks(source: Path) -> Found | None:
    """Find pictures `images/NAME.*` with masks `masks/NAME.*`.

    Masks have the values 0 and 255 and may be JPEG files.
    """
    root = first_folder(source, (".", "Kvasir-SEG"), ("images",))
    if root is None or not (root / "masks").is_dir():
        return None
    folders = (root / "images", root / "masks")
    readers, faults = pair_by_name(*folders, read=_read, noun="mask")
    cases = tuple(SourceCase(name, "train", read) for name, read in readers.items())
    return Found(cases, tuple(faults), tuple(note_unused_files(*folders)))


def _read(image: Path, mask: Path) -> Sample:
    """Read a picture and its mask.

    Values of the mask near 0 and 255, which JPEG compression causes, count as 0 and 255.
    """
    picture, notes = as_colour(read_image(image))
    values = read_image(mask)
    if values.num_axes != 2 or values.array.dtype != np.uint8 or (values.array != values.array[:1]).any():
        raise InputError(f"{mask}: expected a grey picture of 8 bits.")
    inside = _inside(mask, values.array[:1])
    return Sample(picture, replace(values, array=inside.astype(np.uint8)), notes=notes)


def _inside(path: Path, grey: np.ndarray) -> np.ndarray:
    """Return the foreground of a mask file.

    Its values are 0 and 255, or 0 and 1.

    Args:
        path: File of the mask, for messages.
        grey: Intensities (1, y, x).

    Raises:
        InputError: More than 2 % of the pixels are between the two values. JPEG causes fewer, at edges.
    """
    if grey.max() <= 1:
        return grey == 1
    between = (grey > _NEAR) & (grey < 255 - _NEAR)
    if between.mean() > 1 / 50 or grey.max() < 255 - _NEAR:
        values = ", ".join(map(str, np.unique(grey[grey > 0])[:5]))
        raise InputError(f"{path}: expected values 0 and 255, or 0 and 1, got values such as {values}.")
    return grey > _MASK_THRESHOLD


def _to_8_bits(channel: np.ndarray) -> np.ndarray:
    """Scale a channel to 8 bits between percentiles of its non-zero values."""
    values = channel[channel != 0]
    if not values.size:
        return np.zeros(channel.shape, np.uint8)
    low, high = np.percentile(values, PERCENTILES)
    scaled = (channel.astype(np.float64) - low) / max(high - low, 1e-8)
    return np.rint(np.clip(scaled, 0, 1) * 255).astype(np.uint8)
