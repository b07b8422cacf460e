"""Medical images through SimpleITK: the one place where its axes x, y, z are turned."""

import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from scanseg.errors import InputError
from scanseg.imaging.image import Image
from scanseg.imaging.nifti import check_voxels

_STDERR = 2
_stderr_lock = threading.Lock()


def read_itk(path: Path) -> Image:
    """Read an image; components, or the last of four axes, become channels.

    Args:
        path: The file.

    Raises:
        InputError: The file is damaged, holds NaN, or has not two or three spatial axes.
    """
    import SimpleITK

    if path.name.lower().endswith((".nii", ".nii.gz")):
        check_voxels(path)
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    image = _execute(reader.Execute, path)
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
            f"{path}: shape {array.shape[::-1]} (file order) has not 2 or 3 spatial axes and at most one of "
            "channels; save each time point or volume as a file of its own."
        )
    if np.iscomplexobj(array):
        raise InputError(f"{path}: complex values; save magnitude, or real and imaginary part as channels.")
    return _turned(image, array, num_axes)


def count_itk_channels(path: Path) -> int:
    """Count channels from the header.

    Args:
        path: The file.

    Raises:
        InputError: The header cannot be read.
    """
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    _execute(reader.ReadImageInformation, path)
    if reader.GetDimension() == 4:
        return int(reader.GetSize()[3])
    return int(reader.GetNumberOfComponents())


def write_itk(path: Path, array: np.ndarray, like: Image) -> None:
    """Write an array, compressed, with the geometry of an image.

    Args:
        path: The file.
        array: Labels or intensities of shape (z, y, x) or (y, x).
        like: The image on whose grid they lie.
    """
    import SimpleITK

    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(array))
    image.SetSpacing(like.spacing[::-1])
    image.SetOrigin(like.origin)
    image.SetDirection(like.direction)
    _execute(lambda: SimpleITK.WriteImage(image, str(path), useCompression=True), path)


def _turned(image: Any, array: np.ndarray, num_axes: int) -> Image:
    """The image with its geometry cut to the spatial axes, spacing in array order."""
    rows = np.reshape(image.GetDirection(), (image.GetDimension(), image.GetDimension()))
    return Image(
        array=np.ascontiguousarray(array),
        spacing=tuple(float(value) for value in image.GetSpacing()[:num_axes][::-1]),
        origin=tuple(float(value) for value in image.GetOrigin()[:num_axes]),
        direction=tuple(float(value) for value in rows[:num_axes, :num_axes].ravel()),
    )


def _execute(action: Any, path: Path) -> Any:
    """Call SimpleITK with its messages off the terminal, and its error in one line that names the file."""
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        with _stderr_held_back():
            return action()
    except RuntimeError as error:
        raise InputError(f"{path}: cannot be read or written: {_reason(error)}.") from error


def _reason(error: RuntimeError) -> str:
    """The last line of SimpleITK's error, where it says something to a person."""
    last = str(error).strip().splitlines()[-1].replace("sitk::ERROR: ", "").strip()
    if "Reason:" in last or "Unable to determine ImageIO" in last:
        return "damaged, or not of the kind its ending says"
    return last.rstrip(".")


@contextmanager
def _stderr_held_back() -> Iterator[None]:
    """Catch what C and C++ libraries print to the standard error; it is shown if all went well.

    The stream belongs to the whole process: what other threads print meanwhile comes late, or is lost
    together with the noise of a decoder that fails.
    """
    with _stderr_lock, tempfile.TemporaryFile() as held:
        try:
            saved = os.dup(_STDERR)
        except OSError:  # the process has no standard error
            yield
            return
        try:
            if sys.stderr is not None:
                sys.stderr.flush()
            os.dup2(held.fileno(), _STDERR)
            yield
            if sys.stderr is not None:
                sys.stderr.flush()
            held.seek(0)
            os.write(saved, held.read())
        finally:
            os.dup2(saved, _STDERR)
            os.close(saved)
