"""Read TIFF files as images, and write label maps as TIFF.

Raster images have no origin or direction. Their spacing is 1 mm per pixel.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Integer, Shaped

from scanseg.errors import InputError
from scanseg.imaging.companion import companion_path, read_companion_spacing
from scanseg.imaging.exif import ORIENTATION_TAG, STORED_AS_DISPLAYED, as_displayed, as_stored
from scanseg.imaging.header import PictureHeader
from scanseg.imaging.image import Image
from scanseg.imaging.tiff import (
    CHANNEL_AXES,
    STACK_AXES,
    TiffHeader,
    apply_palette,
    read_header,
    read_samples,
)


def read_tiff(path: Path, *, indices: bool, num_channels: int | None = None) -> Image:
    """Read a TIFF file as it is displayed.

    It holds one grey or colour picture, or one stack along z. An orientation tag is applied. The spacing comes from a
    file `CASE.json` beside it, as in nnU-Net (see `companion_path`): `{"spacing": [z, y, x]}` in mm.

    Args:
        path: The file.
        indices: Read the stored values (for label maps): palette indices instead of colours, and no inversion of
            pictures in which 0 is white. The name of the file has no channel number.
        num_channels: Number of channels of the data set. If it is 1, planes that may be slices are slices. `None`:
            unknown.

    Raises:
        InputError: The file is damaged, its compression or its axes are unknown, its alpha channel varies, or it
            cannot hold a label map.
    """
    header, array = read_samples(path, check=partial(_check_holds_labels, path) if indices else None)
    axes, alpha = header.axes, header.alpha
    if header.planes_may_be_slices and (indices or num_channels == 1):
        axes, alpha = axes.replace("S", "Z"), ()
    array = _channels_first(path, array, axes)
    for index in sorted(alpha, reverse=True):
        array = without_alpha(path, array, index)
    if not indices:
        array = _as_intensities(array, header)
    if array.dtype == np.bool_:
        array = array.astype(np.uint8)
    spacing = read_companion_spacing(path, array.ndim - 1, is_label_map=indices)
    image = raster_image(
        as_displayed(array, header.orientation), spacing=spacing, orientation=header.orientation
    )
    is_unused = spacing is None and image.num_axes == 3 and header.voxel_size is not None
    if not is_unused:
        return image
    return replace(image, warnings=(_unused_size(path, header, is_label_map=indices),))


def count_tiff_channels(path: Path) -> int:
    """Count the channels of a TIFF file, without alpha.

    Only the header is read.

    Args:
        path: The file.

    Raises:
        InputError: The header cannot be read.
    """
    return read_header(path).num_channels


def write_tiff(
    path: Path, label_map: Integer[np.ndarray, "*spatial"], *, orientation: int = STORED_AS_DISPLAYED
) -> None:
    """Write a compressed label map.

    Args:
        path: The file.
        label_map: Label values of the displayed picture, of shape (z, y, x) or (y, x).
        orientation: Orientation tag from 1 to 8.
    """
    import tifffile

    has_tag = orientation != STORED_AS_DISPLAYED

    tifffile.imwrite(
        path,
        np.ascontiguousarray(as_stored(label_map, orientation)),
        photometric="minisblack",
        compression="zlib",
        metadata={"axes": "ZYX"[3 - label_map.ndim :]},
        extratags=[(ORIENTATION_TAG, "H", 1, orientation, False)] if has_tag else (),
    )


def raster_image(
    array: Shaped[np.ndarray, "channel *spatial"],
    *,
    spacing: tuple[float, ...] | None = None,
    orientation: int = STORED_AS_DISPLAYED,
) -> Image:
    """Return an array as an image with the geometry of raster images.

    Args:
        array: Shape (channel, y, x) or (channel, z, y, x).
        spacing: Millimetres per pixel along each spatial axis. `None`: 1.
        orientation: Orientation tag of the file, which has been applied.
    """
    num_axes = array.ndim - 1
    return Image(
        array=np.ascontiguousarray(array),
        spacing=spacing or (1.0,) * num_axes,
        origin=(0.0,) * num_axes,
        direction=tuple(float(value) for value in np.eye(num_axes).ravel()),
        header=None if orientation == STORED_AS_DISPLAYED else PictureHeader(orientation),
    )


def without_alpha(
    path: Path, array: Shaped[np.ndarray, "channel *spatial"], index: int = -1
) -> Shaped[np.ndarray, "colour *spatial"]:
    """Remove a channel (alpha) if it is constant.

    Args:
        path: The file, for messages.
        array: The picture with alpha.
        index: Index of the channel.

    Raises:
        InputError: The alpha channel varies.
    """
    alpha = array[index]
    if alpha.size and alpha.min() != alpha.max():
        raise InputError(
            f"{path}: the alpha channel varies from {alpha.min()} to {alpha.max()}. Save the picture without alpha, "
            "or alpha as a channel of its own."
        )
    return np.delete(array, index, axis=0)


def _channels_first(
    path: Path, array: Shaped[np.ndarray, "..."], axes: str
) -> Shaped[np.ndarray, "channel *spatial"]:
    """Order the axes of a TIFF file.

    The result has the axes channel, z, y, x, or channel, y, x.

    Args:
        path: The file, for messages.
        array: Decoded samples.
        axes: Letters of tifffile for its axes.

    Raises:
        InputError: The axes do not belong to one picture or stack.
    """
    letters = [letter for letter in axes if letter not in "YX" + CHANNEL_AXES]
    channels = [letter for letter in axes if letter in CHANNEL_AXES]
    are_known = len(axes) == array.ndim and {"Y", "X"} <= set(axes) and set(letters) <= set(STACK_AXES)
    if not are_known or len(letters) > 1 or len(channels) > 1:
        raise InputError(
            f"{path}: expected one picture or one stack along z with at most one channel axis, got axes {axes} of "
            f"shape {array.shape}. Save each picture or stack as a file of its own."
        )
    array = array.transpose([axes.index(letter) for letter in (*channels, *letters, "Y", "X")])
    return array if channels else array[np.newaxis]


def _as_intensities(
    array: Shaped[np.ndarray, "channel *spatial"], header: TiffHeader
) -> Shaped[np.ndarray, "channel *spatial"]:
    """Return the intensities of stored values.

    Palette indices become colours. If 0 is white, unsigned integers are inverted.
    """
    if header.palette is not None and len(array) == 1:
        return apply_palette(array[0], header.palette)
    if header.has_lowest_white and array.dtype.kind == "b":
        return ~array
    if header.has_lowest_white and array.dtype.kind == "u":
        return array.dtype.type(2**header.bits - 1) - array
    return array


def _check_holds_labels(path: Path, header: TiffHeader) -> None:
    """Check that a TIFF file can hold a label map.

    Raises:
        InputError: Its compression may change values, or it is unclear which of two values is the foreground.
    """
    if header.may_be_lossy:
        raise InputError(
            f"{path}: {header.compression_name} compression may change values and cannot hold a label map. Save it "
            "with deflate or LZW."
        )
    if header.has_lowest_white and header.bits == 1:
        raise InputError(
            f"{path}: expected a label map in which 0 is black, got 1 bit in which 0 is white. Save it in 8 bits, with "
            "1 in the foreground."
        )


def _unused_size(path: Path, header: TiffHeader, *, is_label_map: bool) -> str:
    """Return the warning about an unused voxel size."""
    size = [float(f"{value:.6g}") for value in header.voxel_size or ()]
    return (
        f"{path.name}: the file states a voxel size of {' x '.join(f'{value:g}' for value in size)} mm (z, y, x), "
        f'which is not used: each voxel counts as 1 mm. Write {{"spacing": {size}}} into '
        f"{companion_path(path, is_label_map=is_label_map).name} beside it"
    )
