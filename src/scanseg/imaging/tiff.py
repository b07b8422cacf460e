"""Structure and pixels of TIFF files.

tifffile reads the files, with imagecodecs (extra `tiff`) for most compressions. Without imagecodecs, pillow decodes
pictures of the baseline kinds.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Shaped, UInt8, UInt16

from scanseg.errors import InputError
from scanseg.imaging.exif import ORIENTATION_TAG, as_stored, valid_orientation
from scanseg.imaging.tiff_calibration import voxel_size
from scanseg.imaging.tiff_file import DECODER_ERRORS, check_segments, only_series, open_tiff
from scanseg.messages import counted

if TYPE_CHECKING:
    import PIL.Image
    import tifffile

STACK_AXES = "ZIQ"
"""Letters of tifffile for the axis of a stack."""
CHANNEL_AXES = "SC"
"""Letters of tifffile for an axis of channels: samples of a pixel, or planes."""

_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _PALETTE, _MASK, _CMYK, _YCBCR = 0, 1, 2, 3, 4, 5, 6
_LINEAR_RAW = 34892
_READABLE = (_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _PALETTE, _MASK, _CMYK, _YCBCR, _LINEAR_RAW)
"""Colour spaces that are read. Palettes, CMYK and YCbCr become RGB."""
_ALPHA = (1, 2)
"""Values of the tag ExtraSamples for associated and unassociated alpha. 0 is a sample of unknown meaning."""
_OLD_JPEG = 6
_JPEG = (_OLD_JPEG, 7, 33007)
"""Compressions whose decoder returns RGB for YCbCr."""
_MAY_BE_LOSSY = (*_JPEG, 22610, 33003, 33004, 33005, 34712, 34887, 34892, 34927, 34934, 50001, 50002, 52546)
"""JPEG, JPEG 2000, JPEG XR, JPEG XL, LERC and WebP, which change values unless a setting prevents it."""
_PILLOW_BITS = (1, 2, 4, 8, 16, 32)
"""Bits of grey samples that pillow keeps."""
_PILLOW_EXTRA = ((), (2,))
"""Extra samples that pillow keeps: none, or unassociated alpha."""


@dataclass(frozen=True)
class TiffHeader:
    """Description of the only picture or stack in a TIFF file."""

    series_number: int
    """Index of its pages among the series of tifffile. Thumbnails and lower levels of a pyramid are other series."""
    axes: str
    """Letters of tifffile for the axes of the array."""
    shape: tuple[int, ...]
    """Size of the array along `axes`."""
    dtype: np.dtype
    """Type of the samples."""
    bits: int
    """Bits of a sample."""
    num_samples: int
    """Samples of a pixel."""
    photometric: int
    """Value of the tag PhotometricInterpretation: the colour space."""
    compression: int
    """Value of the tag Compression."""
    compression_name: str
    """Name of the compression."""
    extra_samples: tuple[int, ...]
    """Values of the tag ExtraSamples, for the last samples. 1 and 2 are alpha, 0 has an unknown meaning."""
    orientation: int
    """Value of the orientation tag from 1 to 8."""
    palette: UInt16[np.ndarray, "3 index"] | None
    """Colours of the indices. `None`: the values are intensities."""
    voxel_size: tuple[float, float, float] | None
    """Millimetres per voxel along z, y, x in the metadata of ImageJ or OME. `None`: the file states none."""
    planes_may_be_slices: bool
    """The planes of a colour picture may be slices.

    tifffile stores an array (3, y, x) or (4, y, x) of integers in this form if it is not told the colour space.
    """
    is_one_bit_of_tifffile: bool
    """Array of booleans that tifffile has written: true is 1, in spite of the colour space."""

    @property
    def alpha(self) -> tuple[int, ...]:
        """Indices of the samples that are alpha, along an axis `S`."""
        if dict(zip(self.axes, self.shape, strict=True)).get("S") != self.num_samples:
            return ()
        first = self.num_samples - len(self.extra_samples)
        return tuple(first + i for i, value in enumerate(self.extra_samples) if value in _ALPHA)

    @property
    def num_channels(self) -> int:
        """Number of channels of an image, without alpha."""
        if self.palette is not None or self.needs_colour_conversion:
            return 3
        sizes = [size for axis, size in zip(self.axes, self.shape, strict=True) if axis in CHANNEL_AXES]
        return max(1, sizes[0] - len(self.alpha)) if sizes else 1

    @property
    def needs_colour_conversion(self) -> bool:
        """True if pillow converts the samples to RGB."""
        return self.photometric == _CMYK or (
            self.photometric == _YCBCR and (self.compression not in _JPEG or self.compression == _OLD_JPEG)
        )

    @property
    def has_lowest_white(self) -> bool:
        """True if 0 is white and the highest value is black."""
        return self.photometric == _MIN_IS_WHITE and not self.is_one_bit_of_tifffile

    @property
    def may_be_lossy(self) -> bool:
        """True if the compression may change values."""
        return self.compression in _MAY_BE_LOSSY


def read_header(path: Path) -> TiffHeader:
    """Read the description of a TIFF file without its pixels.

    Args:
        path: The file.

    Raises:
        InputError: The file is damaged, holds several pictures, or has an unknown colour space.
    """
    with open_tiff(path) as file:
        return _describe(path, file, only_series(path, file))


def read_samples(
    path: Path, *, check: Callable[[TiffHeader], None] | None
) -> tuple[TiffHeader, Shaped[np.ndarray, "..."]]:
    """Read the description and the pixels of a TIFF file.

    Args:
        path: The file.
        check: Function that refuses a description before pixels are decoded. `None`: no check.

    Returns:
        The description, and the samples along `TiffHeader.axes`, as stored. CMYK and YCbCr become RGB along a last
        axis of samples.

    Raises:
        InputError: The file is damaged or incomplete, or needs imagecodecs, or memory ran out.
    """
    with open_tiff(path) as file:
        series = only_series(path, file)
        header = _describe(path, file, series)
        if check is not None:
            check(header)
        check_segments(path, series)
        return header, _decode(path, file, header)


def _decode(path: Path, file: "tifffile.TiffFile", header: TiffHeader) -> Shaped[np.ndarray, "..."]:
    """Decode the pixels of a TIFF file.

    Raises:
        InputError: The pixels are damaged, or need imagecodecs, or memory ran out.
    """
    if header.needs_colour_conversion:
        return _decode_by_pillow(path, file, header)
    try:
        array = file.asarray(series=header.series_number)
    except MemoryError as error:
        raise InputError(
            f"{path}: not enough memory to decode it, or damaged ({error}). Close other programs or check the file."
        ) from error
    except (*DECODER_ERRORS, ImportError) as error:
        needs_codec = isinstance(error, ImportError) or "imagecodecs" in str(error)
        if needs_codec and importlib.util.find_spec("imagecodecs") is None:
            return _decode_by_pillow(path, file, header)
        raise _damaged(path, header) from error
    if np.iscomplexobj(array):
        raise InputError(
            f"{path}: expected real values, got {array.dtype}. Save the magnitude, or the real and imaginary parts as "
            "channels."
        )
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def apply_palette(
    indices: Shaped[np.ndarray, "*spatial"], palette: UInt16[np.ndarray, "3 index"]
) -> UInt8[np.ndarray, "3 *spatial"]:
    """Return the colours of palette indices in 8 bits.

    Args:
        indices: Index of each pixel.
        palette: Red, green and blue of each index in 16 bits. Old programs write 8 bits, which are kept.
    """
    colours = palette if palette.max(initial=0) < 256 else palette >> 8
    return np.take(colours.astype(np.uint8), indices.astype(np.uint16, copy=False), axis=1)


def _describe(path: Path, file: "tifffile.TiffFile", series: "tifffile.TiffPageSeries") -> TiffHeader:
    """Return the description of a series."""
    page = series.keyframe
    photometric, compression = int(page.photometric), int(page.compression)
    if photometric not in _READABLE:
        raise InputError(
            f"{path}: expected a grey, RGB, CMYK or YCbCr picture, got the colour space {_name(page.photometric)}. "
            "Save it as grey or RGB."
        )
    if not isinstance(page.bitspersample, int):
        raise InputError(
            f"{path}: expected samples of equal size, got {page.bitspersample} bits. Save it as grey or RGB."
        )
    has_colours = photometric == _PALETTE and not file.is_imagej  # ImageJ's are for display
    return TiffHeader(
        series_number=file.series.index(series),
        axes=str(series.axes),
        shape=tuple(int(size) for size in series.shape),
        dtype=np.dtype(series.dtype),
        bits=page.bitspersample,
        num_samples=int(page.samplesperpixel),
        photometric=photometric,
        compression=compression,
        compression_name=_name(page.compression),
        extra_samples=tuple(int(value) for value in page.extrasamples),
        orientation=_orientation(path, series),
        palette=page.colormap if has_colours else None,
        voxel_size=voxel_size(file),
        planes_may_be_slices=bool(file.is_shaped and photometric == _RGB and series.axes == "SYX"),
        is_one_bit_of_tifffile=bool(page.bitspersample == 1 and _is_by_tifffile(file)),
    )


def _orientation(path: Path, series: "tifffile.TiffPageSeries") -> int:
    """Return the common orientation of the pages of a series.

    It is that of the first page. Other pages may lack the tag.

    Raises:
        InputError: The pages differ.
    """
    stated = [
        None if tags is None else tags.valueof(ORIENTATION_TAG)
        for tags in (getattr(page, "tags", None) for page in series.pages)
    ]
    first = valid_orientation(stated[0] if stated else None)
    found = {first, *(valid_orientation(value) for value in stated if value is not None)}
    if len(found) > 1:
        raise InputError(
            f"{path}: expected one orientation tag for all pages, got {sorted(found)}. Save all pages in one "
            "orientation."
        )
    return first


def _is_by_tifffile(file: "tifffile.TiffFile") -> bool:
    """Return whether tifffile has written the file.

    It marks arrays of booleans as pictures in which 0 is white, and does not change their values.
    """
    software = file.pages.first.tags.valueof(305)
    return bool(file.is_shaped) or str(software).startswith("tifffile")


def _decode_by_pillow(path: Path, file: "tifffile.TiffFile", header: TiffHeader) -> Shaped[np.ndarray, "..."]:
    """Decode pages by pillow into the stored values of the samples.

    Raises:
        InputError: Pillow does not keep the values of such files, or the pixels are damaged.
    """
    _check_pillow_keeps(path, header)
    numbers = [int(page.index) for page in file.series[header.series_number].pages if page is not None]
    try:
        import PIL.Image

        with PIL.Image.open(path) as picture:
            pages = [_frame(picture, number, header) for number in numbers]
    except DECODER_ERRORS as error:
        raise _damaged(path, header) from error
    array = np.stack(pages) if len(pages) > 1 else pages[0]
    converted = (*header.shape[:-1], 3) if header.needs_colour_conversion else header.shape
    if array.size != np.prod(converted):
        raise _damaged(path, header)
    return array.reshape(converted).astype(array.dtype.newbyteorder("="), copy=False)


def _frame(picture: "PIL.Image.Image", number: int, header: TiffHeader) -> Shaped[np.ndarray, "..."]:
    """Return the stored values of one page.

    Pillow applies the orientation, inverts pictures in which 0 is white, and scales 2 and 4 bits to 8 bits.
    """
    picture.seek(number)
    array = np.asarray(picture.convert("RGB") if header.photometric in (_CMYK, _YCBCR) else picture)
    if array.ndim == 3:
        array = np.moveaxis(as_stored(np.moveaxis(array, -1, 0), header.orientation), 0, -1)
    else:
        array = as_stored(array, header.orientation)
    if header.photometric == _MIN_IS_WHITE and header.bits <= 8:
        array = ~array if array.dtype == np.bool_ else 255 - array
    if header.bits in (2, 4) and header.photometric != _PALETTE:
        array = array // (255 // (2**header.bits - 1))
    return array


def _check_pillow_keeps(path: Path, header: TiffHeader) -> None:
    """Check that pillow decodes a file without a change of its values.

    Raises:
        InputError: It does not. The message names the extra that decodes the file.
    """
    dtype, bits = header.dtype, header.bits
    samples, extra = header.num_samples, header.extra_samples
    is_planes = header.axes.find("S") not in (-1, len(header.axes) - 1)
    if header.photometric == _CMYK:
        keeps = bits == 8 and samples == 4
    elif header.photometric in (_RGB, _YCBCR):
        keeps = bits == 8 and samples == 3 + len(extra) and extra in _PILLOW_EXTRA and dtype == np.uint8
    elif samples == 2:
        keeps = bits == 8 and extra == (2,) and dtype == np.uint8
    else:
        keeps = samples == 1 and bits in _PILLOW_BITS and (dtype.kind in "ub" or bits == 32)
        keeps = keeps and dtype != np.uint32
    if keeps and not is_planes:
        return
    kind = f"{counted(samples, 'sample')} of {bits} bits"
    if header.needs_colour_conversion:
        raise InputError(
            f"{path}: expected a CMYK or YCbCr picture of 8 bits, got {kind}. Save the picture as RGB."
        )
    raise InputError(
        f"{path}: expected a TIFF file that can be read without imagecodecs, got {kind} with the compression "
        f'{header.compression_name}. Run: pip install "scanseg[tiff]"'
    )


def _damaged(path: Path, header: TiffHeader) -> InputError:
    """Return the error for pixels that cannot be decoded."""
    return InputError(
        f"{path}: expected pixels that can be decoded, got {counted(header.num_samples, 'sample')} of {header.bits} "
        f"bits with the compression {header.compression_name}, damaged or of an unknown variant. Check the file, or "
        "save it again with deflate or LZW."
    )


def _name(value: object) -> str:
    """Return the name of a tag's value, or its number."""
    return str(getattr(value, "name", value))
