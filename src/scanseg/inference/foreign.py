"""Objects of other libraries that are given in place of an image."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np

from scanseg.errors import UsageError
from scanseg.imaging import BinaryFile, Image, library_of

_SAVE = "Save the image and give its file, which keeps its position and orientation."
_ADVICE = {
    "torch": "Give tensor.cpu().numpy() with spacing=.",
    "itk": f"{_SAVE} Or give itk.array_from_image(image) with spacing=image.GetSpacing()[::-1].",
    "pydicom": "Give the folder of the series as a path.",
    "monai": "Give tensor.cpu().numpy() with spacing=.",
    "torchio": f"{_SAVE} Or give image.numpy() in the axis order channel, z, y, x, with spacing=.",
    "ants": f"{_SAVE} Or give image.numpy().T with spacing=image.spacing[::-1].",
}
"""Conversion of an object by the library of its type."""


def refuse_foreign(source: object) -> None:
    """Refuse an object that is no source of an image.

    Args:
        source: Argument of a prediction.

    Raises:
        UsageError: The object is of another type. The message names it, and how to convert it.
    """
    if isinstance(source, str | PathLike | bytes | bytearray | memoryview | Image | np.ndarray):
        return
    if library_of(source) is not None or (isinstance(source, BinaryFile) and _advice(source) is None):
        return
    if isinstance(source, Sequence):
        wrong = [each for each in source if not isinstance(each, str | PathLike)]
        if not wrong:
            return
        advice = "Give one file for each channel, or one array by numpy.stack."
        raise UsageError(
            f"image: expected a list of paths, got a list of {_type_name(wrong[0])}. {_advice(wrong[0]) or advice}"
        )
    advice = _advice(source) or "Give its file, or numpy.asarray(object) with spacing=."
    raise UsageError(
        "image: expected a path, a list of paths, the content of a file, an image or a NumPy array, got "
        f"{_type_name(source)}. {advice}"
    )


def as_path(source: object, *, name: str) -> Path:
    """Return a path of an argument that names files or folders.

    Args:
        source: The argument.
        name: Name of the argument, for the message.

    Raises:
        UsageError: The argument is no path.
    """
    if isinstance(source, str | PathLike):
        return Path(source)
    raise UsageError(
        f"{name}: expected the path of a file or folder, got {_type_name(source)}. Segment an image in memory by "
        "predict."
    )


def _advice(source: object) -> str | None:
    """Return how to convert an object of a known library."""
    return next(
        (
            _ADVICE[library]
            for kind in type(source).__mro__
            if (library := kind.__module__.partition(".")[0]) in _ADVICE
        ),
        None,
    )


def _type_name(source: object) -> str:
    """Return the full name of an object's type."""
    kind = type(source)
    return f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
