"""Read and write raster images with pillow and tifffile.

Raster images have no origin or direction. Their spacing is 1 mm per pixel.
"""

import json
import logging
import re
import struct
import sys
import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Integer, Shaped

from scanseg.documents import read_json
from scanseg.errors import InputError
from scanseg.imaging.image import Image
from scanseg.imaging.itk import count_itk_channels, read_itk
from scanseg.messages import counted, shortened

if TYPE_CHECKING:
    import tifffile
    from PIL.ImageFile import ImageFile

_GREY_MODES = ("1", "L", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_COLOUR_MODES = {"RGB": "RGB", "YCbCr": "RGB", "CMYK": "RGB", "RGBA": "RGBA", "LA": "LA"}
"""Colour mode of a picture to the mode in which it is read."""
_DECODER_ERRORS = (
    *(OSError, SyntaxError, ValueError, LookupError, ArithmeticError, TypeError, AttributeError),
    *(AssertionError, RuntimeError, zlib.error, struct.error),
)
"""Errors that pillow and tifffile raise for damaged files."""

_TIFF_STACK_AXES = "ZIQ"
"""Letters of tifffile for the axis of a stack."""


def read_pillow(path: Path, *, indices: bool) -> Image:
    """Read a PNG, BMP or JPEG file.

    Args:
        path: The file.
        indices: Read the palette indices of a picture with a palette (for label maps) instead of its colours.

    Raises:
        InputError: The file is damaged, its colour mode is unknown, or its alpha channel varies.
    """
    with _open_picture(path) as picture:
        if _is_deep_colour(picture):
            array = read_itk(path).array
            has_alpha = array.shape[0] in (2, 4)
        else:
            mode = _reading_mode(path, picture, indices=indices)
            array = _pixels(path, picture, mode=mode)
            has_alpha = mode in ("RGBA", "LA")
    return raster_image(_without_alpha(path, array) if has_alpha else array)


def count_pillow_channels(path: Path) -> int:
    """Count the channels of a PNG, BMP or JPEG file, without alpha.

    Only the header is read.

    Args:
        path: The file.

    Raises:
        InputError: The header cannot be read.
    """
    with _open_picture(path) as picture:
        if _is_deep_colour(picture):
            return {1: 1, 2: 1, 3: 3, 4: 3}[count_itk_channels(path)]
        return 1 if picture.mode in (*_GREY_MODES, "LA") else 3


def read_tiff(path: Path) -> Image:
    """Read a TIFF file: one picture or one stack along z.

    Pictures are grey or colour. The spacing comes from a file `CASE.json` beside it, as in nnU-Net:
    `{"spacing": [z, y, x]}` in mm.

    Args:
        path: The file.

    Raises:
        InputError: The file is damaged, its compression or its axes are unknown, or its alpha channel varies.
    """
    array, axes, has_alpha = _tiff_pixels(path)
    letters = [letter for letter in axes if letter not in "YXSC"]
    channels = [letter for letter in axes if letter in "SC"]
    are_known = len(axes) == array.ndim and {"Y", "X"} <= set(axes) and set(letters) <= set(_TIFF_STACK_AXES)
    if not are_known or len(letters) > 1 or len(channels) > 1:
        raise InputError(
            f"{path}: expected one picture or one stack along z with at most one channel axis, got axes {axes} of "
            f"shape {array.shape}. Save each picture or stack as a file of its own."
        )
    order = [axes.index(letter) for letter in (*channels, *letters, "Y", "X")]
    array = array.transpose(order)
    if not channels:
        array = array[np.newaxis]
    elif has_alpha:
        array = _without_alpha(path, array)
    return raster_image(array, spacing=_companion_spacing(path, array.ndim - 1))


def count_tiff_channels(path: Path) -> int:
    """Count the channels of a TIFF file, without alpha.

    Only the header is read.

    Args:
        path: The file.

    Raises:
        InputError: The header cannot be read.
    """
    series, has_alpha = _tiff_series(path)
    sizes = [size for letter, size in zip(series.axes, series.shape, strict=True) if letter in "SC"]
    return max(1, sizes[0] - has_alpha) if sizes else 1


def write_pillow(path: Path, pixels: Integer[np.ndarray, "y x *colour"]) -> None:
    """Write a grey or colour picture.

    Args:
        path: The file.
        pixels: Shape (y, x) for grey, (y, x, 3) for colour.
    """
    import PIL.Image

    PIL.Image.fromarray(pixels).save(path)


def write_tiff(path: Path, label_map: Integer[np.ndarray, "*spatial"]) -> None:
    """Write a compressed label map.

    Args:
        path: The file.
        label_map: Label values of shape (z, y, x) or (y, x).
    """
    import tifffile

    tifffile.imwrite(
        path,
        label_map,
        photometric="minisblack",
        compression="zlib",
        metadata={"axes": "ZYX"[3 - label_map.ndim :]},
    )


def companion_path(path: Path) -> Path:
    """Return the path of the JSON file with a TIFF file's spacing.

    It is `CASE.json` for `CASE_0000.tif`.

    Args:
        path: The TIFF file.
    """
    return path.with_name(re.sub(r"_\d{4}$", "", path.stem) + ".json")


def raster_image(
    array: Shaped[np.ndarray, "channel *spatial"], *, spacing: tuple[float, ...] | None = None
) -> Image:
    """Return an array as an image with the geometry of raster images.

    Args:
        array: Shape (channel, y, x) or (channel, z, y, x).
        spacing: Millimetres per pixel along each spatial axis. `None`: 1.
    """
    num_axes = array.ndim - 1
    return Image(
        array=np.ascontiguousarray(array),
        spacing=spacing or (1.0,) * num_axes,
        origin=(0.0,) * num_axes,
        direction=tuple(float(value) for value in np.eye(num_axes).ravel()),
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
    except _DECODER_ERRORS as error:
        raise InputError(f"{path}: damaged, or in another format than its ending.") from error


def _is_deep_colour(picture: "ImageFile") -> bool:
    """Return whether a colour picture has 16 bits per channel.

    Pillow keeps only 8 of them.
    """
    arguments = picture.tile[0][3] if picture.tile else None
    mode = arguments if isinstance(arguments, str) else (arguments or ("",))[0]
    return isinstance(mode, str) and ";16" in mode and picture.mode not in _GREY_MODES


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
    except _DECODER_ERRORS as error:
        raise InputError(f"{path}: damaged ({error}).") from error
    if array.dtype == np.bool_:
        array = array.astype(np.uint8)
    return array[np.newaxis] if array.ndim == 2 else np.moveaxis(array, -1, 0)


def _without_alpha(
    path: Path, array: Shaped[np.ndarray, "channel *spatial"]
) -> Shaped[np.ndarray, "colour *spatial"]:
    """Remove the last channel (alpha) if it is constant.

    Raises:
        InputError: The alpha channel varies.
    """
    alpha = array[-1]
    if alpha.size and alpha.min() != alpha.max():
        raise InputError(
            f"{path}: the alpha channel varies from {alpha.min()} to {alpha.max()}. Save the picture without alpha, "
            "or alpha as a channel of its own."
        )
    return array[:-1]


def _tiff_series(path: Path) -> tuple["tifffile.TiffPageSeries", bool]:
    """Return the only series of a TIFF file.

    The second value is true if its last sample is alpha.
    """
    import tifffile

    logging.getLogger("tifffile").addHandler(logging.NullHandler())  # keeps its warnings off the terminal
    try:
        with tifffile.TiffFile(path) as file:
            all_series = file.series
            extra = bool(file.pages.first.extrasamples)
    except (*_DECODER_ERRORS, tifffile.TiffFileError) as error:
        raise InputError(f"{path}: damaged, or in another format than its ending ({error}).") from error
    if len(all_series) != 1:
        raise InputError(f"{path}: holds {len(all_series)} pictures of different sizes. Save one per file.")
    return all_series[0], extra


def _tiff_pixels(path: Path) -> tuple[np.ndarray, str, bool]:
    """Decode a TIFF file.

    Returns:
        Voxels, letters of the axes, and whether the last sample is alpha.
    """
    import tifffile

    series, has_alpha = _tiff_series(path)
    try:
        array = tifffile.imread(path, series=0)
    except MemoryError as error:
        raise InputError(
            f"{path}: not enough memory to decode it, or damaged ({error}). Close other programs or check the file."
        ) from error
    except _DECODER_ERRORS as error:
        advice = " Run: pip install imagecodecs" if "imagecodecs" in str(error) else ""
        raise InputError(f"{path}: cannot be decoded ({error}).{advice}") from error
    return array, series.axes, has_alpha


def _is_length(value: object) -> bool:
    """Return whether a value of a JSON file is a number above 0 that a float can hold."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < sys.float_info.max


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
