"""PNG, BMP and JPEG pictures, read and written with pillow."""

import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Integer, Shaped

from scanseg.errors import InputError, reason_of
from scanseg.imaging.exif import (
    ORIENTATION_TAG,
    STORED_AS_DISPLAYED,
    as_displayed,
    as_stored,
    read_orientation,
)
from scanseg.imaging.image import Image
from scanseg.imaging.itk import read_deep_picture
from scanseg.imaging.raster import raster_image, without_alpha
from scanseg.imaging.tiff_file import DECODER_ERRORS

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

_FORMATS = {".png": "PNG", ".bmp": "BMP", ".jpg": "JPEG", ".jpeg": "JPEG"}
"""Pillow's name of the format of each ending."""
_GREY_MODES = ("1", "L", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_COLOUR_MODES = {"RGB": "RGB", "YCbCr": "RGB", "CMYK": "RGB", "RGBA": "RGBA", "LA": "LA"}
"""Colour mode of a picture to the mode in which it is read."""
_SCALE_OF_BITS = {"L;2": 85, "L;4": 17}
"""Factor by which pillow scales grey pictures of 2 and 4 bits to 8 bits, by its name of the stored form."""
_PNG_SIGNATURE_BYTES = 8
_PNG_CHUNK_BYTES = 12
"""Bytes of a chunk beside its data: length, name and checksum."""


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
            array = _deep_grey_and_alpha(path, picture) if _is_deep_grey(picture) else _deep_colours(path)
            has_alpha = array.shape[0] in (2, 4)
        else:
            mode, scale = _reading_mode(path, picture, indices=indices), _scale_of_bits(picture)
            array = _pixels(path, picture, mode=mode)
            array = array // scale if indices and scale > 1 else array
            has_alpha = mode in ("RGBA", "LA")
        orientation = read_orientation(picture)
    if has_alpha:
        array = without_alpha(path, array)
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
            return 3
        return 1 if picture.mode in (*_GREY_MODES, "LA") else 3


def read_palette(path: Path) -> tuple[tuple[int, int, int], ...] | None:
    """Read the palette of a PNG or BMP file.

    Args:
        path: File of any format.

    Returns:
        Red, green and blue of 8 bits of each index. `None`: the file has no palette, or another format.

    Raises:
        InputError: The header cannot be read.
    """
    if path.suffix.lower() not in (".png", ".bmp"):
        return None
    with _open_picture(path) as picture:
        colours = picture.getpalette("RGB") if picture.mode == "P" else None
    return None if colours is None else tuple(zip(*(colours[place::3] for place in range(3)), strict=True))


def write_pillow(
    path: Path,
    pixels: Integer[np.ndarray, "y x *colour"],
    *,
    orientation: int = STORED_AS_DISPLAYED,
    palette: bytes | None = None,
) -> None:
    """Write a grey or colour picture.

    Args:
        path: The file.
        pixels: Displayed picture of shape (y, x) for grey, (y, x, 3) for colour.
        orientation: Orientation tag from 1 to 8. BMP files do not hold it.
        palette: Red, green and blue of each grey value of 8 bits. `None`: no palette.
    """
    import PIL.Image

    is_upright = orientation == STORED_AS_DISPLAYED or path.suffix.lower() == ".bmp"
    if not is_upright:
        channels_first = pixels if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
        stored = as_stored(channels_first, orientation)
        pixels = np.ascontiguousarray(stored if pixels.ndim == 2 else np.moveaxis(stored, 0, -1))
    picture = PIL.Image.fromarray(pixels)
    if palette is not None:
        picture.putpalette(palette)
    if is_upright:
        picture.save(path)
        return
    exif = PIL.Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    picture.save(path, exif=exif)


def _open_picture(path: Path) -> "ImageFile":
    """Open a picture and read its header.

    Pillow's warning for large pictures is off. Of a JPEG file with several pictures, the first one is read, as in
    viewers. The others are previews or other views.

    Raises:
        InputError: The file is damaged, has another format than its ending, or is an animation.
    """
    import PIL.Image

    name = _FORMATS[path.suffix.lower()]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
            picture = PIL.Image.open(path, formats=[name])
    except PIL.Image.DecompressionBombError as error:
        raise InputError(f"{path}: {error}. Save pictures of this size as TIFF.") from error
    except DECODER_ERRORS as error:
        raise InputError(
            f"{path}: expected {name} data by its ending, got another format or damaged data. Save it as {name}, or "
            "correct its ending."
        ) from error
    num_frames = getattr(picture, "n_frames", 1)
    if name != "JPEG" and num_frames > 1:
        picture.close()
        raise InputError(
            f"{path}: expected one picture, got an animation of {num_frames} frames. Save each frame as a file of its "
            "own."
        )
    return picture


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


def _scale_of_bits(picture: "ImageFile") -> int:
    """Return the factor by which pillow scales the values of a picture."""
    stored = picture.tile[0][3] if picture.tile else None
    return _SCALE_OF_BITS.get(stored, 1) if isinstance(stored, str) else 1


def _deep_colours(path: Path) -> Shaped[np.ndarray, "channel y x"]:
    """Read a PNG picture of 16 bits with three or four samples.

    SimpleITK shifts the values by the number of significant bits in the chunk sBIT. A copy without the chunk is read
    in that case.

    Raises:
        InputError: The file is damaged.
    """
    content = path.read_bytes()
    begin, end = _significant_bits(content)
    if begin == end:
        return read_deep_picture(path)
    try:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "copy.png"
            copy.write_bytes(content[:begin] + content[end:])
            return read_deep_picture(path, copy=copy)
    except OSError as error:
        raise InputError(f"{path}: cannot be copied ({reason_of(error)}). Free space on the disk.") from error


def _significant_bits(content: bytes) -> tuple[int, int]:
    """Return begin and end of the chunk sBIT, equal if missing."""
    begin = _PNG_SIGNATURE_BYTES
    while begin + _PNG_CHUNK_BYTES <= len(content):
        name = content[begin + 4 : begin + 8]
        end = begin + _PNG_CHUNK_BYTES + int.from_bytes(content[begin : begin + 4], "big")
        if name == b"sBIT":
            return begin, end
        if name == b"IDAT":  # it would follow the pixels
            break
        begin = end
    return begin, begin
