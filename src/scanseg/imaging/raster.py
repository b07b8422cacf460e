"""Raster images through pillow and tifffile; they have no place in space, and one millimetre per pixel."""

import json
import logging
import re
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from scanseg.errors import InputError
from scanseg.imaging.image import Image
from scanseg.imaging.itk import count_itk_channels, read_itk
from scanseg.messages import counted

_GREY_MODES = ("1", "L", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_COLOUR_MODES = {"RGB": "RGB", "YCbCr": "RGB", "CMYK": "RGB", "RGBA": "RGBA", "LA": "LA"}
"""Mode of a picture to the mode in which it is read."""
_DAMAGES = (
    *(OSError, SyntaxError, ValueError, LookupError, ArithmeticError, TypeError, AttributeError),
    *(AssertionError, RuntimeError, zlib.error, struct.error),
)
"""What pillow and tifffile raise where a file is damaged."""

_TIFF_STACK_AXES = "ZIQ"
"""Names that tifffile has for the axis of a stack."""


def read_pillow(path: Path, *, indices: bool) -> Image:
    """Read a PNG, BMP or JPEG file.

    Args:
        path: The file.
        indices: Read a picture with a palette as its indices (label maps), not as its colours.

    Raises:
        InputError: The file is damaged, of an unknown colour mode, or its alpha channel varies.
    """
    with _opened(path) as picture:
        if _is_deep_colour(picture):
            array = read_itk(path).array
            has_alpha = array.shape[0] in (2, 4)
        else:
            mode = _reading_mode(path, picture, indices=indices)
            array = _pixels(path, picture, mode=mode)
            has_alpha = mode in ("RGBA", "LA")
    return raster_image(_without_alpha(path, array) if has_alpha else array)


def count_pillow_channels(path: Path) -> int:
    """Count the channels of a PNG, BMP or JPEG file, without alpha, from its header."""
    with _opened(path) as picture:
        if _is_deep_colour(picture):
            return {1: 1, 2: 1, 3: 3, 4: 3}[count_itk_channels(path)]
        return 1 if picture.mode in (*_GREY_MODES, "LA") else 3


def read_tiff(path: Path) -> Image:
    """Read a TIFF file: one picture, grey or colour, or a stack of them along z.

    Spacing is read from a file `CASE.json` beside it, as in nnU-Net: `{"spacing": [z, y, x]}`.

    Args:
        path: The file.

    Raises:
        InputError: The file is damaged, compressed in an unknown way, of unknown axes, or alpha varies.
    """
    array, axes, has_alpha = _tiff_pixels(path)
    letters = [letter for letter in axes if letter not in "YXSC"]
    channels = [letter for letter in axes if letter in "SC"]
    are_known = len(axes) == array.ndim and {"Y", "X"} <= set(axes) and set(letters) <= set(_TIFF_STACK_AXES)
    if not are_known or len(letters) > 1 or len(channels) > 1:
        raise InputError(
            f"{path}: axes {axes} of shape {array.shape}; known are one picture or one stack along z, with at "
            "most one axis of channels."
        )
    order = [axes.index(letter) for letter in (*channels, *letters, "Y", "X")]
    array = array.transpose(order)
    if not channels:
        array = array[np.newaxis]
    elif has_alpha:
        array = _without_alpha(path, array)
    return raster_image(array, spacing=_companion_spacing(path, array.ndim - 1))


def count_tiff_channels(path: Path) -> int:
    """Count the channels of a TIFF file, without alpha, from its header."""
    series, has_alpha = _tiff_series(path)
    sizes = [size for letter, size in zip(series.axes, series.shape, strict=True) if letter in "SC"]
    return max(1, sizes[0] - has_alpha) if sizes else 1


def write_pillow(path: Path, pixels: np.ndarray) -> None:
    """Write an array (y, x) as a grey picture, or (y, x, 3) as a colour picture."""
    import PIL.Image

    PIL.Image.fromarray(pixels).save(path)


def write_tiff(path: Path, label_map: np.ndarray) -> None:
    """Write a label map of two or three axes, compressed."""
    import tifffile

    tifffile.imwrite(
        path,
        label_map,
        photometric="minisblack",
        compression="zlib",
        metadata={"axes": "ZYX"[3 - label_map.ndim :]},
    )


def companion_path(path: Path) -> Path:
    """Return the file beside a TIFF file that tells its spacing: `CASE.json` for `CASE_0000.tif`."""
    return path.with_name(re.sub(r"_\d{4}$", "", path.stem) + ".json")


def raster_image(array: np.ndarray, *, spacing: tuple[float, ...] | None = None) -> Image:
    """Give an array the geometry of a raster image.

    Args:
        array: Shape (channel, *spatial).
        spacing: Millimetres per pixel; None: 1.
    """
    num_axes = array.ndim - 1
    return Image(
        array=np.ascontiguousarray(array),
        spacing=spacing or (1.0,) * num_axes,
        origin=(0.0,) * num_axes,
        direction=tuple(float(value) for value in np.eye(num_axes).ravel()),
    )


def _opened(path: Path) -> Any:
    """The picture with its header read; large ones are not taken for an attack."""
    import PIL.Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
            return PIL.Image.open(path)
    except PIL.Image.DecompressionBombError as error:
        raise InputError(f"{path}: {error}; save pictures as large as this as TIFF.") from error
    except _DAMAGES as error:
        raise InputError(f"{path}: damaged, or not of the kind its ending says.") from error


def _is_deep_colour(picture: Any) -> bool:
    """Whether a colour picture has 16 bits per channel, of which pillow would keep 8."""
    arguments = picture.tile[0][3] if picture.tile else None
    mode = arguments if isinstance(arguments, str) else (arguments or ("",))[0]
    return isinstance(mode, str) and ";16" in mode and picture.mode not in _GREY_MODES


def _reading_mode(path: Path, picture: Any, *, indices: bool) -> str:
    """The mode in which a picture is read."""
    mode: str = picture.mode
    if mode == "P":
        if indices:
            return "P"
        return "RGBA" if "transparency" in picture.info else "RGB"
    if mode in _GREY_MODES:
        return mode
    if mode not in _COLOUR_MODES:
        raise InputError(f"{path}: colour mode {mode} is not known; save it as grey or RGB.")
    return _COLOUR_MODES[mode]


def _pixels(path: Path, picture: Any, *, mode: str) -> np.ndarray:
    """Decode a picture in a mode to (channel, y, x)."""
    try:
        array = np.asarray(picture if mode == picture.mode else picture.convert(mode))
    except _DAMAGES as error:
        raise InputError(f"{path}: damaged ({error}).") from error
    if array.dtype == np.bool_:
        array = array.astype(np.uint8)
    return array[np.newaxis] if array.ndim == 2 else np.moveaxis(array, -1, 0)


def _without_alpha(path: Path, array: np.ndarray) -> np.ndarray:
    """The channels before the last, if the last (alpha) says nothing."""
    alpha = array[-1]
    if alpha.size and alpha.min() != alpha.max():
        raise InputError(
            f"{path}: the alpha channel varies from {alpha.min()} to {alpha.max()}; save it without alpha, "
            "or as a channel of its own."
        )
    return array[:-1]


def _tiff_series(path: Path) -> tuple[Any, bool]:
    """The one series of a TIFF file, and whether its last sample is alpha."""
    import tifffile

    logging.getLogger("tifffile").addHandler(logging.NullHandler())  # else its warnings go to the terminal
    try:
        with tifffile.TiffFile(path) as file:
            all_series = file.series
            extra = bool(file.pages.first.extrasamples)
    except (*_DAMAGES, tifffile.TiffFileError) as error:
        raise InputError(f"{path}: damaged, or not of the kind its ending says ({error}).") from error
    if len(all_series) != 1:
        raise InputError(f"{path}: holds {len(all_series)} pictures of different sizes; save one per file.")
    return all_series[0], extra


def _tiff_pixels(path: Path) -> tuple[np.ndarray, str, bool]:
    """Voxels of a TIFF file, the letters of their axes, and whether the last sample is alpha."""
    import tifffile

    series, has_alpha = _tiff_series(path)
    try:
        array = tifffile.imread(path, series=0)
    except MemoryError as error:
        raise InputError(
            f"{path}: the memory does not suffice for it, or it is damaged ({error})."
        ) from error
    except _DAMAGES as error:
        remedy = "; pip install imagecodecs" if "imagecodecs" in str(error) else ""
        raise InputError(f"{path}: cannot be decoded ({error}){remedy}.") from error
    return array, series.axes, has_alpha


def _companion_spacing(path: Path, num_axes: int) -> tuple[float, ...] | None:
    """Spacing from the JSON file beside a TIFF file; None where there is none."""
    companion = companion_path(path)
    if not companion.is_file():
        return None
    try:
        spacing = tuple(
            float(value) for value in json.loads(companion.read_text(encoding="utf-8"))["spacing"]
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f'{companion}: must hold {{"spacing": [z, y, x]}} in mm ({error}).') from error
    if len(spacing) < num_axes:
        raise InputError(
            f"{companion}: spacing {spacing} has {counted(len(spacing), 'axis', 'axes')}, {path.name} {num_axes}."
        )
    return spacing[-num_axes:]
