"""Read and write NRRD and MetaImage files with SimpleITK.

Only this module converts SimpleITK's axis order x, y, z.
"""

import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from jaxtyping import Float64, Shaped

from scanseg.errors import InputError
from scanseg.imaging.header import ImageGrid, ItkHeader
from scanseg.imaging.image import Image
from scanseg.imaging.itk_header import read_itk_header
from scanseg.imaging.itk_position import check_position
from scanseg.imaging.itk_voxels import check_voxels
from scanseg.imaging.right_angles import straighten_axes

if TYPE_CHECKING:
    import SimpleITK

_Result = TypeVar("_Result")
_LENGTH_TOLERANCE = 0.02
"""Largest difference from 1 of the length of direction cosines, which then scales the spacing."""
_ROUNDING = 1e-6
"""Largest difference of direction cosines that are equal apart from rounding."""
_STDERR = 2
"""File descriptor of the standard error."""
_stderr_lock = threading.Lock()


def read_itk(path: Path) -> Image:
    """Read a medical image with SimpleITK.

    The components of a vector image become channels, and so does the last of four axes.

    Args:
        path: The file.

    Raises:
        InputError: The file is damaged, holds complex values, has sheared axes, or does not have two or three spatial
            axes.
    """
    import SimpleITK

    fields = read_itk_header(path)
    warnings = (*check_position(fields), *check_voxels(fields))
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    return itk_to_image(path, _execute(reader.Execute, path), warnings=warnings)


def itk_to_image(path: Path, image: "SimpleITK.Image", *, warnings: tuple[str, ...] = ()) -> Image:
    """Convert an image of SimpleITK.

    Args:
        path: Its file, or its name for messages.
        image: The image.
        warnings: Warnings about its header.

    Raises:
        InputError: As for `read_itk`.
    """
    import SimpleITK

    array = SimpleITK.GetArrayFromImage(image)
    num_axes = image.GetDimension()
    if image.GetNumberOfComponentsPerPixel() > 1:
        array = np.moveaxis(array, -1, 0)
    elif num_axes == 4:
        num_axes = 3
    else:
        array = array[np.newaxis]
    if array.ndim != num_axes + 1 or num_axes not in (2, 3):
        raise InputError(
            f"{path}: expected 2 or 3 spatial axes and at most one channel axis, got shape {array.shape[::-1]} "
            "(file order). Save each time point or volume as a file of its own."
        )
    if np.iscomplexobj(array):
        raise InputError(
            f"{path}: expected real values, got complex ones. Save the magnitude, or the real and imaginary parts as "
            "channels."
        )
    return _to_image(path, image, np.ascontiguousarray(array), num_axes, warnings=warnings)


def read_deep_picture(path: Path, *, copy: Path | None = None) -> Shaped[np.ndarray, "channel y x"]:
    """Read a PNG picture of 16 bits with SimpleITK.

    Args:
        path: A picture with three or four samples per pixel.
        copy: File to read instead, if any. Messages name `path`.

    Raises:
        InputError: The file is damaged.
    """
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(copy or path))
    array = SimpleITK.GetArrayFromImage(_execute(reader.Execute, path))
    return np.ascontiguousarray(np.moveaxis(array, -1, 0))


def count_itk_channels(path: Path) -> int:
    """Count the channels of a medical image from its header.

    Args:
        path: The file.

    Raises:
        InputError: The header cannot be read.
    """
    import SimpleITK

    read_itk_header(path)
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    _execute(reader.ReadImageInformation, path)
    if reader.GetDimension() == 4:
        return int(reader.GetSize()[3])
    return int(reader.GetNumberOfComponents())


def read_itk_geometry(path: Path) -> Image:
    """Read the header of a medical image.

    Args:
        path: The file.

    Returns:
        The image with its geometry and warnings. Its voxels are zeros that take no memory.

    Raises:
        InputError: The header cannot be read, or has no two or three spatial axes.
    """
    import SimpleITK

    warnings = check_position(read_itk_header(path))
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    _execute(reader.ReadImageInformation, path)
    size, num_channels = reader.GetSize(), int(reader.GetNumberOfComponents())
    if len(size) == 4:
        size, num_channels = size[:3], int(size[3])
    if len(size) not in (2, 3):
        raise InputError(f"{path}: expected 2 or 3 spatial axes, got {len(size)}. Save volumes or images.")
    array = np.broadcast_to(np.uint8(0), (num_channels, *size[::-1]))
    return _to_image(path, reader, array, len(size), warnings=tuple(warnings))


def write_itk(path: Path, array: Shaped[np.ndarray, "*spatial"], like: Image) -> None:
    """Write a compressed array with the geometry of an image.

    Spacing and direction of a source file with the same grid are repeated as stored.

    Args:
        path: The file.
        array: Labels or intensities of shape (z, y, x) or (y, x).
        like: Image on whose grid the array lies.

    Raises:
        InputError: SimpleITK cannot write the file.
    """
    import SimpleITK

    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(array))
    spacing, direction = like.spacing[::-1], like.direction
    grid = ImageGrid(like.shape, like.spacing, like.origin, like.direction)
    if isinstance(like.header, ItkHeader) and like.header.grid.equals(grid):
        spacing, direction = like.header.spacing, like.header.direction
    image.SetSpacing(spacing)
    image.SetOrigin(like.origin)
    image.SetDirection(direction)
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        with _captured_stderr():
            SimpleITK.WriteImage(image, str(path), useCompression=True)
    except RuntimeError as error:
        raise InputError(f"{path}: cannot be written. Check its folder and the space on the disk.") from error


def _to_image(
    path: Path,
    image: "SimpleITK.Image | SimpleITK.ImageFileReader",
    array: Shaped[np.ndarray, "channel *spatial"],
    num_axes: int,
    *,
    warnings: tuple[str, ...],
) -> Image:
    """Combine an array with the geometry of its spatial axes.

    The spacing of the result is in array order. Axes that are not quite at right angles are straightened.
    """
    rows = np.reshape(image.GetDirection(), (image.GetDimension(), image.GetDimension()))[
        :num_axes, :num_axes
    ]
    stored = tuple(float(value) for value in image.GetSpacing()[:num_axes])
    _check_lengths(path, rows)
    axes = straighten_axes(path, rows * stored)
    is_straight = np.allclose(axes.direction, rows, rtol=0, atol=_ROUNDING)
    spacing, direction = (stored, rows) if is_straight else (tuple(axes.sizes.tolist()), axes.direction)
    grid = ImageGrid(
        shape=array.shape[1:],
        spacing=spacing[::-1],
        origin=tuple(float(value) for value in image.GetOrigin()[:num_axes]),
        direction=tuple(float(value) for value in direction.ravel()),
    )
    header = ItkHeader(grid, spacing=stored, direction=tuple(float(value) for value in rows.ravel()))
    return Image(
        array=array,
        spacing=grid.spacing,
        origin=grid.origin,
        direction=grid.direction,
        header=None if is_straight else header,
        warnings=warnings if axes.warning is None else (*warnings, axes.warning),
    )


def _check_lengths(path: Path, rows: Float64[np.ndarray, "world axis"]) -> None:
    """Check that direction cosines have length 1."""
    lengths = np.linalg.norm(rows, axis=0)
    if not np.allclose(lengths, 1, rtol=0, atol=_LENGTH_TOLERANCE):
        raise InputError(
            f"{path}: expected direction cosines of length 1 along x, y, z, got {np.round(lengths, 4).tolist()}. Fix "
            "the header."
        )


def _execute(action: Callable[[], _Result], path: Path) -> _Result:
    """Read by SimpleITK, without its output on the terminal.

    Its errors become an `InputError` of one line that names the file.
    """
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        with _captured_stderr():
            return action()
    except RuntimeError as error:
        raise InputError(f"{path}: {_reason(path, error)}") from error


def _reason(path: Path, error: RuntimeError) -> str:
    """Return the reason of SimpleITK's error in plain words, with advice."""
    text = str(error).replace(str(path), "")
    if "spacing" in text:
        return "expected spacings above 0 mm, got another one. Fix the header."
    if "direction" in text or "determinant" in text:
        return "expected directions of voxel axes at right angles, got invalid ones. Fix the header."
    return (
        "damaged, or in another format than its ending. Copy or download it again, or save it in its format."
    )


@contextmanager
def _captured_stderr() -> Iterator[None]:
    """Capture the standard error of C and C++ libraries.

    It is printed on success. The stream belongs to the whole process. Output of other threads is therefore delayed on
    success, and discarded together with the decoder's messages on failure.
    """
    with _stderr_lock, tempfile.TemporaryFile() as captured:
        try:
            saved = os.dup(_STDERR)
        except OSError:  # the process has no standard error
            yield
            return
        try:
            if sys.stderr is not None:
                sys.stderr.flush()
            os.dup2(captured.fileno(), _STDERR)
            yield
            if sys.stderr is not None:
                sys.stderr.flush()
            captured.seek(0)
            os.write(saved, captured.read())
        finally:
            os.dup2(saved, _STDERR)
            os.close(saved)
