"""Images in memory: contents of files, images of other libraries.

Each becomes the image that its file would give. Contents of files pass through a temporary file, because the readers
check files.
"""

import io
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from scanseg.errors import InputError, UsageError
from scanseg.imaging.image import Image
from scanseg.imaging.itk import itk_to_image
from scanseg.imaging.reading import check_values, read_image

if TYPE_CHECKING:
    import PIL.Image

_MAGIC = {
    b"\x1f\x8b": ".nii.gz",
    b"\x89PNG": ".png",
    b"\xff\xd8\xff": ".jpg",
    b"BM": ".bmp",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
    b"II+\0": ".tif",
    b"MM\0+": ".tif",
    b"NRRD": ".nrrd",
}
"""Ending of a file by its first bytes."""
_NIFTI_MAGIC = slice(344, 347)
_TIFF_MODES = ("F", "I", "CMYK", "YCbCr")
"""Modes of pillow that PNG cannot hold."""


@runtime_checkable
class BinaryFile(Protocol):
    """A file object that was opened for reading bytes."""

    def read(self, size: int = -1, /) -> bytes:
        """Return the rest of the file."""


def library_of(source: object) -> str | None:
    """Return the library of an image in memory: `PIL`, `SimpleITK` or `nibabel`.

    No library is imported.

    Args:
        source: Any object.

    Returns:
        The name. `None`: the object is no image of these libraries.
    """
    kinds = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(source).__mro__]
    names = {"PIL.Image.Image": "PIL", "nibabel.dataobj_images.DataobjImage": "nibabel"}
    found = next((names[kind] for kind in kinds if kind in names), None)
    is_itk = any(kind.startswith("SimpleITK.") and kind.endswith(".Image") for kind in kinds)
    return "SimpleITK" if is_itk else found


def image_from_memory(source: object, *, num_channels: int | None = None) -> Image | None:
    """Return the image of an object in memory.

    Args:
        source: Content of an image file (bytes or a file object), or an image of pillow, SimpleITK or nibabel.
        num_channels: Number of channels of the data set, as for `read_image`.

    Returns:
        The image. `None`: the object is of another type.

    Raises:
        InputError: The content is no valid image.
        UsageError: A file object returns text.
    """
    library = library_of(source)
    if library == "SimpleITK":
        name = Path("the image")
        image = itk_to_image(name, source)
        check_values(name, image)
        return image
    if library == "nibabel":
        return _read_bytes(_nifti_bytes(source), num_channels=num_channels)
    if library == "PIL":
        return _read_bytes(_picture_bytes(source), num_channels=num_channels)
    if isinstance(source, bytes | bytearray | memoryview):
        return _read_bytes(bytes(source), num_channels=num_channels)
    if isinstance(source, BinaryFile):
        content = source.read()
        if not isinstance(content, bytes):
            raise UsageError(
                f"image: expected a file object of bytes, got one of {type(content).__name__}. Open the file with 'rb'."
            )
        return _read_bytes(content, num_channels=num_channels)
    return None


def _read_bytes(content: bytes, *, num_channels: int | None) -> Image:
    """Read the content of an image file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"image{_ending_of(content)}"
        path.write_bytes(content)
        try:
            return read_image(path, num_channels=num_channels)
        except InputError as error:
            raise InputError(str(error).replace(str(path), "the image")) from error


def _ending_of(content: bytes) -> str:
    """Return the ending of a file by its content.

    Raises:
        InputError: The format is unknown.
    """
    ending = next((ending for magic, ending in _MAGIC.items() if content.startswith(magic)), None)
    if ending is None and content[_NIFTI_MAGIC] == b"n+1":
        ending = ".nii"
    if ending is None and b"NDims" in content[:1000]:
        ending = ".mha"
    if ending is None:
        raise InputError(
            f"image: expected the content of a NIfTI, NRRD, MetaImage, PNG, JPEG, BMP or TIFF file, got {len(content)} "
            f"bytes that begin with {content[:8]!r}. Give the path of the file, or an array."
        )
    return ending


def _nifti_bytes(image: Any) -> bytes:
    """Return a nibabel image as a NIfTI-1 file with unchanged values."""
    from nibabel.nifti1 import Nifti1Header, Nifti1Image
    from nibabel.spatialimages import HeaderDataError

    try:
        voxels = np.asanyarray(image.dataobj)
        header = image.header.copy() if type(image.header) is Nifti1Header else Nifti1Header()
        header.set_data_dtype(voxels.dtype)
        header.set_slope_inter(1, 0)
        return Nifti1Image(voxels, image.affine, header).to_bytes()
    except (HeaderDataError, ValueError) as error:
        raise InputError(
            f"the image: expected an image of nibabel that a NIfTI-1 file can hold, got {type(image).__name__} "
            f"({error}). Give an array with its spacing."
        ) from error


def _picture_bytes(picture: "PIL.Image.Image | Any") -> bytes:
    """Return a pillow picture as a lossless file with its orientation tag."""
    file = io.BytesIO()
    try:
        kind = "TIFF" if picture.mode in _TIFF_MODES else "PNG"
        picture.save(file, format=kind, exif=picture.getexif())
    except (OSError, ValueError) as error:
        raise InputError(
            f"the image: expected a grey or colour picture of pillow, got the mode {picture.mode} ({error}). Convert "
            "it to RGB or L."
        ) from error
    return file.getvalue()
