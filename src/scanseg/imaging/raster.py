"""Read and write raster images with pillow and tifffile.

Raster images have no origin or direction. Their spacing is 1 mm per pixel.
"""

import json
import re
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Integer, Shaped

from scanseg.documents import read_json
from scanseg.errors import InputError
from scanseg.imaging.exif import (
    ORIENTATION_TAG,
    STORED_AS_DISPLAYED,
    as_displayed,
    as_stored,
    read_orientation,
)
from scanseg.imaging.header import PictureHeader
from scanseg.imaging.image import Image
from scanseg.imaging.itk import count_itk_channels, read_itk
from scanseg.imaging.tiff import (
    CHANNEL_AXES,
    DECODER_ERRORS,
    STACK_AXES,
    TiffHeader,
    apply_palette,
    decode,
    read_header,
)
from scanseg.messages import counted, shortened

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

_GREY_MODES = ("1", "L", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_COLOUR_MODES = {"RGB": "RGB", "YCbCr": "RGB", "CMYK": "RGB", "RGBA": "RGBA", "LA": "LA"}
"""Colour mode of a picture to the mode in which it is read."""
_SCALE_OF_BITS = {"L;2": 85, "L;4": 17}
"""Factor by which pillow scales grey pictures of 2 and 4 bits to 8 bits, by its name of the stored form."""


def read_pillow(path: Path, *, indices: bool) -> Image:
    """Read a PNG, BMP or JPEG file as it is displayed.

    An orientation tag is applied.

    Args:
        path: The file.
        indices: Read the stored values (for label maps): the palette indices of a picture with a palette instead of
            its colours, and 2 or 4 bits without scaling to 8 bits.

    Raises:
        InputError: The file is damaged, its colour mode is unknown, or its alpha channel varies.
    """
    with _open_picture(path) as picture:
        if _is_deep_colour(picture):
            array = _deep_grey_and_alpha(path, picture) if _is_deep_grey(picture) else read_itk(path).array
            has_alpha = array.shape[0] in (2, 4)
        else:
            mode, scale = _reading_mode(path, picture, indices=indices), _scale_of_bits(picture)
            array = _pixels(path, picture, mode=mode)
            array = array // scale if indices and scale > 1 else array
            has_alpha = mode in ("RGBA", "LA")
        orientation = read_orientation(picture)
    if has_alpha:
        array = _without_alpha(path, array)
    return raster_image(as_displayed(array, orientation), orientation=orientation)


def count_pillow_channels(path: Path) -> int:
    """Count the channels of a PNG, BMP or JPEG file, without alpha.

    Only the header is read.

    Args:
        path: The file.

    Raises:
        InputError: The header cannot be read.
    """
    with _open_picture(path) as picture:
        if _is_deep_grey(picture):
            return 1
        if _is_deep_colour(picture):
            return {1: 1, 2: 1, 3: 3, 4: 3}[count_itk_channels(path)]
        return 1 if picture.mode in (*_GREY_MODES, "LA") else 3


def read_tiff(path: Path, *, indices: bool, num_channels: int | None = None) -> Image:
    """Read a TIFF file as it is displayed.

    It holds one grey or colour picture, or one stack along z. An orientation tag is applied. The spacing comes from a
    file `CASE.json` beside it, as in nnU-Net: `{"spacing": [z, y, x]}` in mm.

    Args:
        path: The file.
        indices: Read the stored values (for label maps): palette indices instead of colours, and no inversion of
            pictures in which 0 is white.
        num_channels: Number of channels of the data set. If it is 1, planes that may be slices are slices. `None`:
            unknown.

    Raises:
        InputError: The file is damaged, its compression or its axes are unknown, its alpha channel varies, or it
            cannot hold a label map.
    """
    header = read_header(path)
    if indices:
        _check_holds_labels(path, header)
    axes, array = header.axes, decode(path, header)
    alpha = header.alpha
    if header.planes_may_be_slices and (indices or num_channels == 1):
        axes, alpha = axes.replace("S", "Z"), ()
    array = _channels_first(path, array, axes)
    for index in sorted(alpha, reverse=True):
        array = _without_alpha(path, array, index)
    if not indices:
        array = _as_intensities(array, header)
    if array.dtype == np.bool_:
        array = array.astype(np.uint8)
    spacing = _companion_spacing(path, array.ndim - 1)
    image = raster_image(
        as_displayed(array, header.orientation), spacing=spacing, orientation=header.orientation
    )
    is_unused = spacing is None and image.num_axes == 3 and header.voxel_size is not None
    return replace(image, warnings=(_unused_size(path, header),)) if is_unused else image


def count_tiff_channels(path: Path) -> int:
    """Count the channels of a TIFF file, without alpha.

    Only the header is read.

    Args:
        path: The file.

    Raises:
        InputError: The header cannot be read.
    """
    return read_header(path).num_channels


def write_pillow(
    path: Path, pixels: Integer[np.ndarray, "y x *colour"], *, orientation: int = STORED_AS_DISPLAYED
) -> None:
    """Write a grey or colour picture.

    Args:
        path: The file.
        pixels: Displayed picture of shape (y, x) for grey, (y, x, 3) for colour.
        orientation: Orientation tag from 1 to 8. BMP files do not hold it.
    """
    import PIL.Image

    if orientation == STORED_AS_DISPLAYED or path.suffix.lower() == ".bmp":
        PIL.Image.fromarray(pixels).save(path)
        return
    exif = PIL.Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    channels_first = pixels if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    stored = as_stored(channels_first, orientation)
    stored = stored if pixels.ndim == 2 else np.moveaxis(stored, 0, -1)
    PIL.Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif)


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


def companion_path(path: Path) -> Path:
    """Return the path of the JSON file with a TIFF file's spacing.

    It is `CASE.json` for `CASE_0000.tif`.

    Args:
        path: The TIFF file.
    """
    return path.with_name(re.sub(r"_\d{4}$", "", path.stem) + ".json")


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


def _open_picture(path: Path) -> "ImageFile":
    """Open a picture and read its header.

    Pillow's warning for large pictures is off.
    """
    import PIL.Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
            return PIL.Image.open(path)
    except PIL.Image.DecompressionBombError as error:
        raise InputError(f"{path}: {error}. Save pictures of this size as TIFF.") from error
    except DECODER_ERRORS as error:
        raise InputError(f"{path}: damaged, or in another format than its ending.") from error


def _is_deep_colour(picture: "ImageFile") -> bool:
    """Return whether a colour picture has 16 bits per channel.

    Pillow keeps only 8 of them.
    """
    arguments = picture.tile[0][3] if picture.tile else None
    mode = arguments if isinstance(arguments, str) else (arguments or ("",))[0]
    return isinstance(mode, str) and ";16" in mode and picture.mode not in _GREY_MODES


def _is_deep_grey(picture: "ImageFile") -> bool:
    """Return whether a picture holds grey and alpha of 16 bits."""
    return bool(picture.tile) and picture.tile[0][3] == "LA;16B"


def _deep_grey_and_alpha(path: Path, picture: "ImageFile") -> Shaped[np.ndarray, "2 y x"]:
    """Decode a grey picture of 16 bits with alpha.

    SimpleITK does not read it, and pillow keeps 8 bits. As four channels of 8 bits it has the same bytes.
    """
    picture._mode = "RGBA"
    picture.tile = [picture.tile[0]._replace(args="RGBA")]
    pixels = np.moveaxis(_pixels(path, picture, mode="RGBA"), 0, -1)
    return np.moveaxis(np.ascontiguousarray(pixels).view(">u2").astype(np.uint16), -1, 0)


def _reading_mode(path: Path, picture: "ImageFile", *, indices: bool) -> str:
    """Return the colour mode in which a picture is read."""
    mode: str = picture.mode
    if mode == "P":
        if indices:
            return "P"
        return "RGBA" if "transparency" in picture.info else "RGB"
    if mode in _GREY_MODES:
        return mode
    if mode not in _COLOUR_MODES:
        raise InputError(f"{path}: unknown colour mode {mode}. Save the picture as grey or RGB.")
    return _COLOUR_MODES[mode]


def _pixels(path: Path, picture: "ImageFile", *, mode: str) -> Shaped[np.ndarray, "channel y x"]:
    """Decode a picture in a colour mode."""
    try:
        array = np.asarray(picture if mode == picture.mode else picture.convert(mode))
    except DECODER_ERRORS as error:
        raise InputError(f"{path}: damaged ({error}).") from error
    if array.dtype == np.bool_:
        array = array.astype(np.uint8)
    return array[np.newaxis] if array.ndim == 2 else np.moveaxis(array, -1, 0)


def _without_alpha(
    path: Path, array: Shaped[np.ndarray, "channel *spatial"], index: int = -1
) -> Shaped[np.ndarray, "colour *spatial"]:
    """Remove a channel (alpha) if it is constant.

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


def _scale_of_bits(picture: "ImageFile") -> int:
    """Return the factor by which pillow scales the values of a picture."""
    stored = picture.tile[0][3] if picture.tile else None
    return _SCALE_OF_BITS.get(stored, 1) if isinstance(stored, str) else 1


def _is_length(value: object) -> bool:
    """Return whether a JSON value is a finite number above 0."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < sys.float_info.max


def _unused_size(path: Path, header: TiffHeader) -> str:
    """Return the warning about an unused voxel size."""
    size = [float(f"{value:.6g}") for value in header.voxel_size or ()]
    return (
        f"{path.name}: the file states a voxel size of {' x '.join(f'{value:g}' for value in size)} mm (z, y, x), "
        f'which is not used: each voxel counts as 1 mm. Write {{"spacing": {size}}} into '
        f"{companion_path(path).name} beside it"
    )


def _companion_spacing(path: Path, num_axes: int) -> tuple[float, ...] | None:
    """Read the spacing from the JSON file beside a TIFF file.

    Returns:
        Millimetres per voxel along each axis. `None`: the file is missing.
    """
    companion = companion_path(path)
    if not companion.is_file():
        return None
    content = read_json(companion)
    values = content.get("spacing") if isinstance(content, dict) else None
    if not isinstance(values, list) or not all(_is_length(value) for value in values):
        found = shortened(json.dumps(content))
        raise InputError(f'{companion}: expected {{"spacing": [z, y, x]}} in mm, above 0, got {found}.')
    spacing = tuple(float(value) for value in values)
    if len(spacing) < num_axes:
        raise InputError(
            f"{companion}: expected a spacing of {num_axes} axes as in {path.name}, got "
            f"{counted(len(spacing), 'axis', 'axes')}: {spacing}."
        )
    return spacing[-num_axes:]
